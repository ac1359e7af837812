package faulttest_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"seenby/domain"
)

// The harness finds what it looks for: each kind of loss and of doubling, by a hand-made history.
func TestTheHarnessFindsLossAndDoubling(t *testing.T) {
	const seed = 4711
	w := &world{seed: seed, ledger: newLedger(seed)}
	h := &watch{w: w, next: make([]int64, partitions), undecided: map[viewAt]int{}}
	counts, hidden := []int{}, []int{} // numbers of views that must count, and that must not
	for range 4 {
		first := w.ledger.next()
		w.ledger.acknowledge(first)
		for n := first; n < first+batchViews; n++ {
			if viewOf(seed, n).counts {
				counts = append(counts, n)
			} else {
				hidden = append(hidden, n)
			}
		}
	}
	verdict := func(n int, reason domain.Reason) *domain.Verdict {
		v := &domain.Verdict{ViewID: w.ledger.id(n), ViewOffset: h.next[0], Reason: reason}
		h.take(0, v)
		return v
	}
	for _, n := range counts {
		verdict(n, domain.ReasonNone)
	}
	for _, n := range hidden {
		verdict(n, domain.ReasonNotInAudience)
	}
	if _, lost, doubled, problems := w.ledger.compare(); lost+doubled+len(problems)+len(h.problems) > 0 {
		t.Fatalf("a clean history: %d lost, %d doubled, %v %v", lost, doubled, problems, h.problems)
	}
	verdict(counts[0], domain.ReasonNone) // counted again
	verdict(hidden[0], domain.ReasonNone) // counted, though it must not be
	if _, _, doubled, _ := w.ledger.compare(); doubled != 2 {
		t.Errorf("%d doubled, not 2", doubled)
	}
	w.ledger.acknowledge(w.ledger.next()) // and nothing becomes of these
	if _, lost, _, _ := w.ledger.compare(); lost != batchViews {
		t.Errorf("%d lost, not %d", lost, batchViews)
	}
	again := verdict(counts[1], domain.ReasonDuplicate)
	h.take(0, again) // a second verdict of the same record
	h.next[0] += 3
	h.take(0, &domain.Verdict{ViewID: w.ledger.id(counts[1]), ViewOffset: h.next[0] + 2, Reason: domain.ReasonDuplicate})
	if h.totals.twice != 1 || h.totals.missing != 2 {
		t.Errorf("%d second verdicts and %d missing", h.totals.twice, h.totals.missing)
	}
	// An undecided view is open until it is readmitted, or its id counts.
	verdict(counts[2], domain.ReasonUndecided)
	if h.open() != 0 {
		t.Error("a view whose id counts is open")
	}
	last := batchViews*5 - 1
	first := verdict(last, domain.ReasonUndecided)
	if h.open() != 1 {
		t.Error("an undecided view is not open")
	}
	h.take(0, &domain.Verdict{ViewID: first.ViewID, ViewOffset: h.next[0], Reason: domain.ReasonNotInAudience, Readmits: &first.ViewOffset})
	if h.open() != 0 {
		t.Error("a readmitted view is open")
	}
}

// A proxy does to bytes what it is told.
func TestProxyModes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // an echo
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }() //nolint:errcheck // the end of the test ends it
		}
	}()
	p := newProxy(t)
	p.forwardTo(l.Addr().String())
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	// echo sends a piece and tells what came back within the time.
	echo := func(c net.Conn, piece []byte, within time.Duration) ([]byte, error) {
		c.Write(piece)                            //nolint:errcheck // the read tells
		c.SetReadDeadline(time.Now().Add(within)) //nolint:errcheck // as above
		buf := make([]byte, len(piece))
		n, err := io.ReadFull(c, buf)
		return buf[:n], err
	}
	const soon, ever = 100 * time.Millisecond, 10 * time.Second
	c := dial()
	if got, err := echo(c, []byte("a"), ever); string(got) != "a" {
		t.Fatalf("pass: %q %v", got, err)
	}
	p.set(hang, 0)
	if got, _ := echo(c, []byte("b"), soon); len(got) > 0 {
		t.Errorf("hang: %q", got)
	}
	p.set(pass, 0)
	if got, err := echo(c, []byte("c"), ever); string(got) != "b" {
		t.Errorf("after a hang what was sent comes: %q %v", got, err)
	}
	p.set(mute, 0)
	if got, _ := echo(c, []byte("d"), soon); string(got) == "d" {
		t.Errorf("mute: %q", got)
	}
	p.set(pass, 0)
	if _, err := io.ReadAll(c); err == nil {
		t.Error("a muted connection goes on with a hole")
	}
	p.commits.Store(1)
	c = dial()
	if got, err := echo(c, commitMessage, ever); err == nil || p.lost.Load() != 1 {
		t.Errorf("the answer to COMMIT: %q %v", got, err)
	}
	p.undone.Store(1)
	c = dial()
	if got, err := echo(c, commitMessage, ever); err == nil || p.undone.Load() != 0 || p.lost.Load() != 1 {
		t.Errorf("COMMIT itself: %q %v", got, err)
	}
	p.set(cut, 0)
	if c, err := net.Dial("tcp", p.addr); err == nil { // or it is reset at once
		if got, err := echo(c, []byte("e"), ever); err == nil {
			t.Errorf("cut: %q", got)
		}
		c.Close()
	}
	p.set(pass, 0)
	p.holdBack(true)
	marker := []byte{0, 0, 0, 2, 0, writeTxnMarkers}
	c = dial()
	if got, _ := echo(c, marker, soon); len(got) > 0 || p.marked.Load() != 1 {
		t.Errorf("a marker that is held back: %q", got)
	}
	p.holdBack(false)
	c.SetReadDeadline(time.Now().Add(ever)) //nolint:errcheck // as above
	buf := make([]byte, len(marker))
	if _, err := io.ReadFull(c, buf); err != nil || !bytes.Equal(buf, marker) {
		t.Errorf("a marker that is let go: %q %v", buf, err)
	}
}

// And it finds what a core system must not be told, or is to be told once.
func TestTheHarnessFindsWrongTelling(t *testing.T) {
	counts := func(post string, revision, impressions, unique int64) call {
		var c call
		c.Type, c.Data.Tenant = "impressions.changed", tenant
		c.Data.Posts = append(c.Data.Posts, struct {
			Post     string `json:"post"`
			Revision int64  `json:"revision"`
			told
		}{post, revision, told{impressions, unique}})
		return c
	}
	passed := func(post string, at, impressions int64) call {
		var c call
		c.Type, c.Data.Tenant, c.Data.Post, c.Data.Milestone, c.Data.Impressions = "impressions.milestone", tenant, post, at, impressions
		return c
	}
	type said struct {
		id   string
		body call
	}
	good := []said{
		{"c1", counts("a", 1, 4, 4)}, {"c3", counts("a", 3, 12, 9)}, {"m1", passed("a", 10, 12)},
		{"m1", passed("a", 10, 12)}, {"c2", counts("a", 2, 9, 9)}, {"c3", counts("a", 3, 12, 9)}, // again, and out of order
	}
	want := &expectation{posts: map[string]*postExpectation{"a": {impressions: 12, unique: 9}}}
	for _, tt := range []struct {
		what string
		more []said
		want string // part of the problem
	}{
		{"nothing", nil, ""},
		{"a lower count", []said{{"c4", counts("a", 4, 11, 9)}, {"c5", counts("a", 5, 12, 9)}}, "revision 4 lowers a"},
		{"fewer viewers", []said{{"c4", counts("a", 4, 12, 8)}, {"c5", counts("a", 5, 12, 9)}}, "revision 4 lowers a"},
		{"another value", []said{{"c4", counts("a", 2, 10, 9)}}, "revision 2 of a was"},
		{"an id that is given twice", []said{{"c3", counts("b", 3, 12, 9)}}, "the id c3 stood for"},
		{"a milestone with two ids", []said{{"m2", passed("a", 10, 12)}}, "was called as m1, and as m2"},
		{"a milestone that was not passed", []said{{"m3", passed("a", 100, 100)}}, "milestone 100 of a"},
		{"one that comes too early", []said{{"m1", passed("a", 10, 9)}}, "was called at 9"},
		{"a post that is unknown", []said{{"c4", counts("b", 1, 1, 1)}}, "impressions of b at the core system: 1, must be 0"},
		{"more than was counted", []said{{"c4", counts("a", 4, 13, 9)}}, "impressions of a at the core system: 13, must be 12"},
	} {
		c := &core{posts: map[string]*post{}, ids: map[string]string{}, called: map[milestone]string{}}
		for _, s := range append(slices.Clone(good), tt.more...) {
			c.take(s.id, s.body)
		}
		if err := c.reached(want); err != nil {
			t.Errorf("%s: %v", tt.what, err)
		}
		var f finding
		c.check(want, &f)
		if text := strings.Join(f.problems, "\n"); tt.want == "" && text != "" || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %q is not found among\n%s", tt.what, tt.want, text)
		}
	}
	c := &core{posts: map[string]*post{}, ids: map[string]string{}, called: map[milestone]string{}}
	if c.reached(want) == nil {
		t.Error("a core system that was told nothing has everything")
	}
	c.take("c1", counts("a", 1, 12, 9))
	if c.reached(want) == nil {
		t.Error("a milestone that was not called is not missed")
	}
}

// A core system refuses what is not signed.
func TestTheHarnessFindsAWrongSignature(t *testing.T) {
	c := newCore(t)
	c.secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	resp, err := http.Post("http://"+c.addr, "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || len(c.problems) != 1 {
		t.Errorf("status %d, %v", resp.StatusCode, c.problems)
	}
}
