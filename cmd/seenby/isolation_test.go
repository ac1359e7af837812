package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// probe is one request that names things by id, and what it needs of the tenant that they belong to.
type probe struct {
	path string // %s: the id of a post, an audience or a person
	body string // likewise
	// header and query carry what another tenant was given (tokens, cursors, receipts), by name; a random string of
	// the same length is what is unknown.
	header, query map[string]string
	token         string // where the path holds no id, but what another tenant was given
}

// TestIsolation walks every route of the contract with the key of one tenant: what belongs to another is answered
// as what does not exist, in status, headers and body. A new route has to be known here.
func TestIsolation(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,gate,projector,keeper")
	in.command("tenants", "create", "acme")
	theirs := &process{t: t, api: p.api, key: strings.TrimSpace(in.command("keys", "create", "acme"))}
	eventually(t, 10e9, "the new key to be known", func() error {
		if status, err := theirs.get("/v1/counts?post=x", nil, nil); status != http.StatusOK {
			return fmt.Errorf("%d %w", status, err)
		}
		return nil
	})
	const id = "their-secret-id" // as long as unknownID
	given := fillTenant(theirs, id)
	now := time.Now().UTC()
	days := fmt.Sprintf("?interval=day&from=%s&to=%s", now.AddDate(0, 0, -1).Format(time.RFC3339), now.AddDate(0, 0, 1).Format(time.RFC3339))
	before := theirs.everything(t, id, days, given.position)
	// Answers name people once their names are projected: both are, before the first answer is compared.
	position := p.must(http.StatusAccepted, "POST", "/v1/audiences/names/members:batch", nil, map[string]any{"add": []string{id, unknownID}}, nil)
	p.must(http.StatusOK, "GET", "/v1/audiences/names/members", waitFor(position), nil, nil)

	probes := map[string]probe{
		"put-post":            {path: "/v1/posts/%s", body: `{"author":"%s","audience":"audience:%s"}`},
		"new-post":            {path: "/v1/posts", body: `{"author":"%s"}`},
		"put-posts":           {path: "/v1/posts:batch", body: `{"posts":[{"id":"%s","author":"%s"},{"id":"%s"}]}`},
		"report-views":        {path: "/v1/views", body: `{"views":[{"id":"` + uuid.NewString() + `","post":"%s","viewer":"%s"}]}`},
		"patch-post":          {path: "/v1/posts/%s", body: `{"body":"%s"}`},
		"delete-post":         {path: "/v1/posts/%s"},
		"get-post":            {path: "/v1/posts/%s"},
		"get-history":         {path: "/v1/posts/%s/history", query: map[string]string{"cursor": given.historyCursor}},
		"get-feed":            {path: "/v1/posts?author=%s&audience=audience:%s", query: map[string]string{"cursor": given.feedCursor}},
		"get-counts":          {path: "/v1/counts?post=%s"},
		"get-viewers":         {path: "/v1/posts/%s/viewers", query: map[string]string{"cursor": given.viewersCursor}},
		"get-post-timeseries": {path: "/v1/posts/%s/timeseries"},
		"get-timeseries":      {path: "/v1/timeseries"},
		"put-member":          {path: "/v1/audiences/%s/members/%s"},
		"delete-member":       {path: "/v1/audiences/%s/members/%s"},
		"change-members":      {path: "/v1/audiences/%s/members:batch", body: `{"add":["%s"]}`},
		"get-members":         {path: "/v1/audiences/%s/members", query: map[string]string{"cursor": given.membersCursor}},
		"erase-person":        {path: "/v1/people/%s"},
		"get-erasure":         {path: "/v1/erasures/%s", token: given.receipt},
	}
	for _, op := range operations(t, p) {
		probe, known := probes[op.id]
		if !known {
			t.Errorf("no probe for the operation %s (%s %s)", op.id, op.method, op.path)
			continue
		}
		t.Run(op.id, func(t *testing.T) {
			// In this order: what a write makes under the one id must not be there for the other.
			unknownID, id := unknownID, id
			if probe.token != "" {
				unknownID, id = randomLike(probe.token), probe.token
			}
			unknown := p.ask(t, op.method, probe, unknownID, nil)
			known := p.ask(t, op.method, probe, id, nil)
			same(t, known, unknown, id)
			if op.method == http.MethodGet {
				probe.header = map[string]string{"Seenby-Wait-For": given.position}
			}
			for name, token := range probe.header {
				same(t, p.ask(t, op.method, probe, unknownID, func(r *http.Request) { r.Header.Set(name, token) }),
					p.ask(t, op.method, probe, unknownID, func(r *http.Request) { r.Header.Set(name, randomLike(token)) }), id)
			}
			for name, token := range probe.query {
				if token == "" {
					t.Fatalf("the other tenant was given no %s", name)
				}
				with := func(value string) func(*http.Request) {
					return func(r *http.Request) { q := r.URL.Query(); q.Set(name, value); r.URL.RawQuery = q.Encode() }
				}
				same(t, p.ask(t, op.method, probe, unknownID, with(token)), p.ask(t, op.method, probe, unknownID, with(randomLike(token))), id)
			}
		})
	}
	if after := theirs.everything(t, id, days, given.position); after != before {
		t.Errorf("what belongs to the other tenant changed:\n%s\n%s", before, after)
	}
}

const unknownID = "no-such-thing-1"

// handedOut is what a tenant holds that says something of its data.
type handedOut struct{ position, viewersCursor, membersCursor, historyCursor, feedCursor, receipt string }

// fillTenant makes one of everything, all called id.
func fillTenant(p *process, id string) (g handedOut) {
	p.must(http.StatusCreated, "PUT", "/v1/posts/"+id, nil, map[string]any{"author": id, "body": "their text"}, nil)
	p.must(http.StatusOK, "PATCH", "/v1/posts/"+id, nil, map[string]any{"audience": "audience:" + id}, nil)
	p.must(http.StatusCreated, "POST", "/v1/posts", nil, map[string]any{"author": id, "audience": "audience:" + id}, nil)
	members := p.must(http.StatusAccepted, "POST", "/v1/audiences/"+id+"/members:batch", nil, map[string]any{"add": []string{id, "another"}}, nil)
	g.position = members + "," + p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: []viewItem{
		{ID: uuid.NewString(), Post: id, Viewer: id}, {ID: uuid.NewString(), Post: id, Viewer: "another"},
	}}, nil)
	var erased erasureAnswer
	p.must(http.StatusOK, "DELETE", "/v1/people/nobody", nil, nil, &erased)
	g.receipt = erased.Receipt
	cursor := func(path string) string {
		var page struct {
			NextCursor string `json:"next_cursor"`
		}
		p.must(http.StatusOK, "GET", path+"limit=1", waitFor(g.position), nil, &page)
		return page.NextCursor
	}
	g.viewersCursor, g.membersCursor = cursor("/v1/posts/"+id+"/viewers?"), cursor("/v1/audiences/"+id+"/members?")
	g.historyCursor, g.feedCursor = cursor("/v1/posts/"+id+"/history?"), cursor("/v1/posts?author="+id+"&audience=audience:"+id+"&")
	return g
}

// everything is what the tenant reads of what is called id and of these days, once position is passed.
func (p *process) everything(t *testing.T, id, days, position string) string {
	t.Helper()
	var all []string
	for _, path := range []string{
		"/v1/posts/" + id, "/v1/posts/" + id + "/viewers", "/v1/posts/" + id + "/history", "/v1/posts?author=" + id, "/v1/audiences/" + id + "/members",
		"/v1/posts/" + id + "/timeseries" + days, "/v1/timeseries" + days,
	} {
		a, err := p.do("GET", path, waitFor(position), nil)
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: %d %s %v", path, a.status, a.body, err)
		}
		all = append(all, asOf.ReplaceAllString(string(a.body), ""))
	}
	return strings.Join(all, "\n")
}

var asOf = regexp.MustCompile(`"as_of":("[^"]*"|null)`)

type operation struct{ id, method, path string }

// operations are those of the contract that the process serves.
func operations(t *testing.T, p *process) (all []operation) {
	t.Helper()
	var contract struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if status, err := p.get("/openapi.json", nil, &contract); err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	for path, methods := range contract.Paths {
		for method, op := range methods {
			all = append(all, operation{op.OperationID, strings.ToUpper(method), path})
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %d operations in the contract", len(all))
	}
	// Reads come first: what the writes make is projected at some time, which might be between two answers.
	order := func(o operation) string {
		if o.method == http.MethodGet {
			return "1 " + o.id
		}
		return "2 " + o.id
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(order(a), order(b)) })
	return all
}

// ask sends the probe for an id.
func (p *process) ask(t *testing.T, method string, pr probe, id string, change func(*http.Request)) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.api+strings.ReplaceAll(pr.path, "%s", id), strings.NewReader(strings.ReplaceAll(pr.body, "%s", id)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	if change != nil {
		change(req)
	}
	a, err := send(req)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What differs between any two answers.
var (
	anyTime  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.]*Z`)
	receipt  = regexp.MustCompile(`"receipt":"[^"]+"`)
	anyUUID  = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	ownWords = map[string]bool{"Date": true, "Content-Length": true, "Seenby-Position": true, "Ratelimit": true}
)

// same compares two answers but for the ids that were asked about, times, and tokens, which must all be there.
func same(t *testing.T, known, unknown answer, id string) {
	t.Helper()
	show := func(a answer) string {
		headers := map[string][]string{}
		for name, values := range a.header {
			if ownWords[name] {
				values = []string{fmt.Sprint(len(values))}
			}
			headers[name] = values
		}
		text, err := json.Marshal(headers)
		if err != nil {
			t.Fatal(err)
		}
		all := fmt.Sprintf("%d\n%s\n%s", a.status, text, a.body)
		all = strings.NewReplacer(id, "ID", unknownID, "ID").Replace(all)
		all = receipt.ReplaceAllString(asOf.ReplaceAllString(all, "AS_OF"), "RECEIPT")
		return anyUUID.ReplaceAllString(anyTime.ReplaceAllString(all, "TIME"), "UUID")
	}
	if a, b := show(known), show(unknown); a != b {
		t.Errorf("another tenant's is answered by\n%s\nand what is unknown by\n%s", a, b)
	}
}

// randomLike is a token of the same form that nobody was given.
func randomLike(token string) string {
	b := []byte(token)
	for i := range b {
		b[i] = "ABCDEFGHabcdefgh01234567-_"[(int(b[i])*7+i*3)%26]
	}
	return string(b)
}
