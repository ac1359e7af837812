package eventlog_test

import (
	"testing"
	"time"

	"seenby/domain"
)

// A mark stands in the partition of its person's name, between what was appended before and after it: only so can
// a follower tell a name that raced with an erasure.
func TestMarkStandsWithTheName(t *testing.T) {
	log, _ := open(t)
	const people = 20 // over three partitions, none of them empty by chance
	for i := range people {
		ref := domain.PersonRef{Tenant: "acme", Person: domain.PersonKey{byte(i)}}
		positions, err := log.Append(t.Context(),
			domain.PersonNamed{Ref: ref, ID: "before"}, domain.PersonErased{Ref: ref, ErasedAt: time.Unix(1, 0)},
			domain.PersonForgotten{Ref: ref}, domain.PersonNamed{Ref: ref, ID: "after"})
		if err != nil || len(positions) != 1 {
			t.Fatalf("person %d: %v, %v", i, positions, err)
		}
	}
	ends, err := log.Ends(t.Context(), domain.TopicPeople)
	if err != nil {
		t.Fatal(err)
	}
	starts, err := log.Starts(t.Context(), domain.TopicPeople)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := log.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := reader.Seek(t.Context(), starts); err != nil {
		t.Fatal(err)
	}
	steps := map[domain.PersonRef]string{}
	for !reader.Passed(ends) {
		b, err := reader.Poll(t.Context(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			switch e := r.Event.(type) {
			case domain.PersonNamed:
				steps[e.Ref] += e.ID + " "
			case domain.PersonErased:
				steps[e.Ref] += "mark "
			case domain.PersonForgotten:
				steps[e.Ref] += "tombstone "
			}
		}
	}
	for ref, got := range steps {
		if got != "before mark tombstone after " {
			t.Errorf("%v: %s", ref.Person, got)
		}
	}
	if len(steps) != people {
		t.Errorf("%d people", len(steps))
	}
}
