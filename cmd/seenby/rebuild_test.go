package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// TestRebuild: every read model is rebuilt while views come in and counts are read; none goes back, none fails; the
// same command goes on where one was cut off.
func TestRebuild(t *testing.T) {
	in, key := install(t)
	in.setLimits(unlimited)
	in.verifiableTraffic(key)
	api := in.serve(key, "api,gate,projector,keeper")
	stop := in.readsAndViews(api)
	for _, p := range allProjections {
		out := in.command("rebuild", p.Name())
		t.Log(out)
		if !strings.Contains(out, "Version 2 of "+p.Name()+" is live") || !strings.Contains(out, "both versions said the same") {
			t.Errorf("%s:\n%s", p.Name(), out)
		}
	}
	if code, _, stderr := in.try("rebuild", "uniqueviews"); code != exitFailed || !strings.Contains(stderr, "--drop-old uniqueviews") {
		t.Errorf("a third version: exit %d, %s", code, stderr)
	}
	t.Log(in.command("rebuild", "--rollback", "uniqueviews"))
	t.Log(in.command("rebuild", "--rollback", "uniqueviews"))
	t.Log(in.command("rebuild", "--drop-old", "--all"))
	t.Log(in.command("rebuild", "--list"))
	stop()
	in.settle(t)
	in.verify(exitOK)
}

// readsAndViews reports views of one post and reads its counts until stop: a read that fails, or a count that goes back, is an
// error.
func (in *installation) readsAndViews(p *process) (stop func()) {
	in.t.Helper()
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var last struct{ Impressions, Unique int64 }
		for n := 0; ; n++ {
			select {
			case <-ending:
				return
			default:
			}
			view := map[string]any{"views": []any{map[string]any{"id": uuid.NewString(), "post": "hello", "viewer": fmt.Sprintf("viewer-%d", n%50)}}}
			if a, err := p.do(http.MethodPost, "/v1/views", nil, view); err != nil || a.status != http.StatusAccepted {
				in.t.Errorf("view %d: %v %v", n, a, err)
				return
			}
			var got struct {
				Impressions   int64 `json:"impressions"`
				UniqueViewers int64 `json:"unique_viewers"`
			}
			if status, err := p.get("/v1/posts/hello", nil, &got); err != nil || status != http.StatusOK {
				in.t.Errorf("read %d: %d %v", n, status, err)
				return
			}
			if got.Impressions < last.Impressions || got.UniqueViewers < last.Unique {
				in.t.Errorf("a count went back: %+v, then %+v", last, got)
			}
			last.Impressions, last.Unique = got.Impressions, got.UniqueViewers
		}
	}()
	return func() { close(ending); <-ended }
}
