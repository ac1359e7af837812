package main

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestAudiences: who may see a post is decided by what was written before the view was reported, however far
// behind the read models are.
func TestAudiences(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,gate,projector,keeper")
	publish := func(id, audience string) {
		t.Helper()
		p.must(http.StatusCreated, "PUT", "/v1/posts/"+id, nil, map[string]any{"author": "anna", "audience": audience}, nil)
	}
	view := func(post string, viewers ...string) string {
		t.Helper()
		var views viewsBody
		for _, v := range viewers {
			views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: post, Viewer: v})
		}
		return p.must(http.StatusAccepted, "POST", "/v1/views", nil, views, nil)
	}
	counted := func(post, position string, want int64) {
		t.Helper()
		var got postAnswer
		p.must(http.StatusOK, "GET", "/v1/posts/"+post, waitFor(position), nil, &got)
		if got.Impressions != want || got.UniqueViewers != want {
			t.Errorf("%s: %d impressions, %d viewers, want %d", post, got.Impressions, got.UniqueViewers, want)
		}
	}

	publish("shared", "audience:close friends")
	publish("private", "author")
	p.must(http.StatusAccepted, "PUT", "/v1/audiences/close%20friends/members/ben", nil, nil, nil)
	position := p.must(http.StatusAccepted, "POST", "/v1/audiences/close%20friends/members:batch", nil, map[string]any{"add": []string{"cleo", "dora"}, "remove": []string{"dina"}}, nil)
	var page struct {
		Members []struct {
			Viewer string `json:"viewer"`
		} `json:"members"`
	}
	p.must(http.StatusOK, "GET", "/v1/audiences/close%20friends/members", waitFor(position), nil, &page)
	if len(page.Members) != 3 {
		t.Errorf("members %+v", page)
	}
	counted("shared", view("shared", "anna", "ben", "cleo", "dina", "emil"), 3) // the author always may
	counted("private", view("private", "anna", "ben"), 1)

	// Joined and viewed in one breath, again and again: nobody who was let in before is refused.
	const breaths = 300
	positions := make([]string, breaths)
	inParallel(t, breaths, func(i int) error {
		who := fmt.Sprintf("friend-%d", i)
		if a, err := p.do("PUT", "/v1/audiences/club/members/"+who, nil, nil); err != nil || a.status != http.StatusAccepted {
			return fmt.Errorf("join: %d %s %w", a.status, a.body, err)
		}
		post := fmt.Sprintf("club-%d", i)
		if a, err := p.do("PUT", "/v1/posts/"+post, nil, map[string]any{"author": "anna", "audience": "audience:club"}); err != nil || a.status != http.StatusCreated {
			return fmt.Errorf("publish: %d %s %w", a.status, a.body, err)
		}
		a, err := p.do("POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: post, Viewer: who}}})
		if err != nil || a.status != http.StatusAccepted {
			return fmt.Errorf("view: %d %s %w", a.status, a.body, err)
		}
		positions[i] = a.header.Get("Seenby-Position")
		return nil
	})
	in.settle(t).check(t, breaths)
	for i := range breaths {
		// A view that was judged again is counted by its second verdict, which its token does not wait for.
		eventually(t, time.Minute, "the view to count", func() error {
			var got postAnswer
			status, err := p.get(fmt.Sprintf("/v1/posts/club-%d", i), waitFor(positions[i]), &got)
			if err != nil || status != http.StatusOK || got.Impressions != 1 {
				return fmt.Errorf("post %d: %d %+v %w", i, status, got, err)
			}
			return nil
		})
	}
}
