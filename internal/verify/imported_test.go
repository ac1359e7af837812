package verify

import (
	"strings"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections/posts"
)

var asOf = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// importCounts puts events of imported counts into partition 3 of the topic posts, whose projection stands at 12, and makes
// its read model.
func (w *world) importCounts() {
	p1, p2 := domain.PostKey{Tenant: "demo", Post: "p-1"}, domain.PostKey{Tenant: "demo", Post: "only-counts"}
	add := func(post domain.PostKey, id byte, n int64, at time.Time) {
		e := domain.CountsImported{PostRef: post, EventID: domain.EventID{id}, Impressions: 10 * n, UniqueViewers: n, AsOf: at}
		in := domain.Partition{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], Partition: 3}
		w.postEvents = append(w.postEvents, domain.Record{Partition: in, Offset: int64(len(w.postEvents)), Time: w.clock, Key: post.Key(), Event: e})
	}
	add(p1, 1, 1, asOf)
	add(p1, 2, 2, asOf.Add(time.Hour)) // later
	add(p1, 3, 3, asOf)                // older
	add(p1, 4, 4, asOf.Add(time.Hour)) // as late, and behind it
	add(p1, 2, 2, asOf.Add(time.Hour)) // a repeat of what no longer holds
	add(p2, 5, 5, asOf)
	add(p2, 6, -6, asOf) // poison
	add(p2, 7, 7, asOf)  // parked behind it
	add(p2, 8, 8, asOf)  // discarded
	for len(w.postEvents) < 12 {
		add(p1, 9, 9, asOf)
	}
	add(p1, 10, 10, asOf.Add(time.Minute)) // after the position
	add(p2, 11, 11, asOf.Add(time.Minute))
	place := func(offset int64) Place { return Place{w.postEvents[offset].Partition, offset} }
	w.state.Parked = map[string][]Place{posts.Name: {place(6), place(7)}}
	w.decisions.Discarded = map[string][]Place{posts.Name: {place(8)}}
	w.imported = map[domain.PostKey]domain.Baseline{
		p1: {Impressions: 40, UniqueViewers: 4, AsOf: asOf.Add(time.Hour)}, p2: {Impressions: 50, UniqueViewers: 5, AsOf: asOf},
	}
}

func TestImportedCounts(t *testing.T) {
	p1 := domain.PostKey{Tenant: "demo", Post: "p-1"}
	change := func(f func(*domain.Baseline)) func(*world) {
		return func(w *world) {
			b := w.imported[p1]
			f(&b)
			w.imported[p1] = b
		}
	}
	for name, c := range map[string]struct {
		plant   func(*world)
		differs func(PostDifference) bool
	}{
		"as they are":       {func(*world) {}, nil},
		"other impressions": {change(func(b *domain.Baseline) { b.Impressions++ }), func(d PostDifference) bool { return d.ImportedImpressions == Compared{41, 40} }},
		"other viewers":     {change(func(b *domain.Baseline) { b.UniqueViewers = 0 }), func(d PostDifference) bool { return d.ImportedUniqueViewers == Compared{0, 4} }},
		"another as_of":     {change(func(b *domain.Baseline) { b.AsOf = b.AsOf.Add(time.Microsecond) }), func(d PostDifference) bool { return d.ImportedAsOfDiffers }},
		"none": {func(w *world) { delete(w.imported, p1) }, func(d PostDifference) bool {
			return d.ImportedImpressions == Compared{0, 40} && d.ImportedAsOfDiffers
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(3)
			w.live()
			w.importCounts()
			w.fold()
			c.plant(w)
			r := w.run(t, Scope{})
			if c.differs == nil {
				if !r.Clean {
					t.Errorf("%+v %+v", r.Differing, r.Findings)
				}
				return
			}
			if len(r.Differing) != 1 || r.Differing[0].Post != p1.Post || !c.differs(r.Differing[0]) || r.FindingsInAll != 0 {
				t.Errorf("%+v %+v", r.Differing, r.Findings)
			}
			if r := w.run(t, Scope{Tenant: "demo", Post: "only-counts"}); !r.Clean {
				t.Errorf("seen at another post: %+v", r.Differing)
			}
			if r := w.run(t, Scope{Tenant: "demo", Post: "p-1"}); r.Clean || r.Post == nil || !c.differs(r.Post.PostDifference) {
				t.Errorf("asked for the post: %+v", r.Post)
			}
		})
	}
	t.Run("poison that is not parked", func(t *testing.T) {
		w := newWorld(3)
		w.importCounts()
		w.fold()
		w.state.Parked[posts.Name] = w.state.Parked[posts.Name][1:]
		if r := w.run(t, Scope{}); r.FindingsInAll != 1 || r.Findings[0].Topic != domain.TopicPosts || r.Findings[0].Offset != 6 || !strings.Contains(r.Findings[0].What, "posts cannot hold it") {
			t.Errorf("found %+v", r.Findings)
		}
	})
	t.Run("a log that does not begin at its beginning", func(t *testing.T) {
		w := newWorld(3)
		w.importCounts()
		w.fold()
		w.starts[domain.TopicPosts] = 1
		if _, err := Run(t.Context(), w.deps(), Scope{}); domain.CodeOf(err) != domain.CodeDataLoss {
			t.Error(err)
		}
	})
}
