package gate

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// A gate that crashes anywhere, any number of times, gives the verdicts that an uncrashed gate gives over the
// same log: here the uncrashed one is the domain alone, judging all views in one go.
func TestCrashesChangeNoVerdict(t *testing.T) {
	const runs, views = 6, 400
	first := rand.Uint64()
	for run := range runs {
		seed := first + uint64(run)
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, worldOption{createTime: true})
		for p := range 6 {
			w.posts.publish(ids(p))
		}
		w.posts.posts[postKey0("p6")] = domain.PostAnswer{Known: true, Deleted: true}
		w.tenants.set(tenant, func(l *domain.Limits) {
			l.PostCap.Views, l.Quota = 3, domain.Quota{ViewsPerMinute: 1, BurstViews: 12}
		})
		limits, _ := w.tenants.Limits(tenant)
		at := noon
		memory := domain.NewMemory(limits)
		var want []*domain.Verdict
		for i := range views {
			switch rnd.IntN(40) {
			case 0:
				at = at.Add(time.Duration(rnd.IntN(20)) * time.Hour) // beyond windows now and then
			case 1:
				at = at.Add(-time.Duration(rnd.IntN(60)) * time.Second) // a new leader with another clock
			default:
				at = at.Add(time.Duration(rnd.IntN(200)) * time.Second)
			}
			v := view(rnd.IntN(4), rnd.IntN(views), ids(rnd.IntN(8)))
			if rnd.IntN(3) == 0 {
				v.ViewedAt = at.Add(-time.Duration(rnd.IntN(30)) * time.Hour)
			}
			w.report(at, v)
			answer := w.posts.posts[domain.PostKey{Tenant: tenant, Post: v.Post}]
			answer.Final = true
			if !answer.Known {
				// The end of posts is 0, and so is what was read.
				answer.WaitsFor = []domain.Position{{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts]}}
			}
			o := memory.Begin()
			want = append(want, o.Judge(domain.ViewRecord{View: v, Offset: int64(i), Epoch: domain.LeaderEpochOf(0), Appended: at}, answer, limits))
			o.Commit()
		}
		crashes := 0
		for next := int64(0); next < views; {
			w.cfg.BatchViewsMax = 1 + rnd.IntN(40)
			s := w.mustOpen(w.views[0])
			if s.next != next {
				t.Fatalf("seed %d: opened at %d, committed to %d", seed, s.next, next)
			}
			for range rnd.IntN(6) {
				if s.next < views {
					check(t, s.step(t.Context()))
				}
			}
			next = s.next
			if next < views && rnd.IntN(2) == 0 {
				s.half(t)
			}
			s.client.Close() // kill -9, as far as Kafka can see
			crashes++
		}
		got := w.verdicts(0, views)
		counted := map[domain.Reason]int{}
		for i, v := range got {
			// Through the wire once, as the others went.
			key, value, err := eventlog.Encode(want[i])
			check(t, err)
			e, err := eventlog.Decode(domain.TopicVerdicts, key, value)
			check(t, err)
			if diff := cmp.Diff(e, domain.Event(v.Verdict), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("seed %d, view %d: uncrashed -, crashed +:\n%s", seed, i, diff)
			}
			counted[v.Reason]++
		}
		t.Logf("%d crashes: %v", crashes, counted)
	}
}
