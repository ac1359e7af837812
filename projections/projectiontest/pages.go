package projectiontest

import (
	"slices"
	"testing"

	"seenby/domain"
)

// Pages checks that pages of posts, of every size, give the wanted ones in their order, each once. want has at least three, and
// acme/p2, which is none of them, would stand between the first two.
func Pages(t *testing.T, want []domain.PostKey, read func(after domain.PostKey, limit int) ([]domain.PostKey, error)) {
	t.Helper()
	for limit := 1; limit <= len(want)+1; limit++ {
		var got []domain.PostKey
		for after := (domain.PostKey{}); ; after = got[len(got)-1] {
			page, err := read(after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("%d of %d: %v", len(page), limit, err)
			}
			got = append(got, page...)
			if len(page) < limit || len(got) > len(want) {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %v, want %v", limit, got, want)
		}
	}
	page, err := read(domain.PostKey{Tenant: "acme", Post: "p2"}, 2) // not there
	if err != nil || !slices.Equal(page, want[1:3]) {
		t.Errorf("%v (%v)", page, err)
	}
}
