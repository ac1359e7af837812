package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"

	"seenby/domain"
)

type timeSeriesAnswer struct {
	Buckets []struct {
		Start           time.Time             `json:"start"`
		Impressions     int64                 `json:"impressions"`
		Refused         int                   `json:"refused"`
		RefusedByReason map[domain.Reason]int `json:"refused_by_reason"`
	} `json:"buckets"`
	AsOf *time.Time `json:"as_of"`
}

func (a timeSeriesAnswer) sum() (impressions int64, refused map[domain.Reason]int) {
	refused = map[domain.Reason]int{}
	for _, b := range a.Buckets {
		impressions += b.Impressions
		for reason, n := range b.RefusedByReason {
			refused[reason] += n
		}
	}
	return impressions, refused
}

// timeSeries compares hours and days with what the topics say.
func timeSeries(t *testing.T, p *process, l *ledger, since time.Time) {
	t.Helper()
	var counted int64
	for _, post := range l.posts {
		counted += post.impressions
	}
	reasons := maps.Clone(l.reasons)
	delete(reasons, domain.ReasonNone)
	delete(reasons, domain.ReasonUndecided)
	from := url.QueryEscape(since.Add(-26 * time.Hour).Format(time.RFC3339))
	for _, interval := range []string{"hour", "day"} {
		query := "/timeseries?interval=" + interval + "&from=" + from
		eventually(t, 30*time.Second, "the time series to hold every verdict", func() error {
			var all timeSeriesAnswer
			p.must(http.StatusOK, "GET", "/v1"+query, nil, nil, &all)
			if impressions, refused := all.sum(); impressions != counted || !maps.Equal(refused, reasons) {
				return fmt.Errorf("by %s: %d counted and %v refused; the topics say %d and %v", interval, impressions, refused, counted, reasons)
			}
			return nil
		})
		for _, post := range []string{"hello", "capped", "quota-7"} {
			var of timeSeriesAnswer
			p.must(http.StatusOK, "GET", "/v1/posts/"+post+query, nil, nil, &of)
			if impressions, _ := of.sum(); impressions != l.posts[domain.PostID(post)].impressions || of.AsOf == nil {
				t.Errorf("%s by %s: %d counted as of %v, want %d", post, interval, impressions, of.AsOf, l.posts[domain.PostID(post)].impressions)
			}
		}
	}

	// A view stands where it was seen: Cleo's, an hour before the others'.
	var hello timeSeriesAnswer
	p.must(http.StatusOK, "GET", "/v1/posts/hello/timeseries?from="+from, nil, nil, &hello)
	at := since.Add(-time.Hour).Truncate(time.Hour)
	var then int64
	for _, b := range hello.Buckets {
		if b.Start.Equal(at) {
			then = b.Impressions
		}
	}
	if then != 1 {
		t.Errorf("%d views of hello in the hour from %v, want one", then, at)
	}
	// Sent three times and once more with its time: three duplicates. The stale one stands where it was received.
	if _, refused := hello.sum(); refused[domain.ReasonDuplicate] != 3 || refused[domain.ReasonStale] != 1 {
		t.Errorf("refused views of hello: %v", refused)
	}
	p.must(http.StatusNotFound, "GET", "/v1/posts/nowhere/timeseries", nil, nil, nil)
}
