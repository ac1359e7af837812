package faulttest_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// milestones are called for each post that passes them.
var milestones = []int64{10, 100, 1000}

// callTimeout of the relays: short, so that a fault that lasts some seconds is met by several calls.
const callTimeout = time.Second

// mood is what a core system does with calls.
type mood int

const (
	willing   mood = iota
	failing        // answers 500
	limiting       // answers 429
	hanging        // takes nothing and does not answer
	breaking       // ends the connection in the middle of the body, of the request or of the answer
	late           // takes the call, and the answer comes too late
	shuffling      // takes some calls after later ones, and without an answer
)

// core is the core system of the tenant: it keeps the highest revision of each post, drops milestones whose id it has seen, and
// notes whatever the contract rules out.
type core struct {
	addr   string
	secret string

	mu       sync.Mutex
	server   *http.Server // nil: down
	mood     mood
	met      int              // calls that met a mood, since it came
	posts    map[string]*post // that it was told of
	ids      map[string]string
	called   map[milestone]string // by the first id
	held     []held               // calls that are taken after later ones
	calls    int
	problems []string
}

// post is what a core system was told of one.
type post struct {
	by      map[int64]told // revision
	highest int64          // revision
}

type told struct {
	Impressions   int64 `json:"impressions"`
	UniqueViewers int64 `json:"unique_viewers"`
}

type milestone struct {
	post string
	at   int64
}

// call is the body of one.
type call struct {
	Type string `json:"type"`
	Data struct {
		Tenant string `json:"tenant"`
		Posts  []struct {
			Post     string `json:"post"`
			Revision int64  `json:"revision"`
			told
		} `json:"posts"`
		Post        string `json:"post"`
		Milestone   int64  `json:"milestone"`
		Impressions int64  `json:"impressions"`
	} `json:"data"`
}

type held struct {
	id    string
	body  call
	until int // calls
}

// newCore listens until the test ends.
func newCore(t testing.TB) *core {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &core{addr: l.Addr().String(), posts: map[string]*post{}, ids: map[string]string{}, called: map[milestone]string{}}
	c.serve(l)
	t.Cleanup(c.down)
	return c
}

func (c *core) serve(l net.Listener) {
	server := &http.Server{Handler: c, ReadHeaderTimeout: requestTimeout}
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	go server.Serve(l) //nolint:errcheck // down ends it
}

// down closes all connections, and refuses new ones.
func (c *core) down() {
	c.mu.Lock()
	server := c.server
	c.server = nil
	c.mu.Unlock()
	if server != nil {
		server.Close()
	}
}

// up listens again, where it did before.
func (c *core) up(ctx context.Context) error {
	return until(ctx, settleWithin, "the core system's port", func() error {
		l, err := net.Listen("tcp", c.addr)
		if err == nil {
			c.serve(l)
		}
		return err
	})
}

// be changes the mood. What was held back is taken at the latest when that ends.
func (c *core) be(m mood) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mood, c.met = m, 0
	for _, h := range c.held {
		c.take(h.id, h.body)
	}
	c.held = nil
}

// struck tells how many calls the mood has met.
func (c *core) struck() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met
}

// meet counts a call, and tells the mood and the number of calls that it has met.
func (c *core) meet() (mood, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met++
	return c.mood, c.met
}

func (c *core) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	m, n := c.meet()
	if m == breaking && n%2 == 1 {
		io.CopyN(io.Discard, req.Body, 10) //nolint:errcheck // the rest is not wanted
		panic(http.ErrAbortHandler)
	}
	text, err := io.ReadAll(req.Body)
	if err != nil {
		return // it was killed in the middle of it
	}
	verifier, err := standardwebhooks.NewWebhook(c.secret)
	if err == nil {
		err = verifier.Verify(text, req.Header)
	}
	if err != nil {
		c.complain("a call's signature: %v", err)
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	if req.Method == http.MethodGet {
		io.WriteString(w, `{"posts":[]}`) //nolint:errcheck // the command says so
		return
	}
	var body call
	if err := json.Unmarshal(text, &body); err != nil {
		c.complain("a call's body: %v", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.answer(w, req, m, n, body)
}

func (c *core) answer(w http.ResponseWriter, req *http.Request, m mood, n int, body call) {
	id := req.Header.Get("webhook-id")
	switch m {
	case failing:
		http.Error(w, "as the fault wants it", http.StatusInternalServerError)
		return
	case limiting:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "as the fault wants it", http.StatusTooManyRequests)
		return
	case hanging:
		<-req.Context().Done()
		return
	case shuffling:
		const each, later = 3, 2
		if n%each == 1 {
			c.hold(id, body, later)
			<-req.Context().Done()
			return
		}
	case willing, breaking, late:
	}
	c.mu.Lock()
	c.take(id, body)
	c.mu.Unlock()
	switch m {
	case late:
		<-req.Context().Done()
	case breaking:
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "taken, and") //nolint:errcheck // it breaks off anyway
		panic(http.ErrAbortHandler)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// hold has a call taken after some later ones.
func (c *core) hold(id string, body call, later int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = append(c.held, held{id, body, c.calls + later})
}

// take keeps what a call says, and holds it against what was said before.
func (c *core) take(id string, body call) {
	c.calls++
	says := fmt.Sprint(body.Type, body.Data)
	if body.Type == "impressions.milestone" {
		says = fmt.Sprint(body.Type, body.Data.Post, body.Data.Milestone)
	}
	if before, seen := c.ids[id]; seen && before != says {
		c.complainLocked("the id %s stood for %s, and then for %s", id, before, says)
	}
	c.ids[id] = says
	if body.Data.Tenant != tenant {
		c.complainLocked("a call speaks of tenant %q", body.Data.Tenant)
	}
	switch body.Type {
	case "impressions.changed":
		for _, one := range body.Data.Posts {
			c.tell(one.Post, one.Revision, one.told)
		}
	case "impressions.milestone":
		at := milestone{body.Data.Post, body.Data.Milestone}
		if before, ok := c.called[at]; ok && before != id {
			c.complainLocked("milestone %d of %s was called as %s, and as %s", at.at, at.post, before, id)
		}
		c.called[at] = id
		if body.Data.Impressions < at.at {
			c.complainLocked("milestone %d of %s was called at %d impressions", at.at, at.post, body.Data.Impressions)
		}
	default:
		c.complainLocked("a call of type %q", body.Type)
	}
	i := slices.IndexFunc(c.held, func(h held) bool { return h.until <= c.calls })
	if i >= 0 {
		h := c.held[i]
		c.held = slices.Delete(c.held, i, i+1)
		c.take(h.id, h.body)
	}
}

func (c *core) tell(name string, revision int64, value told) {
	p := c.posts[name]
	if p == nil {
		p = &post{by: map[int64]told{}}
		c.posts[name] = p
	}
	if before, seen := p.by[revision]; seen && before != value {
		c.complainLocked("revision %d of %s was %+v, and then %+v", revision, name, before, value)
	}
	p.by[revision] = value
	p.highest = max(p.highest, revision)
}

func (c *core) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.complainLocked(format, args...)
}

func (c *core) complainLocked(format string, args ...any) {
	if len(c.problems) < problemsMax {
		c.problems = append(c.problems, fmt.Sprintf(format, args...))
	}
}

// totals are the calls that it has taken, and the milestones among them, each once.
func (c *core) totals() (calls, called int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls, len(c.called)
}

// reached tells whether all counts and milestones are there; whether they are right is for check to say.
func (c *core) reached(want *expectation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(want.posts)) {
		w := want.posts[name]
		if have := c.valueOf(name); have.Impressions < w.impressions || have.UniqueViewers < w.unique {
			return fmt.Errorf("it has %+v of %s, and there are %d by %d", have, name, w.impressions, w.unique)
		}
		for _, at := range milestones {
			if _, called := c.called[milestone{name, at}]; !called && at <= w.impressions {
				return fmt.Errorf("milestone %d of %s was not called", at, name)
			}
		}
	}
	return nil
}

// valueOf is the value of the highest revision of a post.
func (c *core) valueOf(name string) told {
	p := c.posts[name]
	if p == nil {
		return told{}
	}
	return p.by[p.highest]
}

// check holds all that it was ever told against what was counted.
func (c *core) check(want *expectation, f *finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range want.posts {
		have := c.valueOf(name)
		f.differ("impressions of "+name+" at the core system", have.Impressions, w.impressions)
		f.differ("unique viewers of "+name+" at the core system", have.UniqueViewers, w.unique)
		for _, at := range milestones {
			if _, called := c.called[milestone{name, at}]; called != (at <= w.impressions) {
				f.problems = append(f.problems, fmt.Sprintf("milestone %d of %s, which has %d impressions: called is %v", at, name, w.impressions, called))
			}
		}
	}
	for name, p := range c.posts {
		if want.posts[name] == nil {
			f.differ("impressions of "+name+" at the core system", c.valueOf(name).Impressions, 0)
		}
		var before told
		for _, revision := range slices.Sorted(maps.Keys(p.by)) {
			value := p.by[revision]
			if value.Impressions < before.Impressions || value.UniqueViewers < before.UniqueViewers {
				c.complainLocked("revision %d lowers %s from %+v to %+v", revision, name, before, value)
			}
			before = value
		}
	}
	for at := range c.called {
		if want.posts[at.post] == nil || !slices.Contains(milestones, at.at) {
			f.problems = append(f.problems, fmt.Sprintf("milestone %d of %s was called", at.at, at.post))
		}
	}
	f.problems = append(f.problems, c.problems...)
}

// tellCore makes the core system of the tenant, and has it told from now on, by the commands that an operator types.
func (w *world) tellCore() {
	w.t.Helper()
	w.core = newCore(w.t)
	direct := w.direct()
	lines := strings.Split(w.command(direct, "relay", "endpoints", "create", tenant, "http://"+w.core.addr+"/seenby", "--allow-private"), "\n")
	w.core.secret = lines[1]
	texts := make([]string, len(milestones))
	for i, at := range milestones {
		texts[i] = fmt.Sprint(at)
	}
	w.command(direct, "relay", "milestones", tenant, strings.Join(texts, ","))
	w.command(direct, "relay", "enable", tenant)
}

// awaitCore waits until the core system has all that was counted. An endpoint that fails is left alone longer each time; what
// it has refused too often an operator sends again.
func (w *world) awaitCore(ctx context.Context) error {
	want := w.expectation()
	redriven := time.Now()
	err := until(ctx, coreWithin, "the core system to have everything", func() error {
		err := w.core.reached(want)
		if err != nil && time.Since(redriven) > redriveEvery {
			w.command(w.direct(), "relay", "redrive", tenant)
			redriven = time.Now()
		}
		return err
	})
	if err != nil {
		status := w.command(w.direct(), "relay", "status", tenant)
		w.core.mu.Lock()
		defer w.core.mu.Unlock()
		err = errors.Join(err, fmt.Errorf("%s\n%s", cmp.Or(strings.Join(w.core.problems, "\n"), "it has seen nothing wrong"), status))
	}
	return err
}

const (
	redriveEvery = 20 * time.Second
	// coreWithin is longer than the rest: one that has failed for a minute is left alone for up to three.
	coreWithin = 6 * time.Minute
)
