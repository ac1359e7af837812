package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestRebuild: every read model is rebuilt, rolled back and forth while views come in and everything is read; no read
// fails, none goes back, and each writer reads exactly what it wrote.
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
	for _, p := range allProjections {
		in.says(exitOK, []string{"Version 1 of " + p.Name() + " is live again"}, "rebuild", "--rollback", p.Name())
	}
	in.says(exitOK, []string{"Version 2 of uniqueviews is live again"}, "rebuild", "--rollback", "uniqueviews")
	in.says(exitOK, []string{"Version 1 of uniqueviews is dropped", "Version 2 of posts is dropped"}, "rebuild", "--drop-old", "--all")
	in.says(exitOK, []string{"swapped"}, "rebuild", "--list")
	in.says(exitUsage, []string{"nosuch"}, "rebuild", "nosuch")
	stop()
	in.settle(t)
	in.verify(exitOK)
	for _, alarm := range []string{"level=ERROR", "could not be folded", "projector stops"} {
		if strings.Contains(api.out.String(), alarm) {
			t.Errorf("the process says %q", alarm)
		}
	}
}

const (
	rebuildWriters = 3
	rebuildReaders = 3
)

// readsAndViews has writers report views, each of its own post and of one that they share, and read them back with the
// position that they were given, and readers look at the shared one, until stop.
func (in *installation) readsAndViews(p *process) (stop func()) {
	in.t.Helper()
	ending := make(chan struct{})
	var all sync.WaitGroup
	var wrote, read atomic.Int64
	goes := func(f func(n int) error) {
		all.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-ending:
					return
				default:
				}
				if err := f(n); err != nil {
					in.t.Error(err)
					return
				}
			}
		})
	}
	for i := range rebuildWriters {
		own := fmt.Sprintf("own-%d", i)
		p.must(http.StatusCreated, http.MethodPut, "/v1/posts/"+own, nil, map[string]any{"author": "anna"}, nil)
		goes(func(n int) error { wrote.Add(1); return p.writesAndReads(own, n) })
	}
	for range rebuildReaders {
		r := &steadyReader{process: p, views: map[string]int64{}}
		goes(func(int) error { read.Add(1); return r.read("hello") })
	}
	return func() {
		close(ending)
		all.Wait()
		in.t.Logf("%d views were reported and read back, and %d times it was read beside", wrote.Load(), read.Load())
	}
}

// writesAndReads reports the n-th view of a writer's own post and a view of the shared one; what it reads then holds
// exactly n.
func (p *process) writesAndReads(own string, n int) error {
	viewer := fmt.Sprintf("viewer-%d", n%10)
	a, err := p.do(http.MethodPost, "/v1/views", nil, viewsBody{Views: []viewItem{
		{ID: uuid.NewString(), Post: own, Viewer: uuid.NewString()}, {ID: uuid.NewString(), Post: "hello", Viewer: viewer},
	}})
	if err != nil || a.status != http.StatusAccepted {
		return fmt.Errorf("view %d of %s: %d %w %s", n, own, a.status, err, a.body)
	}
	var got postAnswer
	if status, err := p.get("/v1/posts/"+own, waitFor(a.header.Get("Seenby-Position")), &got); err != nil || status != http.StatusOK {
		return fmt.Errorf("read %d of %s: %d %w", n, own, status, err)
	}
	if got.Impressions != int64(n) || got.UniqueViewers != int64(n) || got.Author != "anna" {
		return fmt.Errorf("after its view %d, %s reads as %+v", n, own, got)
	}
	return nil
}

// steadyReader reads a post again and again: nothing of it may go back.
type steadyReader struct {
	*process
	last  postAnswer
	asOf  time.Time // of viewers
	views map[string]int64
}

func (r *steadyReader) read(post string) error {
	var got postAnswer
	if status, err := r.get("/v1/posts/"+post, nil, &got); err != nil || status != http.StatusOK {
		return fmt.Errorf("read %s: %d %w", post, status, err)
	}
	if got.Impressions < r.last.Impressions || got.UniqueViewers < r.last.UniqueViewers || got.AsOf.Before(r.last.AsOf) || got.UniqueViewers > got.Impressions || got.Author == "" {
		return fmt.Errorf("%s went from %+v to %+v", post, r.last, got)
	}
	r.last = got
	var list struct {
		Viewers []struct {
			Viewer string
			Views  int64
		}
		AsOf time.Time `json:"as_of"`
	}
	if status, err := r.get("/v1/posts/"+post+"/viewers?limit=100", nil, &list); err != nil || status != http.StatusOK {
		return fmt.Errorf("read the viewers of %s: %d %w", post, status, err)
	}
	seen := map[string]int64{}
	for _, v := range list.Viewers {
		seen[v.Viewer] = v.Views
	}
	for viewer, views := range r.views {
		if seen[viewer] < views {
			return fmt.Errorf("%s had seen %s %d times, and now %d", viewer, post, views, seen[viewer])
		}
	}
	if list.AsOf.Before(r.asOf) || seen[""] > 0 {
		return fmt.Errorf("viewers were complete to %v, and are to %v; %d views are of nobody", r.asOf, list.AsOf, seen[""])
	}
	r.views, r.asOf = seen, list.AsOf
	return nil
}
