package faulttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// load reports views to all apis until they are acknowledged, and then some of them again.
type load struct {
	apis   []string // http://host:port
	key    string
	ledger *ledger

	tickets chan struct{} // one per batch that may be sent
	paused  atomic.Bool
	resumed atomic.Int64 // when, in ns
	flying  atomic.Int64 // batches that are under way
	failed  atomic.Int64 // requests that were not answered with 2xx
	client  *http.Client
	wg      sync.WaitGroup
}

const (
	loadWorkers = 16
	// requestTimeout is over the api's own, whose 503 tells more.
	requestTimeout = 15 * time.Second
	againAfter     = 100 * time.Millisecond
	// clockAhead is how far a device's clock is ahead in some batches. Under an hour: from there on a view is
	// refused as future, corrected or not.
	clockAhead = 50 * time.Minute
)

func newLoad(ctx context.Context, w *world, viewsPerSecond int) *load {
	l := &load{
		key: w.key, ledger: w.ledger, tickets: make(chan struct{}),
		client: &http.Client{Timeout: requestTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: loadWorkers}},
	}
	for _, p := range w.of(roleAPI) {
		l.apis = append(l.apis, "http://"+p.addr)
	}
	l.paused.Store(true)
	l.wg.Go(func() { l.issue(ctx, viewsPerSecond) })
	for i := range loadWorkers {
		random := rand.New(rand.NewPCG(w.seed, uint64(i)))
		l.wg.Go(func() { l.work(ctx, i, random) })
	}
	return l
}

// issue lets batches go at the rate; what the workers cannot take, since they wait for answers, is not made up for.
func (l *load) issue(ctx context.Context, viewsPerSecond int) {
	tick := time.NewTicker(time.Second * time.Duration(batchViews) / time.Duration(viewsPerSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if l.paused.Load() {
			continue
		}
		l.flying.Add(1)
		select {
		case l.tickets <- struct{}{}:
		default:
			l.flying.Add(-1)
		}
	}
}

func (l *load) work(ctx context.Context, at int, random *rand.Rand) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.tickets:
		}
		first := l.ledger.next()
		batch := batchOf(first)
		if isFresh(batch) {
			l.insist(ctx, &at, http.MethodPut, "/v1/posts/"+freshPost(batch), map[string]any{"author": "author"})
		}
		l.report(ctx, &at, first)
		// Clients repeat what they are not sure of, at once or from a queue that they had forgotten: most likely
		// another gate has the partition by then, which knows the view only if it has restored its memory.
		for random.IntN(10) == 0 {
			l.report(ctx, &at, first)
		}
		if earlier, ok := l.ledger.earlier(random); ok && random.IntN(10) == 0 {
			l.report(ctx, &at, earlier)
		}
		l.flying.Add(-1)
	}
}

type viewItem struct {
	ID        string     `json:"id"`
	Post      string     `json:"post"`
	Viewer    string     `json:"viewer,omitempty"`
	Anonymous string     `json:"anonymous,omitempty"`
	ViewedAt  *time.Time `json:"viewed_at,omitempty"`
}

type viewsBody struct {
	SentAt *time.Time `json:"sent_at,omitempty"`
	Views  []viewItem `json:"views"`
}

// report sends a batch until it is acknowledged.
func (l *load) report(ctx context.Context, at *int, first int) {
	body := viewsBody{Views: make([]viewItem, batchViews)}
	var viewedAt *time.Time
	switch batchOf(first) % 8 {
	case 1: // a device whose clock is ahead
		ahead := time.Now().Add(clockAhead)
		body.SentAt, viewedAt = &ahead, &ahead
	case 2: // one that was offline
		before := time.Now().Add(-2 * time.Hour)
		viewedAt = &before
	}
	for i := range body.Views {
		v := viewOf(l.ledger.seed, first+i)
		item := viewItem{ID: l.ledger.idText(first + i), Post: v.post, ViewedAt: viewedAt}
		if v.anonymous {
			item.Anonymous = v.viewer
		} else {
			item.Viewer = v.viewer
		}
		body.Views[i] = item
	}
	if l.insist(ctx, at, http.MethodPost, "/v1/views", body) {
		l.ledger.acknowledge(first)
	}
}

// insist sends a request, to one api after the other, until it is answered with 2xx or ctx ends.
func (l *load) insist(ctx context.Context, at *int, method, path string, body any) bool {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	for ctx.Err() == nil {
		*at++
		err := l.try(ctx, method, l.apis[*at%len(l.apis)]+path, text)
		if err == nil {
			return true
		}
		l.failed.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(againAfter):
		}
	}
	return false
}

func (l *load) try(ctx context.Context, method, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+l.key)
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s %s", method, url, resp.Status, text)
	}
	if method == http.MethodPost && bytes.Contains(text, []byte(`"rejected":[{`)) {
		panic(fmt.Sprintf("an api rejected good views: %s", text)) // a defect of the harness
	}
	return nil
}

func (l *load) resume() {
	l.resumed.Store(time.Now().UnixNano())
	l.paused.Store(false)
}

func (l *load) resumedAt() time.Time { return time.Unix(0, l.resumed.Load()) }

// pause stops the load, and waits until all that was sent is acknowledged.
func (l *load) pause(ctx context.Context) error {
	l.paused.Store(true)
	return until(ctx, settleWithin, "all that was sent to be acknowledged", func() error {
		if n := l.flying.Load(); n > 0 {
			return fmt.Errorf("%d batches are not", n)
		}
		return nil
	})
}
