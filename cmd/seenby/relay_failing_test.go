package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// An endpoint is left alone longer each time that it fails, however many relays meet that.
func TestRelaysFailTogether(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,gate,projector,relay")
	for range 2 {
		in.serve(key, "relay")
	}
	core := newReceiver(t)
	in.endpoint(core)
	in.command("relay", "enable", "demo")
	const posts = 24 // so that each relay has some
	for i := range posts {
		p.must(http.StatusCreated, "PUT", fmt.Sprintf("/v1/posts/post-%d", i), nil, map[string]any{"author": "ann"}, nil)
	}
	called := 0
	core.change(func(r *receiver) {
		r.answer = func(callBody) int { called++; return http.StatusServiceUnavailable }
	})
	for i := range posts {
		p.seeBy(fmt.Sprintf("post-%d", i), 1)
	}
	const rounds = 3
	eventually(t, time.Minute, "each relay to have called", func() (err error) {
		core.change(func(*receiver) {
			if called < 3*rounds {
				err = fmt.Errorf("%d calls", called)
			}
		})
		return err
	})
	var status struct {
		Endpoints []struct {
			Attempts int `json:"attempts"`
		} `json:"endpoints"`
	}
	if err := json.Unmarshal([]byte(in.command("relay", "status", "demo", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if n := status.Endpoints[0].Attempts; n > 2*rounds {
		t.Errorf("%d failures are known of three relays that called %d times", n, rounds)
	}
	core.change(func(r *receiver) { r.answer = nil })
	for i := range posts {
		core.waitFor(fmt.Sprintf("post-%d", i), 1)
	}
}
