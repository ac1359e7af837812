package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	bodyBytesMax = 1 << 20
	pagePostsMax = 500 // of the answer to GET /seenby
	shownMax     = 200 // of posts and of milestones on the page for people
)

type core struct {
	verifiers []*standardwebhooks.Webhook
	store     *store
	now       func() time.Time
	log       *log.Logger
}

func (c *core) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /seenby", c.receive) // Seenby tells
	mux.HandleFunc("GET /seenby", c.values)   // Seenby asks, at first contact
	mux.HandleFunc("GET /{$}", c.page)
	mux.HandleFunc("GET /posts/{id}", c.post)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

// newVerifiers reads secrets. While a secret is replaced there are two, and either is good.
func newVerifiers(secrets string) ([]*standardwebhooks.Webhook, error) {
	var out []*standardwebhooks.Webhook
	for secret := range strings.SplitSeq(secrets, ",") {
		key, ok := strings.CutPrefix(strings.TrimSpace(secret), "whsec_")
		v, err := standardwebhooks.NewWebhook(key)
		if !ok || key == "" || err != nil {
			return nil, errors.New("set CORE_SECRETS or --secrets to what setting the endpoint printed: whsec_..., several separated by commas")
		}
		out = append(out, v)
	}
	return out, nil
}

// verified reads a call's body and checks who sent it, before anything else looks at it. The signature is over the very bytes of
// the body, with the id and a time that may be 5 minutes from this clock. Where ok is false the call is answered.
func (c *core) verified(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, fmt.Sprintf("the body is over %d bytes", bodyBytesMax), http.StatusRequestEntityTooLarge)
		return nil, false
	case err != nil:
		http.Error(w, "the body did not arrive whole", http.StatusBadRequest)
		return nil, false
	}
	for _, v := range c.verifiers {
		if err = v.Verify(body, r.Header); err == nil {
			return body, true
		}
	}
	http.Error(w, err.Error(), http.StatusUnauthorized) // which header is missing, which clock is wrong, or that no secret matches
	return nil, false
}

// receive takes a call. It answers 204 only once what the call brought is on disk: from then on the sender forgets it. The same call
// may come again, and calls may come in another order than they were made; neither changes what is kept.
func (c *core) receive(w http.ResponseWriter, r *http.Request) {
	body, ok := c.verified(w, r)
	if !ok {
		return
	}
	var call struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &call); err != nil {
		http.Error(w, "the body is malformed: "+err.Error(), http.StatusBadRequest)
		return
	}
	change := entry{At: c.now()}
	var err error
	switch call.Type {
	case "":
		err = errors.New("type is required")
	case "impressions.changed":
		change.Posts, err = counts(call.Data)
	case "impressions.milestone":
		change.Milestone, err = newMilestone(r.Header.Get(standardwebhooks.HeaderWebhookID), call.Data)
	default: // seenby.test, and what a newer sender has to tell: there is nothing to do, and nothing wrong
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := c.store.take(change); err != nil {
		c.log.Print(err)
		http.Error(w, "cannot be kept now; try again later", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// counts reads absolute counts. Fields that are not known here are passed over: a newer sender may have more.
func counts(data json.RawMessage) ([]post, error) {
	var in struct {
		Posts []struct {
			Post          string    `json:"post"`
			Impressions   *int64    `json:"impressions"`
			UniqueViewers *int64    `json:"unique_viewers"`
			Revision      int64     `json:"revision"`
			AsOf          time.Time `json:"as_of"` // everything before it is in the counts; may be absent
		} `json:"posts"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("data is malformed: %w", err)
	}
	if in.Posts == nil {
		return nil, errors.New("data.posts is required")
	}
	out := make([]post, len(in.Posts))
	for i, p := range in.Posts {
		switch {
		case p.Post == "":
			return nil, fmt.Errorf("data.posts[%d].post is required", i)
		case p.Impressions == nil || *p.Impressions < 0:
			return nil, fmt.Errorf("data.posts[%d].impressions must be a whole number from 0", i)
		case p.UniqueViewers == nil || *p.UniqueViewers < 0:
			return nil, fmt.Errorf("data.posts[%d].unique_viewers must be a whole number from 0", i)
		case p.Revision < 1:
			return nil, fmt.Errorf("data.posts[%d].revision must be a whole number from 1", i)
		}
		out[i] = post{Post: p.Post, Impressions: *p.Impressions, UniqueViewers: *p.UniqueViewers, Revision: p.Revision, AsOf: p.AsOf}
	}
	return out, nil
}

// newMilestone reads a milestone. Its webhook-id is the same however often it is sent.
func newMilestone(id string, data json.RawMessage) (*milestone, error) {
	var m milestone
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("data is malformed: %w", err)
	}
	switch {
	case m.Post == "":
		return nil, errors.New("data.post is required")
	case m.Milestone < 1:
		return nil, errors.New("data.milestone must be a whole number from 1")
	}
	m.ID = id
	return &m, nil
}

// values answers what this system has, in pages: Seenby asks once, before it tells anything. The body is empty, and signed too.
func (c *core) values(w http.ResponseWriter, r *http.Request) {
	if _, ok := c.verified(w, r); !ok {
		return
	}
	type value struct {
		Post        string `json:"post"`
		Impressions int64  `json:"impressions"`
		Revision    int64  `json:"revision"`
	}
	posts, next := c.store.after(r.URL.Query().Get("cursor"), pagePostsMax)
	values := make([]value, len(posts))
	for i, p := range posts {
		values[i] = value{p.Post, p.Impressions, p.Revision}
	}
	answerJSON(w, struct {
		Posts []value `json:"posts"`
		Next  string  `json:"next_cursor,omitempty"`
	}{values, next})
}

// The rest is not part of the contract.

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText)) // it escapes what it is given

func (c *core) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'")
	if err := pageTemplate.Execute(w, c.store.latest(shownMax)); err != nil {
		c.log.Print(err) // the reader is gone
	}
}

func (c *core) post(w http.ResponseWriter, r *http.Request) {
	p, milestones, ok := c.store.find(r.PathValue("id"))
	if !ok {
		http.Error(w, "no such post", http.StatusNotFound)
		return
	}
	answerJSON(w, struct {
		post
		Milestones []milestone `json:"milestones"`
	}{p, milestones})
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only if the caller is gone
}
