package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
	"seenby/projections/timeseries"
	"seenby/projections/uniqueviews"
)

var (
	acme  = tenancy.TenantHandle{ID: "acme", Key: domain.TenantKey{1}, KeyID: "one"}
	other = tenancy.TenantHandle{ID: "other", Key: domain.TenantKey{2}, KeyID: "two"}
	noon  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

const (
	acmeKey  = "acme-key"
	otherKey = "other-key"
)

// world is a log, the tenants and the read models in memory: what is appended is projected at once, unless it is
// held. Every topic has one partition, and every post view counts.
type world struct {
	mu          sync.Mutex
	log         []domain.Event
	appends     [][]domain.Event
	ends        map[domain.Topic]int64
	held        map[string]bool // projections that stand still
	reached     map[string]map[domain.Topic]int64
	state       map[domain.PostKey]*posts.View
	texts       map[domain.EventID]string
	outcomes    map[domain.EventID]domain.Outcome
	histories   map[domain.PostKey][]posts.HistoryEvent
	names       map[domain.PersonRef]string
	erased      map[domain.PersonRef]time.Time
	views       map[domain.PostKey][]uniqueviews.Viewer
	impressions map[domain.PostKey]impressions.Count
	buckets     map[domain.PostKey][]timeseries.Bucket // hours; under the empty post those of the tenant
	members     map[posts.Member]bool
	asOfTime    time.Time
	topicIDs    map[domain.Topic]domain.TopicID

	appendErr func(events []domain.Event) error
	modelsErr error
	forgetful bool // outcomes are not known
	// staleTopicID: the projections stand in topics of other ids than the log's.
	staleTopicID bool
	limits       domain.Limits // of every tenant
	looks        int           // calls of Positions
	reads        int           // of posts, counts and names
	ranges       []timeseries.Range
	after        func() // happens once, right after an append
	ids          byte
}

func newWorld() *world {
	return &world{
		ends: map[domain.Topic]int64{}, held: map[string]bool{}, reached: map[string]map[domain.Topic]int64{},
		state: map[domain.PostKey]*posts.View{}, texts: map[domain.EventID]string{}, outcomes: map[domain.EventID]domain.Outcome{},
		histories: map[domain.PostKey][]posts.HistoryEvent{},
		names:     map[domain.PersonRef]string{}, views: map[domain.PostKey][]uniqueviews.Viewer{}, impressions: map[domain.PostKey]impressions.Count{},
		buckets: map[domain.PostKey][]timeseries.Bucket{},
		members: map[posts.Member]bool{}, asOfTime: noon, erased: map[domain.PersonRef]time.Time{}, topicIDs: map[domain.Topic]domain.TopicID{},
		limits: domain.DefaultLimits(),
	}
}

func topicOf(e domain.Event) domain.Topic {
	switch e.(type) {
	case domain.PostEvent:
		return domain.TopicPosts
	case domain.PostBodyWritten:
		return domain.TopicBodies
	case domain.PersonNamed, domain.PersonErased, domain.PersonForgotten:
		return domain.TopicPeople
	case domain.ViewReported:
		return domain.TopicViews
	case domain.AudienceMemberAdded, domain.AudienceMemberRemoved:
		return domain.TopicAudiences
	}
	panic("an event that the api does not append: " + e.EventType())
}

func (w *world) topicID(t domain.Topic) domain.TopicID {
	if id, ok := w.topicIDs[t]; ok {
		return id
	}
	return domain.TopicID{byte(len(t)), t[0]}
}

func (w *world) Append(ctx context.Context, events ...domain.Event) ([]domain.Position, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.appendErr != nil {
		if err := w.appendErr(events); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	w.appends = append(w.appends, events)
	touched := map[domain.Topic]bool{}
	for _, e := range events {
		w.log = append(w.log, e)
		w.ends[topicOf(e)]++
		touched[topicOf(e)] = true
		w.fold(e)
	}
	if w.after != nil {
		w.after()
		w.after = nil
	}
	w.project()
	var positions []domain.Position
	for t := range touched {
		positions = append(positions, domain.Position{Topic: t, TopicID: w.topicID(t), NextOffset: w.ends[t]})
	}
	return positions, nil
}

func (w *world) fold(e domain.Event) {
	switch e := e.(type) {
	case domain.PostBodyWritten:
		w.texts[e.EventID] = e.Text
	case domain.PersonNamed:
		w.names[e.Ref] = e.ID
	case domain.PersonErased:
		w.erased[e.Ref] = e.ErasedAt
	case domain.PersonForgotten:
		delete(w.names, e.Ref)
	case domain.PostEvent:
		v := w.state[e.PostKey()]
		if v == nil {
			v = &posts.View{}
			w.state[e.PostKey()] = v
		}
		o := v.Apply(e, noon)
		w.outcomes[e.ID()] = o
		v.Text = w.texts[v.BodyEvent]
		of := w.histories[e.PostKey()]
		w.histories[e.PostKey()] = append(of, posts.HistoryEvent{EventType: e.EventType(), Outcome: o, RecordedAt: noon, RecordOffset: int64(3 * len(of))})
	case domain.AudienceMemberAdded:
		w.members[posts.Member{Tenant: e.Tenant, Audience: e.Audience, Person: e.Person}] = true
	case domain.AudienceMemberRemoved:
		delete(w.members, posts.Member{Tenant: e.Tenant, Audience: e.Audience, Person: e.Person})
	case domain.ViewReported:
		key := domain.PostKey{Tenant: e.Viewer.Tenant, Post: e.Post}
		count := w.impressions[key]
		count.Impressions++
		if e.Anonymous {
			count.AnonymousImpressions++
		}
		w.impressions[key] = count
		if e.Anonymous {
			return
		}
		w.views[key] = append(w.views[key], uniqueviews.Viewer{Person: e.Viewer.Person, FirstViewedAt: noon.Add(-time.Duration(len(w.views[key])) * time.Minute), LastViewedAt: noon, Views: 1})
	}
}

// project moves every projection that is not held to the ends.
func (w *world) project() {
	for _, name := range []string{projectionPosts, projectionImpressions, projectionUniqueViews, projectionPeople, projectionTimeSeries} {
		if !w.held[name] {
			w.reached[name] = map[domain.Topic]int64{}
			for t, end := range w.ends {
				w.reached[name][t] = end
			}
		}
	}
}

func (w *world) hold(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range names {
		w.held[n] = true
	}
}

func (w *world) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.held)
	w.project()
}

func (w *world) Authenticate(bearer string) (tenancy.TenantHandle, error) {
	switch bearer {
	case acmeKey:
		return acme, nil
	case otherKey:
		return other, nil
	}
	return tenancy.TenantHandle{}, domain.Errorf(domain.CodeUnauthorized, "send a valid API key")
}

func (w *world) Limits(domain.TenantID) (domain.Limits, bool) { return w.limits, true }

func (w *world) Snapshot(context.Context, func(context.Context, projections.Querier) error) error {
	panic("handlers read through models")
}

func (w *world) Positions(context.Context) (map[string][]projections.PositionRow, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if w.modelsErr != nil {
		return nil, w.modelsErr
	}
	out := map[string][]projections.PositionRow{}
	for name, at := range w.reached {
		for t, next := range at {
			row := projections.PositionRow{Position: domain.Position{Topic: t, TopicID: w.topicID(t), NextOffset: next}}
			if t == domain.TopicViews {
				row = projections.PositionRow{Position: domain.Position{Topic: domain.TopicVerdicts, NextOffset: 3 * next}, ViewNextOffset: next}
			}
			if w.staleTopicID {
				row.TopicID = domain.TopicID{0xff}
			}
			out[name] = append(out[name], row)
		}
	}
	return out, nil
}

func (w *world) read(ctx context.Context, answer func(context.Context, reader) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.modelsErr != nil {
		return w.modelsErr
	}
	return answer(ctx, worldReader{w})
}

// worldReader reads while the world's lock is held: one state.
type worldReader struct{ w *world }

func (r worldReader) posts(_ context.Context, keys []domain.PostKey) (map[domain.PostKey]posts.View, error) {
	r.w.reads++
	out := map[domain.PostKey]posts.View{}
	for _, k := range keys {
		if v := r.w.state[k]; v != nil {
			out[k] = *v
		}
	}
	return out, nil
}

func (r worldReader) deleted(_ context.Context, tenant domain.TenantID, of []domain.PostID) (map[domain.PostID]bool, error) {
	out := map[domain.PostID]bool{}
	for _, id := range of {
		if v := r.w.state[domain.PostKey{Tenant: tenant, Post: id}]; v != nil && v.Deleted && !r.w.held[projectionPosts] {
			out[id] = true
		}
	}
	return out, nil
}

func (r worldReader) outcome(_ context.Context, _ domain.PostKey, id domain.EventID) (domain.Outcome, bool, error) {
	o, ok := r.w.outcomes[id]
	return o, ok && !r.w.forgetful, nil
}

func (r worldReader) history(_ context.Context, key domain.PostKey, after int64, limit int) ([]posts.HistoryEvent, error) {
	var page []posts.HistoryEvent
	for _, e := range r.w.histories[key] {
		if e.RecordOffset > after && len(page) < limit {
			page = append(page, e)
		}
	}
	return page, nil
}

func (r worldReader) feed(_ context.Context, filter posts.FeedFilter, after *posts.FeedCursor, limit int) ([]posts.FeedPost, error) {
	r.w.reads++
	var page []posts.FeedPost
	for key, v := range r.w.state {
		before := after == nil || v.PublishedAt.Before(after.PublishedAt) || v.PublishedAt.Equal(after.PublishedAt) && key.Post < after.Post
		if before && key.Tenant == filter.Tenant && v.Version > 0 && !v.Deleted && (filter.Author == nil || *filter.Author == v.Author) &&
			(filter.Audience == "" || filter.Audience == v.Audience) {
			page = append(page, posts.FeedPost{Key: key, View: *v})
		}
	}
	slices.SortFunc(page, func(a, b posts.FeedPost) int {
		return cmp.Or(b.PublishedAt.Compare(a.PublishedAt), cmp.Compare(b.Key.Post, a.Key.Post))
	})
	return page[:min(limit, len(page))], nil
}

func (r worldReader) impressions(_ context.Context, keys []domain.PostKey) (map[domain.PostKey]impressions.Count, error) {
	r.w.reads++
	out := map[domain.PostKey]impressions.Count{}
	for _, k := range keys {
		out[k] = r.w.impressions[k]
	}
	return out, nil
}

func (r worldReader) baselines(_ context.Context, keys []domain.PostKey) (map[domain.PostKey]domain.Baseline, error) {
	out := map[domain.PostKey]domain.Baseline{}
	for _, k := range keys {
		if v := r.w.state[k]; v != nil && !v.Baseline.AsOf.IsZero() {
			out[k] = v.Baseline
		}
	}
	return out, nil
}

func (r worldReader) uniqueViewers(_ context.Context, keys []domain.PostKey) (map[domain.PostKey]int64, error) {
	r.w.reads++
	out := map[domain.PostKey]int64{}
	for _, k := range keys {
		out[k] = int64(len(r.w.views[k]))
	}
	return out, nil
}

func (r worldReader) viewers(_ context.Context, key domain.PostKey, after *uniqueviews.ViewersCursor, limit int) ([]uniqueviews.Viewer, error) {
	var page []uniqueviews.Viewer
	for _, v := range r.w.views[key] {
		if (after == nil || v.FirstViewedAt.Before(after.FirstViewedAt)) && len(page) < limit {
			page = append(page, v)
		}
	}
	return page, nil
}

func (r worldReader) postTimeSeries(_ context.Context, key domain.PostKey, in timeseries.Range) ([]timeseries.Bucket, error) {
	r.w.ranges = append(r.w.ranges, in)
	return slices.DeleteFunc(slices.Clone(r.w.buckets[key]), func(b timeseries.Bucket) bool {
		return b.Start.Before(in.From) || !b.Start.Before(in.To)
	}), nil
}

func (r worldReader) timeSeries(ctx context.Context, tenant domain.TenantID, in timeseries.Range) ([]timeseries.Bucket, error) {
	return r.postTimeSeries(ctx, domain.PostKey{Tenant: tenant}, in)
}

func (r worldReader) members(_ context.Context, tenant domain.TenantID, audience string, after *domain.PersonKey, limit int) ([]posts.AudienceMember, error) {
	var page []posts.AudienceMember
	for m := range r.w.members {
		if m.Tenant == tenant && m.Audience == audience && (after == nil || bytes.Compare(m.Person[:], after[:]) > 0) {
			page = append(page, posts.AudienceMember{Person: m.Person, AddedAt: noon})
		}
	}
	slices.SortFunc(page, func(a, b posts.AudienceMember) int { return bytes.Compare(a.Person[:], b.Person[:]) })
	return page[:min(limit, len(page))], nil
}

func (r worldReader) names(_ context.Context, tenant domain.TenantID, of []domain.PersonKey) (map[domain.PersonKey]string, error) {
	r.w.reads++
	out := map[domain.PersonKey]string{}
	for _, p := range of {
		if name, ok := r.w.names[domain.PersonRef{Tenant: tenant, Person: p}]; ok {
			out[p] = name
		}
	}
	return out, nil
}

func (r worldReader) erased(_ context.Context, person domain.PersonRef) (bool, error) {
	_, erased := r.w.erased[person]
	return erased && !r.w.held[projectionPeople], nil
}

func (r worldReader) asOf(context.Context, ...string) (time.Time, error) { return r.w.asOfTime, nil }

// api is a handler over the world.
func (w *world) api(t testing.TB, cfg Config) http.Handler {
	t.Helper()
	h, err := build(cfg.withDefaults(), w.deps(), w)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (w *world) deps() Deps {
	return Deps{
		Log: w, Tenants: w, ReadModels: w, Erasures: &worldErasures{w: w},
		TopicID: func(t domain.Topic) (domain.TopicID, bool) { return w.topicID(t), true },
		Now:     func() time.Time { return noon },
		NewID:   func() [16]byte { w.ids++; return [16]byte{6: 0x70, 8: 0x80, 15: w.ids} },
		Logger:  slog.New(slog.DiscardHandler),
	}
}

// do sends a request as acme; headers are pairs.
func do(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+acmeKey)
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}
