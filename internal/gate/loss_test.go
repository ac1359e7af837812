package gate

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"seenby/domain"
)

// What the log no longer holds is not skipped.
func TestDataLoss(t *testing.T) {
	loss := func(t *testing.T, w *world, part domain.Partition) {
		t.Helper()
		s, err := w.open(part)
		if domain.CodeOf(err) != domain.CodeDataLoss {
			t.Fatalf("opened (%v): %v", s != nil, err)
		}
		t.Log(err)
	}
	fill := func(t *testing.T, o worldOption) *world {
		w := newWorld(t, o)
		w.posts.publish("p")
		w.report(time.Time{}, view(1, 1, "p"), view(1, 2, "p"), view(1, 3, "p"))
		return w
	}
	cut := func(w *world, topic domain.Topic, at int64) {
		offsets := kadm.Offsets{}
		offsets.AddOffset(w.kafka.TopicName(topic), 0, at, -1)
		_, err := w.admin.DeleteRecords(w.ctx, offsets)
		check(w.t, err)
	}
	t.Run("views cut", func(t *testing.T) {
		w := fill(t, worldOption{partitions: 2})
		cut(w, domain.TopicViews, 2)
		loss(t, w, w.views[0])
		r, err := w.kafka.NewRecord(view(1, 1, "p"), 1, time.Time{})
		check(t, err)
		w.raw(1, r.Key, r.Value)
		g, _, _ := w.gate(w.views...)
		w.verdicts(1, 1)
		eventually(t, "the partition stops", func() bool { return stateOf(g, 0) == StateStopped && g.Ready() != nil })
	})
	t.Run("views cut under a running gate", func(t *testing.T) {
		w := fill(t, worldOption{})
		s := w.mustOpen(w.views[0])
		s.stepTo(t, 3)
		w.report(time.Time{}, view(1, 4, "p"), view(1, 5, "p"))
		cut(w, domain.TopicViews, 4)
		s.next = 3
		var err error
		for err == nil {
			err = s.step(t.Context())
			if s.next == 5 && err == nil {
				return // they had been fetched before they were cut, and so have their verdicts
			}
		}
		s.client.Close()
		loss(t, w, w.views[0])
	})
	t.Run("views made anew", func(t *testing.T) {
		w := fill(t, worldOption{})
		w.mustOpen(w.views[0]).stepTo(t, 3)
		_, err := w.admin.DeleteTopic(w.ctx, w.kafka.TopicName(domain.TopicViews))
		check(t, err)
		_, err = w.admin.CreateTopic(w.ctx, 1, 1, nil, w.kafka.TopicName(domain.TopicViews))
		check(t, err)
		loss(t, w, w.views[0])
		anew := w.views[0]
		anew.TopicID = domain.TopicID{} // and where the id is not known, by its end
		loss(t, w, anew)
	})
	t.Run("views cut and grown again", func(t *testing.T) {
		w := fill(t, worldOption{brokers: 2})
		w.mustOpen(w.views[0]).stepTo(t, 3)
		for node := range int32(2) { // one of them is another leader than before
			check(t, w.fake.MoveTopicPartition(w.kafka.TopicName(domain.TopicViews), 0, node))
		}
		// A view that the first leader is said to have written, where the second one wrote.
		w.report(time.Time{}, view(1, 4, "p"), view(1, 5, "p"))
		w.verdict(&domain.Verdict{Viewer: view(1, 4, "p").Viewer, ViewID: viewID(9), Post: "p", ViewOffset: 3, ViewEpoch: domain.LeaderEpochOf(0), ViewedAt: noon, Received: noon})
		g, _, _ := w.gate(w.views...)
		eventually(t, "the partition stops", func() bool { return stateOf(g, 0) == StateStopped })
		if err := g.Ready(); domain.CodeOf(err) != domain.CodeDataLoss {
			t.Fatal(err)
		}
	})
	t.Run("verdicts cut", func(t *testing.T) {
		w := fill(t, worldOption{})
		w.mustOpen(w.views[0]).stepTo(t, 3)
		cut(w, domain.TopicVerdicts, 2)
		loss(t, w, w.views[0])
		cut(w, domain.TopicVerdicts, -1)
		loss(t, w, w.views[0])
	})
}

// Partitions come and go: each is worked on by who has it, and offsets for lag tools follow.
func TestAssignmentChanges(t *testing.T) {
	w := newWorld(t, worldOption{partitions: 3})
	w.posts.publish("p")
	g, a, stop := w.gate()
	for p := range int32(3) {
		r, err := w.kafka.NewRecord(view(1, 1, "p"), p, time.Time{})
		check(t, err)
		w.raw(p, r.Key, r.Value)
	}
	if len(g.Status()) != 0 {
		t.Fatal("works on what it does not have")
	}
	a.assign(w.views[:2]...)
	w.verdicts(0, 1)
	w.verdicts(1, 1)
	a.assign(w.views[1:]...)
	w.verdicts(2, 1)
	a.assign(w.views...)
	w.report(time.Time{}, view(1, 1, "p"))
	if got := w.verdicts(0, 2); got[1].Reason != domain.ReasonDuplicate {
		t.Fatal(got[1].Reason)
	}
	eventually(t, "offsets for lag tools", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.offsets[0] == 2 && a.offsets[1] == 1 && a.offsets[2] == 1
	})
	stop()
	eventually(t, "all workers are gone", func() bool {
		return !slices.ContainsFunc(g.all(), func(w *worker) bool {
			select {
			case <-w.done:
				return false
			default:
				return true
			}
		})
	})
}
