package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is what a post is to its writers: a register with a version, which ends with its deletion.
type register struct {
	version int64
	deleted bool
	author  string
	text    string
}

// call is one request about a post.
type call struct {
	post    string
	method  string // GET, PUT, PATCH or DELETE
	ifMatch int64  // 0: unconditional
	create  bool   // If-None-Match: *
	author  string // PUT
	text    string // PUT, PATCH
}

// reply is its answer. status 0: nobody knows what became of it.
type reply struct {
	status  int
	version int64  // GET: what stands; else the ETag: what the write made
	text    string // GET
}

// apply is the sequential specification: what the call makes of the register, and its answer.
func (r register) apply(c call) (register, reply) {
	conditional := c.ifMatch != 0 || c.create
	switch {
	case r.deleted:
		return r, reply{status: http.StatusGone}
	case c.method == http.MethodGet && r.version == 0:
		return r, reply{status: http.StatusNotFound}
	case c.method == http.MethodGet:
		return r, reply{http.StatusOK, r.version, r.text}
	case c.create && r.version > 0, c.ifMatch != 0 && c.ifMatch != r.version:
		return r, reply{status: http.StatusPreconditionFailed}
	case r.version == 0 && c.method != http.MethodPut:
		if conditional {
			return r, reply{status: http.StatusPreconditionFailed}
		}
		return r, reply{status: http.StatusNotFound}
	}
	next := r
	switch c.method {
	case http.MethodDelete:
		return register{version: r.version + 1, deleted: true}, reply{status: http.StatusNoContent}
	case http.MethodPut:
		next.author = c.author
	}
	next.text = c.text
	if next == r {
		return r, reply{status: http.StatusOK, version: r.version}
	}
	next.version++
	if next.version == 1 {
		return next, reply{status: http.StatusCreated, version: 1}
	}
	return next, reply{status: http.StatusOK, version: next.version}
}

// registers is the specification as porcupine takes it, each post for itself.
func registers() porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{register{}} },
		Step: func(state, input, output any) []any {
			r, c, got := state.(register), input.(call), output.(reply)
			next, want := r.apply(c)
			switch {
			case got.status == 0:
				return []any{r, next}
			case got == want:
				return []any{next}
			case c.method == http.MethodGet && got.text == "" && got.version == want.version && got.status == want.status:
				return []any{next} // the text is on another topic and may come a moment after its version
			case got.status == http.StatusGone && c.method != http.MethodGet && want.status < 300:
				return []any{next} // it was deleted before the write could be read back; observe holds it to that
			}
			return nil
		},
		Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
			of := map[string]int{}
			for _, op := range history {
				post := op.Input.(call).post
				if _, known := of[post]; !known {
					of[post] = len(parts)
					parts = append(parts, nil)
				}
				parts[of[post]] = append(parts[of[post]], op)
			}
			return parts
		},
	}
	return model.ToModel()
}

// The specification itself can be broken: what must not be is found.
func TestRegistersRefuse(t *testing.T) {
	put := func(text string, ifMatch int64) call {
		return call{post: "p", method: http.MethodPut, author: "ann", text: text, ifMatch: ifMatch}
	}
	get := call{post: "p", method: http.MethodGet}
	op := func(c call, r reply, from, to int64) porcupine.Operation {
		return porcupine.Operation{Input: c, Output: r, Call: from, Return: to}
	}
	created := op(put("a", 0), reply{201, 1, ""}, 0, 1)
	gone := op(call{post: "p", method: http.MethodDelete}, reply{status: 204}, 2, 3)
	for name, c := range map[string]struct {
		history []porcupine.Operation
		fine    bool
	}{
		"one wins":                   {[]porcupine.Operation{created, op(put("b", 1), reply{200, 2, ""}, 2, 9), op(put("c", 1), reply{status: 412}, 2, 9)}, true},
		"both win":                   {[]porcupine.Operation{created, op(put("b", 1), reply{200, 2, ""}, 2, 9), op(put("c", 1), reply{200, 2, ""}, 2, 9)}, false},
		"none wins":                  {[]porcupine.Operation{created, op(put("b", 1), reply{status: 412}, 2, 9), op(put("c", 1), reply{status: 412}, 2, 9)}, false},
		"a stale read":               {[]porcupine.Operation{created, op(put("b", 0), reply{200, 2, ""}, 2, 3), op(get, reply{200, 1, "a"}, 4, 5)}, false},
		"a read meanwhile":           {[]porcupine.Operation{created, op(put("b", 0), reply{200, 2, ""}, 2, 5), op(get, reply{200, 1, "a"}, 4, 5)}, true},
		"a read before its text":     {[]porcupine.Operation{created, op(get, reply{200, 1, ""}, 2, 3)}, true},
		"a read of what never was":   {[]porcupine.Operation{created, op(get, reply{200, 1, "b"}, 2, 3)}, false},
		"a life after death":         {[]porcupine.Operation{created, gone, op(put("b", 0), reply{201, 1, ""}, 4, 5)}, false},
		"unknown, and so it was":     {[]porcupine.Operation{created, op(put("b", 0), reply{}, 2, math.MaxInt64), op(get, reply{200, 2, "b"}, 4, 5)}, true},
		"unknown, and so it was not": {[]porcupine.Operation{created, op(put("b", 0), reply{}, 2, math.MaxInt64), op(get, reply{200, 1, "a"}, 4, 5)}, true},
	} {
		if got := porcupine.CheckOperations(registers(), c.history); got != c.fine {
			t.Errorf("%s: linearizable %v", name, got)
		}
	}
}

// observer records what clients do, with its times.
type observer struct {
	began time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	seen  map[int]int // answers by status
}

// do sends a call and records it; it gives the token, if any, and what the answer says that stands.
func (o *observer) do(p *process, client int, c call, token string) (position string, version int64) {
	header := http.Header{}
	var body any
	switch c.method {
	case http.MethodGet:
		if token != "" {
			header = waitFor(token)
		}
	case http.MethodPut:
		body = map[string]any{"author": c.author, "body": c.text}
	case http.MethodPatch:
		body = map[string]any{"body": c.text}
	}
	if c.ifMatch != 0 {
		header.Set("If-Match", strconv.Quote(strconv.FormatInt(c.ifMatch, 10)))
	} else if c.create {
		header.Set("If-None-Match", "*")
	}
	from := time.Since(o.began).Nanoseconds()
	a, err := p.do(c.method, "/v1/posts/"+c.post, header, body)
	to := time.Since(o.began).Nanoseconds()
	var post postAnswer
	if err == nil && (a.status == http.StatusOK || a.status == http.StatusCreated) {
		if err = json.Unmarshal(a.body, &post); err != nil {
			p.t.Errorf("%s: %v", a.body, err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen[a.status]++
	record := func(c call, r reply, to int64) {
		o.ops = append(o.ops, porcupine.Operation{ClientId: client, Input: c, Output: r, Call: from, Return: to})
	}
	read := call{post: c.post, method: http.MethodGet}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "", 0 // never sent
	case err != nil, a.status == http.StatusAccepted, a.status >= 500:
		if c.method != http.MethodGet {
			record(c, reply{}, math.MaxInt64)
		}
		return a.header.Get("Seenby-Position"), 0
	case post.Version > 0: // a read, or a write that was read back
		record(read, reply{http.StatusOK, post.Version, post.Body}, to)
	case a.status == http.StatusGone:
		record(read, reply{status: http.StatusGone}, to)
	case c.method == http.MethodGet:
		record(read, reply{status: a.status}, to)
	}
	if c.method != http.MethodGet {
		made, _ := strconv.ParseInt(strings.Trim(a.header.Get("ETag"), `"`), 10, 64)
		record(c, reply{status: a.status, version: made}, to)
		// An equal write is answered with the text of the event that it was equal to, which is another's.
		if made > post.Version || made > 0 && made == post.Version && post.Body != c.text && c.text != equalText {
			p.t.Errorf("%+v made version %d and was answered by %+v", c, made, post)
		}
	}
	return a.header.Get("Seenby-Position"), post.Version
}

const (
	linearizableClients = 8
	linearizableOps     = 80 // of each client
	postsAtATime        = 3
	opsOfAPost          = 20 // of each client, before it turns to other posts

	equalText = "equal" // written by several
)

// TestLinearizable lets clients of several api processes write the same posts at once, conditionally and not, while
// an api and a projector stop: what they are told is what one register with a version would have told them.
func TestLinearizable(t *testing.T) {
	in, key := install(t)
	stopping := in.serve(key, "projector")
	in.serve(key, "projector")
	apis := []*process{in.serve(key, "api"), in.serve(key, "api"), in.serve(key, "api")}

	t.Run("exactly one wins", func(t *testing.T) { exactlyOneWins(t, apis) })

	seed := rand.Uint64()
	o := &observer{began: time.Now(), seen: map[int]int{}}
	var clients sync.WaitGroup
	halfway := make(chan struct{})
	for client := range linearizableClients {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(client))) //nolint:gosec // repeatable
			token, known := "", map[string]int64{}
			for i := range linearizableOps {
				if client == 0 && i == linearizableOps/2 {
					close(halfway)
				}
				c := call{post: fmt.Sprintf("r%d-%d", i/opsOfAPost, r.IntN(postsAtATime)), text: fmt.Sprintf("%d/%d", client, i), author: "ann"}
				switch n := r.IntN(100); {
				case n < 35:
					c.method = http.MethodPut
					c.create = r.IntN(4) == 0
					if r.IntN(4) == 0 {
						c.text = equalText
					}
				case n < 65:
					c.method = http.MethodPatch
				case n < 68:
					c.method = http.MethodDelete
				default:
					c.method = http.MethodGet
				}
				if c.method != http.MethodGet && !c.create && r.IntN(2) == 0 {
					c.ifMatch = max(known[c.post], 1)
				}
				position, version := o.do(apis[r.IntN(len(apis))], client, c, token)
				if position != "" {
					token = position
				}
				known[c.post] = max(known[c.post], version)
			}
		})
	}
	<-halfway
	stopping.stop()
	apis[0].stop()
	clients.Wait()

	t.Logf("%d operations, answers by status (0: none) %v", len(o.ops), o.seen)
	for _, status := range []int{200, 201, 204, 410, 412} {
		if o.seen[status] == 0 {
			t.Errorf("nothing was answered by %d: the test shows less than it should", status)
		}
	}
	if result := porcupine.CheckOperationsTimeout(registers(), o.ops, 2*time.Minute); result != porcupine.Ok {
		t.Errorf("the history is not linearizable: %s; seed %d", result, seed)
	}
}

// exactlyOneWins lets many write one version of a post at once, over all apis.
func exactlyOneWins(t *testing.T, apis []*process) {
	const writers = 24
	for round, methods := range [][]string{{"PATCH"}, {"PUT"}, {"PUT", "PATCH"}, {"PUT", "PATCH", "DELETE"}} {
		post := fmt.Sprintf("/v1/posts/won-%d", round)
		apis[0].must(http.StatusCreated, "PUT", post, nil, map[string]any{"author": "ann"}, nil)
		statuses := make([]int, writers)
		inParallel(t, writers, func(i int) error {
			method := methods[i%len(methods)]
			var body any
			if method != "DELETE" {
				body = map[string]any{"body": fmt.Sprint("text ", i)}
			}
			if method == "PUT" {
				body = map[string]any{"author": "ann", "body": fmt.Sprint("text ", i)}
			}
			a, err := apis[i%len(apis)].do(method, post, http.Header{"If-Match": {`"1"`}}, body)
			statuses[i] = a.status
			return err
		})
		won := 0
		for i, status := range statuses {
			switch status {
			case http.StatusOK, http.StatusNoContent:
				won++
			case http.StatusPreconditionFailed, http.StatusGone:
			default:
				t.Errorf("round %d, writer %d: %d", round, i, status)
			}
		}
		if won != 1 {
			t.Errorf("round %d: %d of %d writers of one version won", round, won, writers)
		}
	}
}
