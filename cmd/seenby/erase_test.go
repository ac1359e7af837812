package main

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// TestTextsAreErased writes texts that lose, texts of posts that are deleted, and texts that stand: the keeper's
// tombstones end on the topic bodies all but those that stand, and nothing of the others can be read.
func TestTextsAreErased(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,gate,projector,keeper")
	put := func(status int, post, text string, header http.Header) {
		t.Helper()
		p.must(status, "PUT", "/v1/posts/"+post, header, map[string]any{"author": "ann", "body": text}, nil)
	}
	if1 := http.Header{"If-Match": {`"1"`}}
	put(http.StatusCreated, "stays", "old text that stays", nil)
	put(http.StatusOK, "stays", "text that stays", nil)
	put(http.StatusPreconditionFailed, "stays", "secret: lost", if1)
	p.must(http.StatusPreconditionFailed, "PATCH", "/v1/posts/stays", if1, map[string]any{"body": "secret: lost, too"}, nil)
	p.must(http.StatusNotFound, "PATCH", "/v1/posts/nowhere", nil, map[string]any{"body": "secret: of nothing"}, nil)
	put(http.StatusCreated, "goes", "secret: first", nil)
	put(http.StatusOK, "goes", "secret: second", nil)
	p.must(http.StatusNoContent, "DELETE", "/v1/posts/goes", nil, nil, nil)
	before := in.events(domain.TopicPosts)
	put(http.StatusGone, "goes", "secret: after the end", nil)
	p.must(http.StatusGone, "PATCH", "/v1/posts/goes", if1, map[string]any{"body": "secret: after the end"}, nil)
	p.must(http.StatusGone, "DELETE", "/v1/posts/goes", nil, nil, nil)
	if after := in.events(domain.TopicPosts); after != before {
		t.Errorf("%d events were appended to a deleted post", after-before)
	}

	eventually(t, time.Minute, "tombstones of all texts but those that stand", func() error {
		stands, erased, err := in.bodies()
		if err != nil {
			return err
		}
		for text := range stands {
			if text != "old text that stays" && text != "text that stays" {
				return fmt.Errorf("%q still stands", text)
			}
		}
		if len(stands) != 2 || erased != 5 { // the texts after the end were never appended
			t.Fatalf("%d texts stand, %d are erased", len(stands), erased)
		}
		return nil
	})

	var history struct {
		Events []struct {
			Type, Outcome string
			Void          bool
			Version       int64
		}
	}
	p.must(http.StatusOK, "GET", "/v1/posts/stays/history", nil, nil, &history)
	if got, want := fmt.Sprint(history.Events), "[{PostPublished created false 1} {PostPublished replaced false 2} {PostPublished void_conflict true 2} {PostEdited void_conflict true 2}]"; got != want {
		t.Errorf("history %s, want %s", got, want)
	}
	for _, path := range []string{"/v1/posts/goes", "/v1/posts/goes/viewers", "/v1/posts/goes/history"} {
		p.must(http.StatusGone, "GET", path, nil, nil, nil)
	}
	var feed struct{ Posts []postAnswer }
	p.must(http.StatusOK, "GET", "/v1/posts?author=ann", nil, nil, &feed)
	if len(feed.Posts) != 1 || feed.Posts[0].Body != "text that stays" {
		t.Errorf("feed %+v", feed)
	}
}

// events counts those of a topic.
func (in *installation) events(topic domain.Topic) int {
	in.t.Helper()
	records, err := in.records(topic)
	if err != nil {
		in.t.Fatal(err)
	}
	return len(records)
}

// bodies folds the topic as compaction does: the texts that stand, and how many keys end in a tombstone.
func (in *installation) bodies() (stands map[string]bool, erased int, err error) {
	log, err := eventlog.Open(eventlog.Config{Brokers: in.brokers, Prefix: in.prefix})
	if err != nil {
		return nil, 0, err
	}
	defer log.Close()
	ctx := in.t.Context()
	starts, err := log.Starts(ctx, domain.TopicBodies)
	if err != nil {
		return nil, 0, err
	}
	ends, err := log.Ends(ctx, domain.TopicBodies)
	if err != nil {
		return nil, 0, err
	}
	reader, err := log.NewReader()
	if err != nil {
		return nil, 0, err
	}
	defer reader.Close()
	if err := reader.Seek(ctx, starts); err != nil {
		return nil, 0, err
	}
	last := map[string]string{} // by key; empty: a tombstone
	for !reader.Passed(ends) {
		b, err := reader.Poll(ctx, 1000)
		if err != nil {
			return nil, 0, err
		}
		for _, r := range b.Records {
			switch e := r.Event.(type) {
			case domain.PostBodyWritten:
				last[string(r.Key)] = e.Text
			case domain.PostBodyErased:
				last[string(r.Key)] = ""
			}
		}
	}
	stands = map[string]bool{}
	for _, text := range last {
		if text == "" {
			erased++
		} else {
			stands[text] = true
		}
	}
	return stands, erased, nil
}
