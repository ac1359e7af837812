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
