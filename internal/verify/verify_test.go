package verify

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
	"seenby/projections/uniqueviews"
)

// A run over random traffic finds nothing, and its figures are those of the topics.
func TestCleanWorlds(t *testing.T) {
	for range 30 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			w := newWorld(seed)
			w.live()
			if seed%2 == 0 {
				w.poison(int32(seed % worldPartitions))
			}
			w.fold()
			r := w.run(t, Scope{})
			if !r.Clean {
				t.Fatalf("differing %+v\nfindings %+v", r.Differing, r.Findings)
			}
			w.figures(t, r)
			w.fates(t, r)
		})
	}
}

func (w *world) run(t *testing.T, s Scope) *Report {
	t.Helper()
	r, err := Run(t.Context(), w.deps(), s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) position(name string, n int32) projections.PositionRow {
	for _, row := range w.state.Positions[name] {
		if row.Partition == n {
			return row
		}
	}
	return projections.PositionRow{}
}

// figures counts again, by tenant and partition.
func (w *world) figures(t *testing.T, r *Report) {
	t.Helper()
	want := map[string]*Counts{}
	of := func(tenant domain.TenantID, n int32) *Counts {
		k := fmt.Sprint(tenant, "/", n)
		if want[k] == nil {
			want[k] = &Counts{}
		}
		return want[k]
	}
	for n := range int32(worldPartitions) {
		at := w.position(impressions.Name, n)
		for _, view := range w.views[n] {
			if ref, _, _ := domain.ParsePersonKey(view.Key); view.Offset < at.ViewNextOffset {
				of(ref.Tenant, n).Reported++
			}
		}
		for _, rec := range w.verdicts[n] {
			if v, ok := rec.Event.(*domain.Verdict); ok && rec.Offset < at.NextOffset {
				if c := of(v.Viewer.Tenant, n); v.Counted() {
					c.Counted++
				} else {
					c.Refused++
					c.refuse(v.Reason, 1)
				}
			}
		}
	}
	impressionsOf, pairs := map[domain.TenantID]int64{}, map[domain.TenantID]int64{}
	for k, c := range w.counts {
		impressionsOf[k.post.Tenant] += c.all
	}
	for k := range w.viewers {
		pairs[k.post.Tenant]++
	}
	for _, tenant := range r.Tenants {
		if tenant.InAll.Impressions != impressionsOf[tenant.Tenant] || tenant.ReadModel.Impressions != impressionsOf[tenant.Tenant] {
			t.Errorf("%s: impressions %d and %d, want %d", tenant.Tenant, tenant.InAll.Impressions, tenant.ReadModel.Impressions, impressionsOf[tenant.Tenant])
		}
		if tenant.InAll.UniquePairs != pairs[tenant.Tenant] || tenant.ReadModel.UniqueViewers != pairs[tenant.Tenant] {
			t.Errorf("%s: pairs %d and %d, want %d", tenant.Tenant, tenant.InAll.UniquePairs, tenant.ReadModel.UniqueViewers, pairs[tenant.Tenant])
		}
		for _, p := range tenant.Partitions {
			k := fmt.Sprint(tenant.Tenant, "/", p.Partition)
			c := want[k]
			if c == nil {
				c = &Counts{}
			}
			if p.Reported != c.Reported || p.Counted != c.Counted || p.Refused != c.Refused || fmt.Sprint(p.Reasons) != fmt.Sprint(c.Reasons) || c.Reported != c.Counted+c.Refused {
				t.Errorf("%s: %+v, want %+v", k, p.Counts, *c)
			}
			delete(want, k)
		}
	}
	if len(want) > 0 {
		t.Errorf("not reported: %v", want)
	}
}

// fates follows undecided verdicts to their end in another way: by looking ahead for each.
func (w *world) fates(t *testing.T, r *Report) {
	t.Helper()
	var want Undecided
	for n := range int32(worldPartitions) {
		until := max(w.position(impressions.Name, n).NextOffset, w.position(uniqueviews.Name, n).NextOffset)
		var below []*domain.Verdict
		for _, rec := range w.verdicts[n] {
			if v, ok := rec.Event.(*domain.Verdict); ok && rec.Offset < until {
				below = append(below, v)
			}
		}
		for i, v := range below {
			if v.Reason != domain.ReasonUndecided {
				continue
			}
			want.Verdicts++
			fate := &want.Waiting
			for _, later := range below[i+1:] {
				repeats := later.Readmits != nil && *later.Readmits == v.ViewOffset
				if later.Counted() && later.Viewer == v.Viewer && later.ViewID == v.ViewID {
					fate = &want.Counted
				} else if repeats && later.Reason == domain.ReasonUndecided {
					fate = &want.Again
				} else if repeats {
					fate = &want.Refused
				} else {
					continue
				}
				break
			}
			*fate++
		}
	}
	got := r.Undecided
	if len(got.First) != int(min(got.Waiting, waitingMax)) {
		t.Errorf("%d of %d that wait are named", len(got.First), got.Waiting)
	}
	got.First, got.ParkedKeys = nil, nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("undecided %+v, want %+v", got, want)
	}
}

// somePost is a post with viewers of the tenant demo.
func (w *world) somePost() (countKey, viewerKey) {
	for k := range w.viewers {
		if k.post.Tenant == "demo" {
			return countKey{k.post, w.shards[k]}, k
		}
	}
	panic("no post was seen")
}

// someImported is a row of the tenant demo that counts imported views.
func (w *world) someImported() countKey {
	for k, n := range w.counts {
		if k.post.Tenant == "demo" && n.imported > 0 {
			return k
		}
	}
	panic("nothing was imported")
}

// Each kind of difference names its post, and nothing else; asked for one post, it is seen there and nowhere else.
func TestPlantedDifferences(t *testing.T) {
	other := countKey{domain.PostKey{Tenant: "demo", Post: "other"}, 3}
	for name, plant := range map[string]func(w *world, c countKey, v viewerKey) (domain.PostKey, func(PostDifference) bool){
		"an impression more": func(w *world, c countKey, _ viewerKey) (domain.PostKey, func(PostDifference) bool) {
			n := w.counts[c]
			n.all++
			w.counts[c] = n
			return c.post, func(d PostDifference) bool { return d.Impressions.ReadModel == d.Impressions.Log+1 }
		},
		"an anonymous impression more": func(w *world, c countKey, _ viewerKey) (domain.PostKey, func(PostDifference) bool) {
			n := w.counts[c]
			n.anonymous++
			w.counts[c] = n
			return c.post, func(d PostDifference) bool {
				return d.AnonymousImpressions.Differs() && !d.Impressions.Differs()
			}
		},
		"an imported view less": func(w *world, _ countKey, _ viewerKey) (domain.PostKey, func(PostDifference) bool) {
			c := w.someImported()
			n := w.counts[c]
			n.imported--
			w.counts[c] = n
			return c.post, func(d PostDifference) bool {
				return d.ImportedViews.ReadModel == d.ImportedViews.Log-1 && d.SpreadDiffers && !d.Impressions.Differs()
			}
		},
		"a row of impressions gone": func(w *world, c countKey, _ viewerKey) (domain.PostKey, func(PostDifference) bool) {
			delete(w.counts, c)
			return c.post, func(d PostDifference) bool { return d.Impressions.ReadModel < d.Impressions.Log }
		},
		"a row of impressions too many": func(w *world, _ countKey, _ viewerKey) (domain.PostKey, func(PostDifference) bool) {
			w.counts[other] = counts{1, 0, 0}
			return other.post, func(d PostDifference) bool { return d.Impressions == Compared{1, 0} }
		},
		"impressions in another shard": func(w *world, c countKey, _ viewerKey) (domain.PostKey, func(PostDifference) bool) {
			to := countKey{c.post, (c.shard + 1) % projections.Shards}
			for w.counts[to] == w.counts[c] {
				to.shard = (to.shard + 1) % projections.Shards
			}
			w.counts[c], w.counts[to] = w.counts[to], w.counts[c]
			if (w.counts[c] == counts{}) {
				delete(w.counts, c)
			}
			return c.post, func(d PostDifference) bool { return d.SpreadDiffers && !d.Impressions.Differs() }
		},
		"a unique viewer less": func(w *world, c countKey, _ viewerKey) (domain.PostKey, func(PostDifference) bool) {
			w.totals[c]--
			return c.post, func(d PostDifference) bool { return d.UniqueViewers.ReadModel == d.UniqueViewers.Log-1 }
		},
		"a viewer row gone": func(w *world, _ countKey, v viewerKey) (domain.PostKey, func(PostDifference) bool) {
			delete(w.viewers, v)
			return v.post, func(d PostDifference) bool { return d.ViewerRows.Differs() && !d.UniqueViewers.Differs() }
		},
		"a viewer row too many": func(w *world, _ countKey, v viewerKey) (domain.PostKey, func(PostDifference) bool) {
			w.viewers[viewerKey{v.post, domain.PersonKey{42}}] = w.viewers[v]
			return v.post, func(d PostDifference) bool { return d.ViewerRows.ReadModel == d.ViewerRows.Log+1 }
		},
		"another first time": changed(func(w *world, v viewerKey) { r := w.viewers[v]; r.First--; w.viewers[v] = r }),
		"another last time":  changed(func(w *world, v viewerKey) { r := w.viewers[v]; r.Last++; w.viewers[v] = r }),
		"other times":        changed(func(w *world, v viewerKey) { r := w.viewers[v]; r.Views++; w.viewers[v] = r }),
		"another shard":      changed(func(w *world, v viewerKey) { w.shards[v] = (w.shards[v] + 1) % projections.Shards }),
		"another viewer": changed(func(w *world, v viewerKey) {
			to := viewerKey{v.post, domain.PersonKey{42}}
			w.viewers[to], w.shards[to] = w.viewers[v], w.shards[v]
			delete(w.viewers, v)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			w := newWorld(seed)
			w.live()
			w.fold()
			c, v := w.somePost()
			post, as := plant(w, c, v)
			r := w.run(t, Scope{})
			if r.Clean || len(r.Differing) != 1 || r.FindingsInAll != 0 || (domain.PostKey{Tenant: r.Differing[0].Tenant, Post: r.Differing[0].Post}) != post || !as(r.Differing[0]) {
				t.Errorf("seed %d, planted in %v: %+v %v", seed, post, r.Differing, r.Findings)
			}
			if r := w.run(t, Scope{Tenant: "acme"}); !r.Clean {
				t.Errorf("seed %d, seen at another tenant: %+v", seed, r.Differing)
			}
			if r := w.run(t, Scope{Tenant: "demo", Post: "nowhere-1"}); !r.Clean {
				t.Errorf("seed %d, seen at another post: %+v", seed, r.Differing)
			}
			one := w.run(t, Scope{Tenant: post.Tenant, Post: post.Post})
			if one.Clean || one.Post == nil || !as(one.Post.PostDifference) {
				t.Fatalf("seed %d, asked for the post: %+v", seed, one)
			}
			rows := r.Differing[0].ViewerRows.Differs() || r.Differing[0].ViewerRowsDiffer
			if (one.Post.NotAlike > 0) != rows || rows && !one.Post.Viewers[0].Differs {
				t.Errorf("seed %d: %d viewers differ: %+v", seed, one.Post.NotAlike, one.Post.Viewers)
			}
		})
	}
}

func changed(plant func(w *world, v viewerKey)) func(*world, countKey, viewerKey) (domain.PostKey, func(PostDifference) bool) {
	return func(w *world, _ countKey, v viewerKey) (domain.PostKey, func(PostDifference) bool) {
		plant(w, v)
		return v.post, func(d PostDifference) bool { return d.ViewerRowsDiffer && !d.ViewerRows.Differs() }
	}
}

// Each way in which the log can break its promise is found where it is. The read models follow the log as they would.
func TestPlantedFindings(t *testing.T) {
	verdictOf := func(w *world, n int32, is func(*domain.Verdict) bool) int {
		for i, r := range w.verdicts[n] {
			if v, ok := r.Event.(*domain.Verdict); ok && i > 0 && is(v) {
				return i
			}
		}
		panic("no such verdict")
	}
	counted := func(v *domain.Verdict) bool { return v.Counted() && v.Readmits == nil && v.Viewer.Tenant == "demo" }
	change := func(is func(*domain.Verdict) bool, to func(*domain.Verdict)) func(*world) (domain.Topic, int64) {
		return func(w *world) (domain.Topic, int64) {
			i := verdictOf(w, 0, is)
			v := *w.verdicts[0][i].Event.(*domain.Verdict)
			to(&v)
			w.verdicts[0][i].Event = &v
			return domain.TopicVerdicts, w.verdicts[0][i].Offset
		}
	}
	readmitted := func(to func(again *domain.Readmission)) func(*world) (domain.Topic, int64) {
		return func(w *world) (domain.Topic, int64) {
			for i, r := range w.views[0] {
				if e, ok := r.Event.(domain.ViewReported); ok && e.Readmitted != nil {
					again := *e.Readmitted
					to(&again)
					e.Readmitted = &again
					w.views[0][i].Event = e
					for j, r := range w.verdicts[0] { // as a gate judges what it reads
						if v, ok := r.Event.(*domain.Verdict); ok && v.ViewOffset == int64(i) {
							now := *v
							now.Readmits, now.Received, now.ViewedAt = &again.Offset, again.Received, again.ViewedAt
							w.verdicts[0][j].Event = &now
						}
					}
					return domain.TopicViews, int64(i)
				}
			}
			panic("nothing was readmitted")
		}
	}
	for name, c := range map[string]struct {
		plant func(w *world) (domain.Topic, int64)
		says  string
	}{
		"a second verdict": {func(w *world) (domain.Topic, int64) {
			i := verdictOf(w, 0, counted)
			again := w.verdicts[0][i]
			w.append(0, domain.Record{Time: w.memory[0].Now(), Key: again.Key, Event: again.Event})
			return domain.TopicVerdicts, w.verdicts[0][len(w.verdicts[0])-1].Offset
		}, "second verdict"},
		"no verdict": {func(w *world) (domain.Topic, int64) {
			i := verdictOf(w, 0, func(v *domain.Verdict) bool { return v.Reason == domain.ReasonUnknownPost })
			at := w.verdicts[0][i].Event.(*domain.Verdict).ViewOffset
			w.verdicts[0] = append(w.verdicts[0][:i], w.verdicts[0][i+1:]...)
			return domain.TopicViews, at
		}, "1 views from here"},
		"a verdict about no view": {func(w *world) (domain.Topic, int64) {
			i := verdictOf(w, 0, counted)
			v := w.verdicts[0][i].Event.(*domain.Verdict)
			w.views[0] = append(w.views[0][:v.ViewOffset], w.views[0][v.ViewOffset+1:]...)
			return domain.TopicVerdicts, w.verdicts[0][i].Offset
		}, "there is no such record"},
		"a verdict in another partition": {func(w *world) (domain.Topic, int64) {
			i := verdictOf(w, 0, counted)
			j := verdictOf(w, 1, counted)
			v := *w.verdicts[1][j].Event.(*domain.Verdict)
			v.ViewOffset = w.verdicts[0][i].Event.(*domain.Verdict).ViewOffset
			w.verdicts[0][i].Event, w.verdicts[0][i].Key = &v, w.verdicts[1][j].Key
			return domain.TopicVerdicts, w.verdicts[0][i].Offset
		}, "key is another viewer's"},
		"another id":            {change(counted, func(v *domain.Verdict) { v.ViewID[5]++ }), "the id of"},
		"another post":          {change(counted, func(v *domain.Verdict) { v.Post = "p-9" }), "the post of"},
		"anonymous or not":      {change(counted, func(v *domain.Verdict) { v.Anonymous = !v.Anonymous }), "the kind of viewer of"},
		"another claimed time":  {change(counted, func(v *domain.Verdict) { v.ClaimedAt = v.ClaimedAt.Add(time.Second) }), "the claimed time of"},
		"another time":          {change(counted, func(v *domain.Verdict) { v.ViewedAt = v.ViewedAt.Add(time.Microsecond) }), "the corrected time of"},
		"another received time": {change(counted, func(v *domain.Verdict) { v.Received = v.Received.Add(time.Second) }), "the received time of"},
		"a readmission of none": {change(counted, func(v *domain.Verdict) { v.Readmits = new(int64) }), "the readmission of"},
		"unknown limits":        {change(counted, func(v *domain.Verdict) { v.LimitsRevision = 9 }), "revision 9"},
		"another partition time": {func(w *world) (domain.Topic, int64) {
			i := verdictOf(w, 0, counted)
			w.verdicts[0][i].Time = w.verdicts[0][i].Time.Add(time.Millisecond)
			return domain.TopicVerdicts, w.verdicts[0][i].Offset
		}, "has the time"},
		"an id that counts twice":         {change(func(v *domain.Verdict) bool { return v.Reason == domain.ReasonDuplicate }, func(v *domain.Verdict) { v.Reason = "" }), "again"},
		"a readmission of another offset": {readmitted(func(again *domain.Readmission) { again.Offset += 1 << 20 }), "which no verdict before it"},
		"a readmission at another time":   {readmitted(func(again *domain.Readmission) { again.ViewedAt = again.ViewedAt.Add(time.Second) }), "not with its"},
		"a readmission that waited for else": {readmitted(func(again *domain.Readmission) {
			again.WaitedFor = append([]domain.Position{{}}, again.WaitedFor...)
		}), "not with its"},
		"poison that is not parked": {func(w *world) (domain.Topic, int64) {
			w.poison(0)
			w.state.Parked = nil
			return domain.TopicVerdicts, w.verdicts[0][len(w.verdicts[0])-1].Offset
		}, "neither parked nor discarded"},
	} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			w := newWorld(seed)
			w.live()
			topic, offset := c.plant(w)
			w.atEnds = true
			w.fold()
			r := w.run(t, Scope{})
			if r.Clean || len(r.Findings) == 0 {
				t.Fatalf("seed %d: nothing was found", seed)
			}
			found := false
			for _, f := range r.Findings {
				if f.Partition != 0 {
					t.Errorf("seed %d: found elsewhere: %+v", seed, f)
				}
				found = found || f.Topic == topic && f.Offset == offset && strings.Contains(f.What, c.says)
			}
			if !found || len(r.Differing) > 0 && c.says != "key is another viewer's" { // there a pair is in two partitions
				t.Errorf("seed %d, planted at %s/0@%d: found %+v, differing %+v", seed, topic, offset, r.Findings, r.Differing)
			}
		})
	}
	t.Run("a position that is not where its verdicts are", func(t *testing.T) {
		w := newWorld(1)
		w.live()
		w.fold()
		w.state.Positions[impressions.Name][0].ViewNextOffset--
		if r := w.run(t, Scope{}); r.FindingsInAll != 1 || !strings.Contains(r.Findings[0].What, "its position says") {
			t.Errorf("found %+v", r.Findings)
		}
	})
	t.Run("a dead letter of no record", func(t *testing.T) {
		w := newWorld(1)
		w.live()
		w.fold()
		w.state.Parked = map[string][]Place{uniqueviews.Name: {{w.verdicts[0][0].Partition, 1 << 40}}}
		if r := w.run(t, Scope{}); r.FindingsInAll != 1 || !strings.Contains(r.Findings[0].What, "dead letter") {
			t.Errorf("found %+v", r.Findings)
		}
	})
}

// What operators gave up is left out like what is parked.
func TestDiscarded(t *testing.T) {
	w := newWorld(7)
	w.live()
	w.poison(2)
	w.decisions.Discarded, w.state.Parked = w.state.Parked, nil
	w.fold()
	if r := w.run(t, Scope{}); !r.Clean {
		t.Errorf("%+v %+v", r.Differing, r.Findings)
	}
	w.decisions.Discarded = nil
	if r := w.run(t, Scope{}); r.Clean {
		t.Error("the discarded records are not missed")
	}
}

// An id may count again once it is out of the window of the limits that the verdict names.
func TestAnIDCountsAgainBehindItsWindow(t *testing.T) {
	for gap, clean := range map[time.Duration]bool{time.Hour: false, time.Hour + time.Millisecond: true} {
		w := newWorld(1)
		w.limits.DuplicateWindow, w.limits.Stale, w.limits.Future, w.limits.Revision = time.Hour, 30*time.Minute, time.Minute, 2
		w.decisions.DuplicateWindows["demo"][2] = time.Hour
		e := domain.ViewReported{Viewer: domain.PersonRef{Tenant: "demo", Person: domain.PersonKey{1}}, Post: "p-1", ViewID: domain.ViewID{1}}
		w.report(0, e)
		w.judge(0)
		w.memory[0] = domain.NewMemory(w.limits) // a gate that forgets
		w.clock = w.clock.Add(gap)
		w.report(0, e)
		w.views[0][1].Time = w.views[0][0].Time.Add(gap)
		w.judge(0)
		w.fold()
		if r := w.run(t, Scope{}); r.Clean != clean || !clean && !strings.Contains(r.Findings[0].What, "again, 1h0m0s after") {
			t.Errorf("after %v: %+v", gap, r.Findings)
		}
	}
}

// Ids are a viewer's own, and remembered as long as the longest window, but not for ever.
func TestCountedIDs(t *testing.T) {
	ids := newCountedIDs(newHasher(), time.Hour)
	key := func(viewer, id byte) idHash {
		return ids.key(domain.PersonRef{Tenant: "demo", Person: domain.PersonKey{viewer}}, domain.ViewID{id})
	}
	start := time.UnixMilli(1_700_000_000_000)
	ids.count(key(1, 1), start)
	if _, counted := ids.count(key(2, 1), start); counted {
		t.Error("another viewer's id is taken for this one's")
	}
	for i := range 60 {
		ids.count(key(3, byte(i)), start.Add(time.Duration(i)*time.Minute))
	}
	if ago, counted := ids.count(key(1, 1), start.Add(time.Hour)); !counted || ago != time.Hour {
		t.Errorf("after an hour: %v %v", counted, ago)
	}
	for i := range 500 {
		ids.count(key(4, byte(i)), start.Add(time.Duration(i)*time.Minute))
	}
	if n := len(ids.now) + len(ids.old); n > 3*60 {
		t.Errorf("%d ids are held of two hours' 120", n)
	}
}

// What the log does not hold, and what this program does not know, ends the run.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(w *world)
		code  domain.Code
		says  string
	}{
		"verdicts cut off at their start":  {func(w *world) { w.starts[domain.TopicVerdicts] = 1 }, domain.CodeDataLoss, "starts at 1"},
		"verdicts shorter than a position": {func(w *world) { w.ends[domain.TopicVerdicts] = 5 }, domain.CodeDataLoss, "it was truncated"},
		"views shorter than a position":    {func(w *world) { w.ends[domain.TopicViews] = 5 }, domain.CodeDataLoss, "views/"},
		"posts shorter than a position": {func(w *world) {
			w.state.Positions[posts.Name][0].NextOffset = 1001
		}, domain.CodeDataLoss, "posts/3"},
		"a topic made anew":         {func(w *world) { w.state.Positions[impressions.Name][0].TopicID[0]++ }, domain.CodeDataLoss, "made anew"},
		"an unknown event":          {func(w *world) { w.verdicts[0][2].Event, w.verdicts[0][2].Err = nil, domain.ErrUnknownEvent }, domain.CodeMisconfigured, "offset"},
		"an event of another topic": {func(w *world) { w.verdicts[0][2].Event = domain.ViewRetracted{} }, domain.CodeMisconfigured, "ViewRetracted"},
		"an unknown view": {func(w *world) {
			for _, r := range w.verdicts[0] {
				if v, ok := r.Event.(*domain.Verdict); ok && v.Counted() {
					w.views[0][v.ViewOffset].Event, w.views[0][v.ViewOffset].Err = nil, domain.ErrUnknownEvent
					return
				}
			}
		}, domain.CodeMisconfigured, "views partition 0"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(3)
			w.live()
			w.atEnds = true
			w.fold()
			c.plant(w)
			_, err := Run(t.Context(), w.deps(), Scope{})
			if domain.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Views that the log no longer holds are taken from their verdicts.
func TestViewsThatAreNoLongerKept(t *testing.T) {
	w := newWorld(5)
	w.live()
	w.fold()
	w.starts[domain.TopicViews] = 4
	r := w.run(t, Scope{})
	if !r.Clean || len(r.Notes) != worldPartitions {
		t.Errorf("%v %+v", r.Notes, r.Findings)
	}
	w.figures(t, r)
}

// Keys with dead letters are named where views wait for them.
func TestWaiting(t *testing.T) {
	w := newWorld(1)
	viewer := domain.PersonRef{Tenant: "demo", Person: domain.PersonKey{1}}
	w.report(0, domain.ViewReported{Viewer: viewer, Post: "late-1", ViewID: domain.ViewID{1}})
	w.report(0, domain.ViewReported{Viewer: viewer, Post: "late-2", ViewID: domain.ViewID{2}})
	w.judge(0)
	w.fold()
	w.state.ParkedKeys = [][]byte{domain.PostKey{Tenant: "demo", Post: "late-2"}.Key(), domain.PostKey{Tenant: "demo", Post: "p"}.Key()}
	r := w.run(t, Scope{})
	u := r.Undecided
	if !r.Clean || u.Waiting != 2 || len(u.ParkedKeys) != 1 || !strings.Contains(u.ParkedKeys[0], "late-2") {
		t.Fatalf("%+v", u)
	}
	if u.First[0].Parked || !u.First[1].Parked || u.First[0].WaitsFor[0] != (WaitsFor{domain.TopicPosts, 3, 17, 12}) {
		t.Errorf("%+v", u.First)
	}
	w.state.ParkedKeys = [][]byte{domain.MemberKey("demo", "club", viewer.Person)}
	if u := w.run(t, Scope{}).Undecided; len(u.ParkedKeys) != 1 || !strings.Contains(u.ParkedKeys[0], "club") || !u.First[0].Parked {
		t.Errorf("%+v", u)
	}
}
