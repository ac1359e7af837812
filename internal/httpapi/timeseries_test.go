package httpapi

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/projections/timeseries"
)

func hours(n int) time.Duration { return time.Duration(n) * time.Hour }

// What was found stands in its bucket, and every other one is there, with zeros and no reason.
func TestTimeSeriesHasNoGaps(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
	found := []timeseries.Bucket{
		{Start: noon.Add(-hours(24)), Impressions: 9}, // before the range
		{Start: noon.Add(-hours(3)), Impressions: 2},
		{Start: noon.Add(-hours(1)), Impressions: 1, Refused: map[domain.Reason]int64{domain.ReasonDuplicate: 4, domain.ReasonPostCap: 1}},
	}
	w.buckets[domain.PostKey{Tenant: acme.ID, Post: "p"}] = found
	w.buckets[domain.PostKey{Tenant: acme.ID}] = found[1:2]
	const query = "?interval=hour&from=2026-11-23T09:00:00Z&to=2026-11-23T12:00:00Z"
	want := TimeSeries{Interval: "hour", From: noon.Add(-hours(3)), To: noon, AsOf: &noon, Buckets: []TimeBucket{
		{Start: noon.Add(-hours(3)), Impressions: 2, RefusedByReason: map[string]int64{}},
		{Start: noon.Add(-hours(2)), RefusedByReason: map[string]int64{}},
		{Start: noon.Add(-hours(1)), Impressions: 1, Refused: 5, RefusedByReason: map[string]int64{"duplicate": 4, "post_cap": 1}},
	}}
	rec := do(h, "GET", "/v1/posts/p/timeseries"+query, "")
	if diff := cmp.Diff(want, decode[TimeSeries](t, rec.Body.Bytes())); diff != "" {
		t.Errorf("the post's: %s", diff)
	}
	want.Buckets[2] = TimeBucket{Start: noon.Add(-hours(1)), RefusedByReason: map[string]int64{}}
	rec = do(h, "GET", "/v1/timeseries"+query, "")
	if diff := cmp.Diff(want, decode[TimeSeries](t, rec.Body.Bytes())); diff != "" {
		t.Errorf("the tenant's: %s", diff)
	}
	rec = do(h, "GET", "/v1/timeseries"+query, "", "Authorization", "Bearer "+otherKey)
	if body := rec.Body.String(); rec.Code != 200 || strings.Contains(body, `"impressions":2`) {
		t.Errorf("another tenant's: %d %s", rec.Code, body)
	}
	w.asOfTime = time.Time{}
	if body := do(h, "GET", "/v1/timeseries", "").Body.String(); !strings.Contains(body, `"as_of":null`) || !strings.Contains(body, `"refused_by_reason":{}`) {
		t.Error(body)
	}
	do(h, "DELETE", "/v1/posts/p", "")
	wantProblem(t, do(h, "GET", "/v1/posts/p/timeseries", ""), 410, "gone")
}

// Whole buckets are answered: from is set back, to is set forward, and what is not given has a default.
func TestTimeSeriesRange(t *testing.T) {
	day := noon.Add(-hours(12))
	for query, want := range map[string]timeseries.Range{
		"":                     {Unit: timeseries.Hour, From: noon.Add(-hours(23)), To: noon.Add(hours(1))}, // it is noon: the hour that begins is in it
		"?from=&to=&interval=": {Unit: timeseries.Hour, From: noon.Add(-hours(23)), To: noon.Add(hours(1))},
		"?interval=day":        {Unit: timeseries.Day, From: day.AddDate(0, 0, -29), To: day.AddDate(0, 0, 1)},
		"?from=2026-11-23T03:59:59.999Z&to=2026-11-23T04:00:00.001Z":       {Unit: timeseries.Hour, From: day.Add(hours(3)), To: day.Add(hours(5))},
		"?from=2026-11-23T03:00:00Z&to=2026-11-23T04:00:00Z":               {Unit: timeseries.Hour, From: day.Add(hours(3)), To: day.Add(hours(4))},
		"?from=2026-11-23T03:10:00Z&to=2026-11-23T03:20:00Z":               {Unit: timeseries.Hour, From: day.Add(hours(3)), To: day.Add(hours(4))},
		"?from=2026-11-23T05:30:00%2B05:30&to=2026-11-22T23:00:00-02:00":   {Unit: timeseries.Hour, From: day, To: day.Add(hours(1))},
		"?interval=day&from=2026-11-22T23:00:00Z&to=2026-11-23T00:00:00Z":  {Unit: timeseries.Day, From: day.AddDate(0, 0, -1), To: day},
		"?interval=day&from=2026-11-23T23:00:00Z":                          {Unit: timeseries.Day, From: day, To: day.AddDate(0, 0, 1)},
		"?to=2026-11-23T00:30:00Z":                                         {Unit: timeseries.Hour, From: day.Add(-hours(23)), To: day.Add(hours(1))},
		"?from=2026-11-23T10:30:00Z":                                       {Unit: timeseries.Hour, From: day.Add(hours(10)), To: noon.Add(hours(1))},
		"?to=2026-12-01T00:00:00Z&from=2026-11-30T23:00:00Z":               {Unit: timeseries.Hour, From: day.AddDate(0, 0, 8).Add(-hours(1)), To: day.AddDate(0, 0, 8)}, // to come
		"?interval=day&from=2024-01-01T00:00:00Z&to=2026-09-27T00:00:00Z":  {Unit: timeseries.Day, From: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 9, 27, 0, 0, 0, 0, time.UTC)},
		"?interval=hour&from=2026-10-01T00:00:00Z&to=2026-11-11T16:00:00Z": {Unit: timeseries.Hour, From: time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 11, 16, 0, 0, 0, time.UTC)},
	} {
		t.Run(query, func(t *testing.T) {
			w := newWorld()
			rec := do(w.api(t, Config{}), "GET", "/v1/timeseries"+query, "")
			if rec.Code != 200 {
				t.Fatalf("%d %s", rec.Code, rec.Body)
			}
			if diff := cmp.Diff([]timeseries.Range{want}, w.ranges); diff != "" {
				t.Error(diff)
			}
			got := decode[TimeSeries](t, rec.Body.Bytes())
			n := len(got.Buckets)
			if n > timeSeriesBucketsMax || !got.From.Equal(want.From) || !got.Buckets[0].Start.Equal(want.From) || !got.Buckets[n-1].Start.Add(want.Unit.Length()).Equal(got.To) {
				t.Errorf("%d buckets from %v to %v", n, got.Buckets[0].Start, got.Buckets[n-1].Start)
			}
		})
	}
}

// The refusal says what to do instead.
func TestTooManyBuckets(t *testing.T) {
	h := newWorld().api(t, Config{})
	p := wantProblem(t, do(h, "GET", "/v1/timeseries?from=2025-11-23T12:00:00Z", ""), 422, "invalid")
	if want := "is 8761 hours before to; at most 1000 are answered: ask piece by piece, or with interval=day"; p.Detail != want {
		t.Errorf("%q, want %q", p.Detail, want)
	}
	p = wantProblem(t, do(h, "GET", "/v1/timeseries?interval=day&from=2000-01-01T00:00:00Z", ""), 422, "invalid")
	if want := "is 9824 days before to; at most 1000 are answered: ask piece by piece"; p.Detail != want {
		t.Errorf("%q, want %q", p.Detail, want)
	}
}
