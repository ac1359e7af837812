package bulk

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"seenby/domain"
	"seenby/projections"
)

// Keys that sort in another way once joined carelessly, and one of full length.
var (
	someTenants = []domain.TenantID{"a", "a-b", "ab", domain.TenantID(strings.Repeat("t", domain.TenantBytesMax))}
	somePosts   = []domain.PostID{"p", "p1", "p ", "p!", "é", "a", "p10", domain.PostID(strings.Repeat("p", domain.IDBytesMax))}
)

// Any memory gives the same rows, which are those of a map.
func TestSpansAreThoseOfAMap(t *testing.T) {
	type key struct {
		tenant domain.TenantID
		post   domain.PostID
		member [memberBytes]byte
	}
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		memory := rapid.SampledFrom([]int64{MemoryBytesMin, MemoryBytesMin + 1000, 4 * MemoryBytesMin, 1 << 20}).Draw(t, "memory")
		s, err := NewSpans(projections.BulkRoom{MemoryBytes: memory, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		want := map[key]Span{}
		for range rapid.IntRange(0, 2000).Draw(t, "adds") {
			// One draw: rapid is slow at many.
			n := rapid.Uint32().Draw(t, "add")
			k := key{tenant: someTenants[n&3], post: somePosts[n>>2&7]}
			k.member[n>>5&15] = byte(n >> 9 & 7)
			at := int64(n>>12&1023) - 100
			if old, seen := want[k]; seen {
				want[k] = Span{min(old.First, at), max(old.Last, at), old.Times + 1}
			} else {
				want[k] = Span{at, at, 1}
			}
			if err := s.Add(k.tenant, k.post, k.member, at); err != nil {
				t.Fatal(err)
			}
		}
		var lines, sizes []string
		keys := slices.SortedFunc(maps.Keys(want), func(a, b key) int {
			return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.post, b.post), bytes.Compare(a.member[:], b.member[:]))
		})
		members := 0
		for i, k := range keys {
			v := want[k]
			lines = append(lines, fmt.Sprintf("%s %q %x %d..%d %d", k.tenant, k.post, k.member[:], v.First, v.Last, v.Times))
			members++
			if i == len(keys)-1 || keys[i+1].tenant != k.tenant || keys[i+1].post != k.post {
				sizes = append(sizes, fmt.Sprintf("%s %q %d", k.tenant, k.post, members))
				members = 0
			}
		}
		for range 2 { // again is the same
			rows, err := s.Rows(spanRow)
			var got []string
			for _, row := range decoded(t, all(t, rows, err, rapid.IntRange(1, 5000).Draw(t, "piece"))) {
				got = append(got, spanLine(row))
			}
			if !slices.Equal(got, lines) {
				t.Fatalf("rows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
			}
			counts, err := s.Sizes(sizeRow)
			got = nil
			for _, row := range decoded(t, all(t, counts, err, 1000)) {
				got = append(got, fmt.Sprintf("%s %q %d", row[0], row[1], number(row[2])))
			}
			if !slices.Equal(got, sizes) {
				t.Fatalf("sizes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(sizes, "\n"))
			}
		}
	})
}

func TestSumsAreThoseOfAMap(t *testing.T) {
	type key struct {
		tenant domain.TenantID
		post   domain.PostID
		rest   string
	}
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		memory := rapid.SampledFrom([]int64{MemoryBytesMin, MemoryBytesMin + 1000, 4 * MemoryBytesMin, 1 << 20}).Draw(t, "memory")
		rest := rapid.SampledFrom([]int{0, 1, 5}).Draw(t, "rest")
		s, err := NewSums(projections.BulkRoom{MemoryBytes: memory, Dir: dir}, 2, rest)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		want := map[key][2]int64{}
		for range rapid.IntRange(0, 2000).Draw(t, "adds") {
			n := rapid.Uint32().Draw(t, "add")
			k := key{tenant: someTenants[n&3], post: somePosts[n>>2&7], rest: strings.Repeat(string(byte(n>>5&127)), rest)}
			v := want[k]
			v[0] += int64(n>>12) - 1000
			v[1]++
			want[k] = v
			sums, err := s.Of(k.tenant, k.post, []byte(k.rest))
			if err != nil {
				t.Fatal(err)
			}
			sums[0] += int64(n>>12) - 1000
			sums[1]++
		}
		var lines []string
		for _, k := range slices.SortedFunc(maps.Keys(want), func(a, b key) int {
			return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.post, b.post), cmp.Compare(a.rest, b.rest))
		}) {
			lines = append(lines, fmt.Sprintf("%s %q %q %d %d", k.tenant, k.post, k.rest, want[k][0], want[k][1]))
		}
		rows, err := s.Rows(sumRow)
		var got []string
		for _, row := range decoded(t, all(t, rows, err, 1000)) {
			got = append(got, fmt.Sprintf("%s %q %q %d %d", row[0], row[1], row[2], number(row[3]), number(row[4])))
		}
		if !slices.Equal(got, lines) {
			t.Fatalf("rows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
		}
	})
}
