package gate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

// shared is a world with a post of the audience friends, of which viewer 1 is a member.
func shared(t *testing.T, o worldOption) *world {
	w := newWorld(t, o)
	w.posts.share("p", "friends")
	w.posts.join("friends", 1)
	w.posts.pass(0, 4)
	w.ends.end(0, 4)
	w.posts.passIn(domain.TopicAudiences, 0, 8)
	w.ends.endIn(domain.TopicAudiences, 0, 8)
	return w
}

func TestAudience(t *testing.T) {
	w := shared(t, worldOption{})
	anonymous := view(1, 3, "p")
	anonymous.Anonymous = true
	w.report(time.Time{}, view(1, 1, "p"), view(2, 2, "p"), anonymous, view(999, 4, "p"))
	w.mustOpen(w.views[0]).stepTo(t, 4)
	got := w.verdicts(0, 4)
	want := []domain.Reason{"", domain.ReasonNotInAudience, domain.ReasonNotInAudience, ""}
	if diff := cmp.Diff(want, reasons(got)); diff != "" {
		t.Error(diff)
	}
	if got[0].AudienceKind != "audience" || !got[3].OwnView {
		t.Errorf("%+v %+v", got[0].Verdict, got[3].Verdict)
	}
	if w.posts.calls != 1 {
		t.Errorf("%d look-ups", w.posts.calls)
	}
}

// The member was added before the view was reported, and the projection is still behind: never a final no.
func TestMembershipNotPassedYet(t *testing.T) {
	w := shared(t, worldOption{})
	w.ends.endIn(domain.TopicAudiences, 0, 9)
	w.posts.onLookup = func(call int) {
		if call == 4 {
			w.posts.join("friends", 3)
		}
	}
	w.report(time.Time{}, view(2, 1, "p"), view(3, 2, "p"), view(1, 3, "p"))
	w.mustOpen(w.views[0]).stepTo(t, 3)
	got := w.verdicts(0, 3)
	if diff := cmp.Diff([]domain.Reason{domain.ReasonUndecided, "", ""}, reasons(got)); diff != "" {
		t.Fatal(diff)
	}
	waits := []domain.Position{
		{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], NextOffset: 4},
		{Topic: domain.TopicAudiences, TopicID: topicIDs[domain.TopicAudiences], NextOffset: 9},
	}
	if diff := cmp.Diff(waits, got[0].WaitsFor); diff != "" {
		t.Error(diff)
	}
}

// The projection passes the post while the batch waits for it, and is still behind with who may see it: whoever was added
// before the view was reported is waited for, too.
func TestPostComesBeforeItsMembers(t *testing.T) {
	for name, comes := range map[string]bool{"in time": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			w := shared(t, worldOption{})
			w.ends.end(0, 5)
			w.ends.endIn(domain.TopicAudiences, 0, 9)
			w.posts.onLookup = func(call int) {
				switch {
				case call == 3:
					w.posts.share("late", "friends")
					w.posts.pass(0, 5)
				case call == 6 && comes:
					w.posts.join("friends", 2)
					w.posts.passIn(domain.TopicAudiences, 0, 9)
				}
			}
			w.report(time.Time{}, view(2, 1, "late"))
			w.mustOpen(w.views[0]).stepTo(t, 1)
			got := w.verdicts(0, 1)[0]
			if comes {
				if !got.Counted() {
					t.Errorf("%+v", got.Verdict)
				}
				return
			}
			waits := []domain.Position{
				{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], NextOffset: 5},
				{Topic: domain.TopicAudiences, TopicID: topicIDs[domain.TopicAudiences], NextOffset: 9},
			}
			if diff := cmp.Diff(waits, got.WaitsFor); got.Reason != domain.ReasonUndecided || diff != "" {
				t.Errorf("%q %s", got.Reason, diff)
			}
		})
	}
}

// A post moves to another audience between two look-ups: nobody is refused by an audience in which nobody has looked for
// them.
func TestPostMovesToAnotherAudience(t *testing.T) {
	t.Run("since an answer was cached", func(t *testing.T) {
		w := shared(t, worldOption{})
		s := w.mustOpen(w.views[0])
		w.report(time.Time{}, view(1, 1, "p"))
		s.stepTo(t, 1)
		w.posts.do(func() {
			w.posts.share("p", "family")
			w.posts.join("family", 1)
			w.posts.join("family", 2)
		})
		w.report(time.Time{}, view(1, 2, "p"), view(2, 3, "p"))
		s.stepTo(t, 3)
		if diff := cmp.Diff([]domain.Reason{"", "", ""}, reasons(w.verdicts(0, 3))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("while others wait", func(t *testing.T) {
		w := shared(t, worldOption{})
		w.ends.endIn(domain.TopicAudiences, 0, 9)
		w.posts.onLookup = func(call int) {
			switch call {
			case 2:
				w.posts.join("friends", 2)
			case 4:
				w.posts.share("p", "family")
			}
		}
		w.report(time.Time{}, view(2, 1, "p"), view(3, 2, "p"))
		w.mustOpen(w.views[0]).stepTo(t, 2)
		got := w.verdicts(0, 2)
		if diff := cmp.Diff([]domain.Reason{"", domain.ReasonUndecided}, reasons(got)); diff != "" {
			t.Fatal(diff)
		}
		if n := len(got[1].WaitsFor); n != 2 || got[1].WaitsFor[1].NextOffset != 9 {
			t.Errorf("waits for %+v", got[1].WaitsFor)
		}
	})
}

// What a readmitted view waited for was asked while its post was not known: whether the viewer is a member was no
// question then, so it is undecided once more before a no is final.
func TestReadmittedNonMember(t *testing.T) {
	w := shared(t, worldOption{})
	w.ends.endIn(domain.TopicAudiences, 0, 9)
	again := func(viewer, id int, waited ...domain.Position) domain.ViewReported {
		v := view(viewer, id, "p")
		v.Readmitted = &domain.Readmission{Offset: int64(id), Received: noon, ViewedAt: noon, WaitedFor: waited}
		return v
	}
	post := domain.Position{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], NextOffset: 4}
	member := domain.Position{Topic: domain.TopicAudiences, TopicID: topicIDs[domain.TopicAudiences], NextOffset: 8}
	w.report(time.Time{}, again(1, 1, post), again(2, 2, post), again(2, 3, post, member))
	w.mustOpen(w.views[0]).stepTo(t, 3)
	got := w.verdicts(0, 3)
	if diff := cmp.Diff([]domain.Reason{"", domain.ReasonUndecided, domain.ReasonNotInAudience}, reasons(got)); diff != "" {
		t.Fatal(diff)
	}
	if n := len(got[1].WaitsFor); n != 2 || got[1].WaitsFor[1].NextOffset != 9 {
		t.Errorf("%+v", got[1].WaitsFor)
	}
}

// Yes is remembered for a second, no is asked each time.
func TestMembersAreCached(t *testing.T) {
	w := shared(t, worldOption{})
	s := w.mustOpen(w.views[0])
	w.report(time.Time{}, view(1, 1, "p"))
	s.stepTo(t, 1)
	w.report(time.Time{}, view(1, 2, "p"))
	s.stepTo(t, 2)
	if w.posts.calls != 1 {
		t.Errorf("%d look-ups", w.posts.calls)
	}
	w.report(time.Time{}, view(2, 3, "p"))
	s.stepTo(t, 3)
	w.posts.do(func() { w.posts.join("friends", 2) })
	w.report(time.Time{}, view(2, 4, "p"))
	s.stepTo(t, 4)
	if diff := cmp.Diff([]domain.Reason{"", "", domain.ReasonNotInAudience, ""}, reasons(w.verdicts(0, 4))); diff != "" {
		t.Error(diff)
	}
}
