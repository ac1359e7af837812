package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"seenby/domain"
	"seenby/projections/timeseries"
)

// TimeSeries is what happened in a time, in buckets without a gap.
type TimeSeries struct {
	_        struct{}     `json:"-" additionalProperties:"true"`
	Interval string       `json:"interval" enum:"hour,day"`
	From     time.Time    `json:"from" doc:"When the first bucket starts."`
	To       time.Time    `json:"to" doc:"When the last bucket ends."`
	Buckets  []TimeBucket `json:"buckets" nullable:"false" doc:"Oldest first; those without views too."`
	AsOf     *time.Time   `json:"as_of" doc:"Every view accepted before it is included; null until the first views are projected. A view that is reported late changes an old bucket."`
}

// TimeBucket is an hour or a day of UTC.
type TimeBucket struct {
	_           struct{}  `json:"-" additionalProperties:"true"`
	Start       time.Time `json:"start"`
	Impressions int64     `json:"impressions" minimum:"0" doc:"All counted views."`
	Refused     int64     `json:"refused" minimum:"0" doc:"All refused ones, without those that are still undecided."`

	RefusedByReason map[string]int64 `json:"refused_by_reason" nullable:"false" doc:"Only reasons that there were."`
}

type timeSeriesOutput struct{ Body TimeSeries }

var (
	readsOfPostTimeSeries = reads{
		domain.TopicPosts: {projectionPosts},
		domain.TopicViews: {projectionTimeSeries},
	}
	readsOfTimeSeries = reads{domain.TopicViews: {projectionTimeSeries}}
)

// RangeParams are the query parameters of a time series; exported because huma looks at exported fields only.
type RangeParams struct {
	From     string `query:"from" format:"date-time" doc:"RFC 3339 (a + in it is written %2B), set back to the start of its hour or day of UTC. Default: 24 hours before to, 30 days where the interval is day."`
	To       string `query:"to" format:"date-time" doc:"RFC 3339, set forward to the end of its hour or day of UTC. Default: the end of the present one."`
	Interval string `query:"interval" enum:"hour,day" default:"hour" doc:"How long a bucket is. At most 1,000 buckets are answered."`
}

const timeSeriesDescription = "Views by hour or day of UTC, by when they were seen (viewed_at as corrected). Those that were refused as stale, future or malformed stand where they were received."

func (s *server) postTimeSeriesOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-post-timeseries", Method: http.MethodGet, Path: "/v1/posts/{id}/timeseries", Summary: "Read when a post was seen",
		Description: timeSeriesDescription + " Views that were refused before the post was known are not among the post's.",
		Errors:      []int{http.StatusNotFound, http.StatusGone, http.StatusGatewayTimeout},
	}
}

func (s *server) getPostTimeSeries(ctx context.Context, in *struct {
	WaitParams
	RangeParams
	ID string `path:"id" minLength:"1" maxLength:"255"`
}) (*timeSeriesOutput, error) {
	tenant := tenantOf(ctx)
	if err := domain.CheckID("id", in.ID); err != nil {
		return nil, err
	}
	key := domain.PostKey{Tenant: tenant.ID, Post: domain.PostID(in.ID)}
	asked, err := in.parse(s.deps.Now())
	if err != nil {
		return nil, err
	}
	out := &timeSeriesOutput{}
	err = s.answer(ctx, tenant, in.WaitParams, readsOfPostTimeSeries, func(ctx context.Context, r reader) error {
		if _, err := findPost(ctx, r, key); err != nil {
			return err
		}
		found, err := r.postTimeSeries(ctx, key, asked)
		if err != nil {
			return err
		}
		out.Body, err = answerTimeSeries(ctx, r, asked, found)
		return err
	})
	return out, err
}

func (s *server) timeSeriesOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-timeseries", Method: http.MethodGet, Path: "/v1/timeseries", Summary: "Read when all posts together were seen",
		Description: timeSeriesDescription + " Those of posts that are deleted or never were are among them.",
		Errors:      []int{http.StatusGatewayTimeout},
	}
}

func (s *server) getTimeSeries(ctx context.Context, in *struct {
	WaitParams
	RangeParams
}) (*timeSeriesOutput, error) {
	tenant := tenantOf(ctx)
	asked, err := in.parse(s.deps.Now())
	if err != nil {
		return nil, err
	}
	out := &timeSeriesOutput{}
	err = s.answer(ctx, tenant, in.WaitParams, readsOfTimeSeries, func(ctx context.Context, r reader) error {
		found, err := r.timeSeries(ctx, tenant.ID, asked)
		if err != nil {
			return err
		}
		out.Body, err = answerTimeSeries(ctx, r, asked, found)
		return err
	})
	return out, err
}

// answerTimeSeries fills what was found up with the buckets in which nothing happened.
func answerTimeSeries(ctx context.Context, r reader, asked timeseries.Range, found []timeseries.Bucket) (TimeSeries, error) {
	out := TimeSeries{Interval: string(asked.Unit), From: asked.From, To: asked.To, Buckets: make([]TimeBucket, 0, bucketsOf(asked))}
	for start := asked.From; start.Before(asked.To); start = start.Add(asked.Unit.Length()) {
		b := TimeBucket{Start: start, RefusedByReason: map[string]int64{}}
		if len(found) > 0 && found[0].Start.Equal(start) {
			b.Impressions = found[0].Impressions
			for reason, n := range found[0].Refused {
				b.RefusedByReason[string(reason)] = n
				b.Refused += n
			}
			found = found[1:]
		}
		out.Buckets = append(out.Buckets, b)
	}
	var err error
	out.AsOf, err = readAsOf(ctx, r, projectionTimeSeries)
	return out, err
}

// bucketsOf counts in seconds: a time.Duration does not reach from 1970 to 3000.
func bucketsOf(r timeseries.Range) int64 {
	return (r.To.Unix() - r.From.Unix()) / int64(r.Unit.Length()/time.Second)
}

// parse gives whole buckets: from and to may stand anywhere in theirs, which are then both in the answer.
func (p *RangeParams) parse(now time.Time) (timeseries.Range, error) {
	r := timeseries.Range{Unit: timeseries.Hour}
	buckets := timeSeriesHours
	switch timeseries.Unit(p.Interval) {
	case "", timeseries.Hour:
	case timeseries.Day:
		r.Unit, buckets = timeseries.Day, timeSeriesDays
	default:
		return r, domain.Invalid("interval", "must be hour or day")
	}
	r.To = r.Unit.Start(now).Add(r.Unit.Length())
	if p.To != "" {
		to, err := domain.ParseTime("to", p.To)
		if err != nil {
			return r, err
		}
		if r.To = r.Unit.Start(to); r.To.Before(to) {
			r.To = r.To.Add(r.Unit.Length())
		}
	}
	r.From = r.To.Add(-time.Duration(buckets) * r.Unit.Length())
	if p.From != "" {
		from, err := domain.ParseTime("from", p.From)
		if err != nil {
			return r, err
		}
		r.From = r.Unit.Start(from)
	}
	switch n := bucketsOf(r); {
	case n < 1:
		return r, domain.Invalid("from", "must be before to, which is %s", r.To.Format(time.RFC3339))
	case n > timeSeriesBucketsMax && r.Unit == timeseries.Hour:
		return r, domain.Invalid("from", "is %d hours before to; at most %d are answered: ask piece by piece, or with interval=day", n, timeSeriesBucketsMax)
	case n > timeSeriesBucketsMax:
		return r, domain.Invalid("from", "is %d days before to; at most %d are answered: ask piece by piece", n, timeSeriesBucketsMax)
	}
	return r, nil
}
