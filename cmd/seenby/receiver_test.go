package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// told is what a receiver has of a post.
type told struct {
	Impressions   int64 `json:"impressions"`
	UniqueViewers int64 `json:"unique_viewers"`
	Revision      int64 `json:"revision"`
}

// receiver is a core system of a test: it keeps the highest revision of each post, as the contract says.
type receiver struct {
	t   testing.TB
	url string

	mu         sync.Mutex
	secret     string
	posts      map[string]told
	milestones map[string]map[int64]int // by post and threshold, how often each was called with a new id
	ids        map[string]bool          // of milestones
	lowered    []string                 // posts whose count fell under a higher revision
	// answer decides what a call is answered; 0: taken. It is asked after what the call says is known, and nothing is kept
	// where it answers anything else.
	answer func(body callBody) int
	hang   chan struct{} // calls wait until it is closed
}

// callBody is what a call says.
type callBody struct {
	Type string `json:"type"`
	Data struct {
		Tenant string `json:"tenant"`
		Posts  []struct {
			Post string `json:"post"`
			told
		} `json:"posts"`
		Post      string `json:"post"`
		Milestone int64  `json:"milestone"`
	} `json:"data"`
}

// newReceiver listens until the test ends.
func newReceiver(t testing.TB) *receiver {
	r := &receiver{
		t: t, posts: map[string]told{}, milestones: map[string]map[int64]int{}, ids: map[string]bool{},
	}
	server := httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(server.Close)
	r.url = server.URL + "/seenby"
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	text, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	hang := r.hang
	r.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-req.Context().Done():
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	verifier, err := standardwebhooks.NewWebhook(r.secret)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if err := verifier.Verify(text, req.Header); err != nil {
		http.Error(w, "the signature is wrong", http.StatusUnauthorized)
		return
	}
	if req.Method == http.MethodGet {
		r.values(w)
		return
	}
	var body callBody
	if err := json.Unmarshal(text, &body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.answer != nil {
		if status := r.answer(body); status != 0 {
			http.Error(w, "as the test wants it", status)
			return
		}
	}
	r.take(req.Header.Get("webhook-id"), body)
	w.WriteHeader(http.StatusNoContent)
}

// take keeps what a call says.
func (r *receiver) take(id string, body callBody) {
	switch body.Type {
	case "impressions.changed":
		for _, p := range body.Data.Posts {
			if have := r.posts[p.Post]; p.Revision > have.Revision {
				if p.Impressions < have.Impressions {
					r.lowered = append(r.lowered, p.Post)
				}
				r.posts[p.Post] = p.told
			}
		}
	case "impressions.milestone":
		if r.ids[id] {
			return
		}
		r.ids[id] = true
		if r.milestones[body.Data.Post] == nil {
			r.milestones[body.Data.Post] = map[int64]int{}
		}
		r.milestones[body.Data.Post][body.Data.Milestone]++
	}
}

// values answers what it has, on one page.
func (r *receiver) values(w http.ResponseWriter) {
	type value struct {
		Post        string `json:"post"`
		Impressions int64  `json:"impressions"`
		Revision    int64  `json:"revision"`
	}
	page := struct {
		Posts []value `json:"posts"`
	}{[]value{}}
	for post, t := range r.posts {
		page.Posts = append(page.Posts, value{post, t.Impressions, t.Revision})
	}
	if err := json.NewEncoder(w).Encode(page); err != nil {
		r.t.Error(err)
	}
}

// change does something to the receiver between two calls.
func (r *receiver) change(f func(r *receiver)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// has gives what it has of a post.
func (r *receiver) has(post string) (t told) {
	r.change(func(r *receiver) { t = r.posts[post] })
	return t
}

// thresholds are the milestones of a post that were called, rising; one that came twice stands twice.
func (r *receiver) thresholds(post string) (called []int64) {
	r.change(func(r *receiver) {
		for threshold, n := range r.milestones[post] {
			for range n {
				called = append(called, threshold)
			}
		}
	})
	slices.Sort(called)
	return called
}

// endpoint makes an endpoint of the tenant demo at the receiver, and gives its id.
func (in *installation) endpoint(r *receiver) (id string) {
	in.t.Helper()
	lines := strings.Split(in.command("relay", "endpoints", "create", "demo", r.url, "--allow-private"), "\n")
	r.change(func(r *receiver) { r.secret = lines[1] })
	return lines[0]
}
