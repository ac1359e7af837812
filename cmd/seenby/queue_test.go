package main

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// app is the app on a person's device, with the queue of the guide.
func (g integrateGuide) app(t *testing.T, person string, s *storage, send func(*http.Request) (answer, error)) *device {
	t.Helper()
	d := newDevice(t, g.queue, map[string]any{"person": person})
	d.session, d.send = person, send
	d.restore(s)
	d.eval(`var queue = new app.ViewQueue(new app.LocalStore(person), "/people/" + encodeURIComponent(person) + "/views")`)
	return d
}

func (d *device) run() { d.eval(`queue.run()`) }

func (d *device) seen(posts ...string) {
	d.t.Helper()
	for _, post := range posts {
		d.set("post", post)
		d.eval(`queue.seen(post)`)
	}
}

func (d *device) running() bool { return d.eval(`queue.running`).ToBoolean() }

// TestQueueStatuses gives the guide's queue every kind of answer.
func TestQueueStatuses(t *testing.T) {
	guide := readGuide(t)
	const (
		dropped = "dropped"
		kept    = "kept"
		stopped = "kept, stopped"
	)
	gather, backoff := 5*time.Second, time.Second // the backoff of a first failure, by a device that throws 0.5
	tests := []struct {
		what       string
		status     int // 0: no answer
		retryAfter string
		body       string
		views      int
		want       string
		wait       time.Duration
		logs       bool
	}{
		{what: "accepted", status: 202, body: `{"accepted":2,"rejected":[]}`, views: 2, want: dropped, wait: gather},
		{what: "accepted in part", status: 202, body: `{"accepted":1,"rejected":[{"index":1}]}`, views: 2, want: dropped, wait: gather, logs: true},
		{what: "accepted, the body broke off", status: 202, body: `{"acc`, views: 2, want: dropped, wait: gather},
		{what: "malformed", status: 400, views: 2, want: dropped, wait: gather, logs: true},
		{what: "none acceptable", status: 422, body: `{"rejected":[{"index":0}]}`, views: 2, want: dropped, wait: gather, logs: true},
		{what: "too large alone", status: 413, body: `<html>`, views: 1, want: dropped, wait: gather, logs: true},
		{what: "too large", status: 413, views: 5, want: kept},
		{what: "too many", status: 429, retryAfter: "7", views: 2, want: kept, wait: 7*time.Second + backoff},
		{what: "unavailable", status: 503, retryAfter: "1", views: 2, want: kept, wait: time.Second + backoff},
		{what: "unavailable until a date", status: 503, retryAfter: "Wed, 21 Oct 2026 07:28:00 GMT", views: 2, want: kept, wait: backoff},
		{what: "internal", status: 500, views: 2, want: kept, wait: backoff},
		{what: "a proxy gave up", status: 504, views: 2, want: kept, wait: backoff},
		{what: "slow", status: 408, views: 2, want: kept, wait: backoff},
		{what: "no such address", status: 404, views: 2, want: kept, wait: backoff},
		{what: "somebody else's page", status: 200, body: `<html>`, views: 2, want: kept, wait: backoff},
		{what: "no network", views: 2, want: kept, wait: backoff},
		{what: "signed out", status: 401, views: 2, want: stopped},
		{what: "somebody else", status: 403, views: 2, want: stopped},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			local := &storage{values: map[string]string{}}
			requests := 0
			d := guide.app(t, "ben", local, func(*http.Request) (answer, error) {
				if requests++; tt.status == 0 {
					return answer{}, errors.New("no network")
				}
				return answer{tt.status, http.Header{"Retry-After": {tt.retryAfter}}, []byte(tt.body)}, nil
			})
			for i := range tt.views {
				d.seen(fmt.Sprint(i))
			}
			d.run()
			d.step()
			got := kept
			switch {
			case !d.running():
				got = stopped
			case len(local.keys) == 0:
				got = dropped
			}
			if got != tt.want || (len(local.keys) != tt.views) != (tt.want == dropped) || requests != 1 {
				t.Errorf("%s, want %s; %d requests, %d of %d views are left", got, tt.want, requests, len(local.keys), tt.views)
			}
			if (len(d.logged) > 0) != tt.logs {
				t.Errorf("logged %q", d.logged)
			}
			if tt.want == stopped {
				d.run() // somebody looked
			}
			if wait := d.step(); wait != tt.wait {
				t.Errorf("waits %v, want %v", wait, tt.wait)
			}
		})
	}
}
