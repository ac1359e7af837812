package relay

import (
	"errors"
	"maps"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// What was counted before there was a relay is told once, and calls no milestone; what is seen later does.
func TestFirstStart(t *testing.T) {
	w := newWorld(t)
	w.view("old0", 4)
	w.view("old1", 100)
	o := w.relay(0, 1)
	w.wants("the first look", "old0", 1, 4)
	w.wants("the first look", "old1", 1, 100)
	o.later()
	w.wants("nothing new", "old0", 1, 4)
	w.view("old0", 1)
	o.later()
	w.wants("one view more", "old0", 2, 5, 5)
	w.view("old1", 1)
	o.later()
	w.wants("a view of what was beyond all milestones", "old1", 2, 101)
	if n := w.number("SELECT count(*) FROM relay_milestones"); n != 1 {
		t.Errorf("%d calls of milestones wait", n)
	}
}

// A post that is seen before the first look has come to it has a history all the same.
func TestFirstStartMeetsViews(t *testing.T) {
	w := newWorld(t)
	w.view("old0", 4)
	o := w.idle()
	w.see("other1", 1) // the first look waits for the read models to have this
	o.g.assign(0, 1)
	o.rounds(3)
	w.see("old0", 1)
	w.count("old0", 1)
	w.count("other1", 1)
	w.fold()
	o.rounds(1)
	w.wants("in the round of the first look", "old0", 1, 5)
}

// While the look at every post is under way, a mark alone is no reason to call what was passed long ago.
func TestMarkBeforeFirstLook(t *testing.T) {
	w := newWorld(t)
	w.exec(`INSERT INTO impressions_v1.impressions (tenant, post, shard, impressions, anonymous_impressions) SELECT 'shop', 'a' || lpad(n::text, 5, '0'), 0, 1, 0 FROM generate_series(1, 4100) n`)
	w.view("z0", 4)
	o := w.idle()
	o.g.assign(0, 1)
	o.rounds(1) // opened, and the first page looked at
	w.view("z0", 1)
	o.rounds(1)
	w.wants("marked before it was looked at", "z0", 1, 5)
	o.rounds(8)
	w.wants("looked at", "z0", 1, 5)
}

// Marks wait for both read models of verdicts.
func TestMarksWait(t *testing.T) {
	w := newWorld(t)
	o := w.relay(0, 1)
	w.see("p0", 2)
	w.count("p0", 2)
	o.later()
	w.wants("no read model has it", "p0", 0, 0)
	w.exec("UPDATE positions SET next_offset = 2 WHERE projection = 'impressions' AND partition = 0")
	o.later()
	w.wants("one read model has it", "p0", 0, 0)
	w.fold()
	o.rounds(1)
	w.wants("both have it", "p0", 1, 2)
	told := w.kafka.told("p0")[0]
	if told.UniqueViewers != 2 || !told.AsOf.Equal(w.clock()) {
		t.Errorf("told was %+v", told)
	}
	w.kafka.append(part(domain.TopicPosts, 1), domain.CountsImported{PostRef: key("q1")})
	w.exec(`INSERT INTO posts_v1.posts (tenant, post, version, deleted, author, audience, baseline_impressions, baseline_as_of) VALUES ('shop', 'q1', 0, false, $1, '', 7, now())`, make([]byte, 16))
	o.later()
	w.wants("imported, and not folded", "q1", 0, 0)
	w.fold()
	o.rounds(2)
	w.wants("imported", "q1", 1, 7)
}

// A post is told at once, and then once a second.
func TestOncePerSecond(t *testing.T) {
	w := newWorld(t)
	o := w.relay(0, 1)
	w.view("p0", 1)
	o.rounds(1)
	w.wants("at once", "p0", 1, 1)
	for range 9 {
		w.view("p0", 1)
		w.pass(tick)
		o.rounds(1)
	}
	w.wants("within a second", "p0", 1, 1)
	w.pass(tick)
	o.rounds(1)
	w.wants("after a second", "p0", 2, 10, 3, 5, 8)
}

// The answer to a commit is lost: it is folded from the topic, told once and its milestones are called once.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t)
	o := w.relay(0, 1)
	w.view("p0", 1)
	o.later()
	for _, f := range []fault{unheard, unsent} {
		w.exec("DELETE FROM relay_milestones")
		told := len(w.kafka.told("p0"))
		struckOnce := false
		w.kafka.strike = func(n int32) fault {
			if n != 0 || struckOnce {
				return well
			}
			struckOnce = true
			return f
		}
		w.view("p0", 3)
		w.view("q1", 1)
		w.pass(time.Second)
		if err := o.once(); !errors.Is(err, errAway) {
			t.Fatalf("the round ended with %v", err)
		}
		w.wants("the other partition", "q1", int64(told), int64(told))
		w.pass(2 * time.Second)
		o.rounds(6)
		w.wants("after a lost answer", "p0", int64(told)+1, 1+3*int64(told), [][]int64{{3}, {5}}[told-1]...)
		if n := w.number("SELECT count(*) FROM relay_milestones"); n != 1 {
			t.Errorf("%d calls of milestones wait", n)
		}
		if n := w.number("SELECT revision FROM relay_counts WHERE post = 'p0'"); n != int64(told)+1 {
			t.Errorf("the table has revision %d", n)
		}
	}
}

// What stands in the log and could not be folded, or whose fold was not heard of, is folded by whoever opens the partition.
func TestFoldFails(t *testing.T) {
	for _, done := range []bool{false, true} {
		w := newWorld(t)
		o := w.relay(0, 1)
		w.view("p0", 4)
		failed := false
		w.store.set(func() {
			w.store.strike = func() (before, after error) {
				switch {
				case failed:
				case done:
					failed, after = true, errAway
				default:
					failed, before = true, errAway
				}
				return before, after
			}
		})
		w.pass(time.Second)
		if err := o.once(); !errors.Is(err, errAway) {
			t.Fatalf("the round ended with %v", err)
		}
		w.pass(2 * time.Second)
		o.rounds(6)
		w.wants("after a fold that failed", "p0", 1, 4, 3)
		if n := w.number("SELECT count(*) FROM relay_milestones WHERE milestone = 3"); n != 1 {
			t.Errorf("%d calls of the milestone wait", n)
		}
		w.view("p0", 1)
		o.later()
		w.wants("later", "p0", 2, 5, 5)
	}
}

// One that is fenced writes nothing more, and the other one tells what it did not.
func TestFenced(t *testing.T) {
	w := newWorld(t)
	a := w.relay(0, 1)
	w.view("p0", 1)
	a.rounds(1)
	b := w.relay(0)
	w.view("p0", 1)
	w.view("q1", 1)
	w.pass(time.Second)
	if err := a.once(); domain.CodeOf(err) != domain.CodeConflict {
		t.Errorf("the round of the one that is fenced ended with %v", err)
	}
	w.wants("fenced", "p0", 1, 1)
	w.wants("not fenced", "q1", 1, 1)
	b.rounds(2)
	w.wants("by the other one", "p0", 2, 2)
	a.g.assign(1)
	a.later()
	b.later()
	w.view("p0", 1)
	w.view("q1", 1)
	a.later()
	b.later()
	w.wants("by the other one", "p0", 3, 3, 3)
	w.wants("by the one", "q1", 2, 2)
}

// Two that take a partition from each other, at any time, lose nothing and repeat no revision.
func TestAlternating(t *testing.T) {
	w := newWorld(t)
	a, b := w.idle(), w.idle()
	sum := 0
	for i := range 8 {
		of, other := a, b
		if i%2 == 1 {
			of, other = b, a
		}
		w.view("p0", 1)
		w.see("q1", 1) // on its way at the handing over
		other.g.assign()
		of.g.assign(0, 1)
		of.rounds(1 + i%3)
		w.count("q1", 1)
		w.fold()
		w.pass(time.Second)
		_ = other.once() // it has not heard of it, or has
		of.rounds(i % 2)
		sum++
	}
	a.g.assign()
	b.g.assign(0, 1)
	b.rounds(4)
	b.later()
	for _, post := range []string{"p0", "q1"} {
		told := w.kafka.told(post)
		if last := told[len(told)-1]; last.Impressions != int64(sum) {
			t.Errorf("%s: %d of %d are told", post, last.Impressions, sum)
		}
		for i, e := range told {
			if e.Revision != int64(i)+1 {
				t.Errorf("%s: revision %d is the %dth", post, e.Revision, i+1)
			}
		}
	}
}

// A partition that comes later has its marks looked for from where they begin for it, though the others were read further
// and their marks wait for a read model.
func TestPartitionComesLater(t *testing.T) {
	w := newWorld(t)
	b := w.relay(1)
	a := w.relay(0)
	a.later()
	b.later()
	w.see("p0", 1) // waits at a
	a.rounds(1)
	b.rounds(1)
	w.fold() // for b there was nothing to tell: its marks are written behind this
	w.exec("UPDATE positions SET next_offset = 0 WHERE projection = 'impressions'")
	b.later()
	b.later()
	w.see("q1", 1)
	a.rounds(1)
	b.g.assign()
	b.rounds(1)
	a.g.assign(0, 1)
	a.rounds(3)
	w.count("p0", 1)
	w.count("q1", 1)
	w.fold()
	a.later()
	w.wants("marked before its partition came", "q1", 1, 1)
	w.wants("its own", "p0", 1, 1)
}

// A batch that is on its way while a partition comes was looked through without it.
func TestPartitionComesWhileReading(t *testing.T) {
	w := newWorld(t)
	b := w.relay(1)
	a := w.relay(0)
	a.later()
	b.later()
	b.g.assign()
	b.rounds(1)
	w.see("q1", 1)
	a.g.assign(0, 1)
	a.follow(t.Context())
	a.await()
	mine, taken := a.reading.mine, false
	a.reading.mine = func(post domain.PostKey) bool {
		is := mine(post)
		if !taken {
			taken = true
			if err := a.step(t.Context()); err != nil { // the partition is taken up
				t.Error(err)
			}
		}
		return is
	}
	if err := a.reading.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.rounds(1)
	if !taken {
		t.Error("nothing was read")
	}
	w.count("q1", 1)
	w.fold()
	a.later()
	w.wants("read while its partition came", "q1", 1, 1)
}

// After a swap only posts that differ are told, and nothing is written down before they are.
func TestSwap(t *testing.T) {
	w := newWorld(t)
	w.view("same0", 2)
	w.view("less1", 5)
	w.view("more0", 2)
	o := w.relay(0, 1)
	o.later()
	w.swap()
	w.exec("UPDATE impressions_v2.impressions SET impressions = 4 WHERE post IN ('less1', 'more0')")
	o.later()
	w.wants("before the swap", "more0", 1, 2)
	live := "SELECT count(*) FROM relay_partitions WHERE live_versions LIKE '%impressions_v2%'"
	w.view("busy0", 1)
	w.pass(time.Second)
	w.show()
	w.pass(time.Second)
	o.rounds(8)
	w.wants("after the swap", "same0", 1, 2)
	w.wants("after the swap", "more0", 2, 4, 3)
	w.wants("after the swap", "less1", 2, 4)
	o.later()
	o.later()
	if n := w.number(live); n != 2 {
		t.Errorf("%d partitions have the new version written down", n)
	}
	commits := w.kafka.commits
	again := w.relay(0, 1)
	again.later()
	if w.kafka.commits != commits {
		t.Error("the next one tells something")
	}
}

// What was being told before the swap is not enough to write the swap down.
func TestSwapIsWrittenDownLast(t *testing.T) {
	w := newWorld(t)
	w.view("p0", 1)
	w.view("q0", 1)
	o := w.relay(0, 1)
	o.later()
	o.later()
	w.view("p0", 1)
	o.rounds(1)
	w.pass(markEvery - tick)
	w.view("p0", 1)
	o.rounds(1) // due in a moment, and marks are to be written after it
	w.pass(tick / 2)
	o.marked = time.Time{}
	o.rounds(1)
	if o.safe == nil || o.safe.left != 1 {
		t.Fatalf("marks that wait: %+v", o.safe)
	}
	w.swap()
	w.exec("UPDATE impressions_v2.impressions SET impressions = 9 WHERE post = 'q0'")
	w.show()
	// The new version is behind what was told of q0.
	w.exec("UPDATE positions SET complete_to = 'epoch' WHERE projection = 'impressions' AND version = 2")
	o.rounds(6)
	o.done(key("p0")) // as if it were told
	o.rounds(2)
	if n := w.number("SELECT count(*) FROM relay_partitions WHERE live_versions LIKE '%impressions_v2%'"); n != 0 {
		t.Errorf("%d partitions have the new version written down before q0 was told", n)
	}
	w.fold()
	o.later()
	o.later()
	w.wants("then", "q0", 2, 9, 3, 5, 8)
	if n := w.number("SELECT count(*) FROM relay_partitions WHERE live_versions LIKE '%impressions_v2%'"); n != 2 {
		t.Errorf("%d partitions have the new version written down", n)
	}
}

// A partition that goes and comes in the middle of a look at every post begins its look again.
func TestPartitionComesDuringSweep(t *testing.T) {
	w := newWorld(t)
	w.exec(`INSERT INTO impressions_v1.impressions (tenant, post, shard, impressions, anonymous_impressions) SELECT 'shop', 'a' || lpad(n::text, 5, '0'), 0, 1, 0 FROM generate_series(1, 4100) n`)
	w.fold()
	o := w.idle()
	o.g.assign(0, 1)
	w.kafka.strike = func(n int32) fault {
		if n == 0 {
			return unsent
		}
		return well
	}
	if err := o.once(); !errors.Is(err, errAway) || o.sweep == nil {
		t.Fatalf("the round ended with %v, and the look at every post is %v", err, o.sweep)
	}
	w.kafka.strike = nil
	w.pass(2 * time.Second)
	o.rounds(12)
	o.later()
	o.later()
	if n := w.number("SELECT count(*) FROM relay_counts"); n != 4100 {
		t.Errorf("%d of 4100 posts are told", n)
	}
}

// A read model that is behind what was told takes nothing back.
func TestBehind(t *testing.T) {
	w := newWorld(t)
	w.view("p0", 5)
	o := w.relay(0, 1)
	o.later()
	told := w.clock()
	w.pass(-time.Minute)
	w.exec("UPDATE impressions_v1.impressions SET impressions = 2")
	w.see("p0", 1)
	w.fold()
	w.pass(2 * time.Minute)
	o.rounds(3)
	o.later()
	w.wants("behind", "p0", 1, 5)
	w.exec("UPDATE impressions_v1.impressions SET impressions = 6")
	w.exec("UPDATE positions SET complete_to = $1", told.Add(time.Second))
	o.later()
	w.wants("caught up", "p0", 2, 6)
}

// Tables that were lost come back from the topic: revisions go on, and old milestones are not called, also where the first
// attempt to read it fails in the middle.
func TestLostTables(t *testing.T) {
	for _, fails := range []bool{false, true} {
		w := newWorld(t)
		o := w.relay(0, 1)
		for _, post := range []string{"p0", "q0", "r0", "s0"} {
			w.view(post, 1)
			o.later()
			w.view(post, 3)
			o.later()
		}
		o.g.assign()
		o.rounds(1)
		w.exec("TRUNCATE relay_partitions, relay_counts, relay_cursors, relay_endpoints, relay_milestones, relay_resends")
		again := w.idle()
		if fails {
			w.kafka.reading = func(n int) error {
				if n == 1 {
					return errAway
				}
				return nil
			}
			again.g.assign(0, 1)
			if err := again.once(); !errors.Is(err, errAway) {
				t.Fatalf("the round ended with %v", err)
			}
			w.kafka.reading = nil
			w.pass(2 * time.Second)
		}
		again.assign(0, 1)
		if n := w.number("SELECT count(*) FROM relay_milestones"); n != 0 {
			t.Errorf("%d old milestones are called", n)
		}
		w.view("p0", 1)
		again.later()
		w.wants("after the loss", "p0", 3, 5, 5)
		if n := w.number("SELECT count(*) FROM relay_milestones"); n != 1 {
			t.Errorf("%d new milestones are called", n)
		}
	}
}

// What an operator wants told again is, once, above what the core has.
func TestResends(t *testing.T) {
	w := newWorld(t)
	w.view("p0", 4)
	w.view("q1", 1)
	o := w.relay(0, 1)
	o.later()
	err := w.store.InTx(t.Context(), func(ctx ctx, tx projections.Tx) error {
		return resend(ctx, tx, []wish{{key("p0"), 0, 99}, {key("q1"), 1, 0}, {key("none0"), 0, 0}})
	})
	if err != nil {
		t.Fatal(err)
	}
	o.later()
	o.later()
	w.wants("above the core's", "p0", 100, 4)
	w.wants("above its own", "q1", 2, 1)
	w.wants("nothing was counted", "none0", 1, 0)
	if n := w.number("SELECT count(*) FROM relay_resends"); n != 0 {
		t.Errorf("%d wishes are left", n)
	}
}

// Wishes of a tenant that was closed do not stand in others' way.
func TestResendsOfClosed(t *testing.T) {
	w := newWorld(t)
	o := w.relay(0, 1)
	w.exec(`INSERT INTO relay_resends (tenant, post, partition, above) SELECT 'closed', 'p' || n, 0, 0 FROM generate_series(1, $1) n`, resendMax)
	w.exec(`INSERT INTO relay_resends (tenant, post, partition, above) VALUES ('shop', 'p0', 0, 4)`)
	o.later()
	w.wants("an open tenant's", "p0", 5, 0)
}

// Of a closed tenant nothing is told, and what waits of it holds nothing up.
func TestClosedTenant(t *testing.T) {
	w := newWorld(t)
	o := w.relay(0, 1)
	w.view("p0", 1)
	w.tenants.change(func() { delete(w.tenants.relays, shop) })
	o.later()
	w.pass(doubtFor)
	o.later()
	w.wants("closed", "p0", 0, 0)
	o.later()
	if n := w.number("SELECT marked_to[2] FROM relay_partitions WHERE partition = 0"); n != 1 {
		t.Errorf("written down is %d", n)
	}
}

// A view may come before this process has read of its tenant.
func TestNewTenant(t *testing.T) {
	w := newWorld(t)
	o := w.relay(0, 1)
	relays := maps.Clone(w.tenants.relays)
	w.tenants.change(func() { delete(w.tenants.relays, shop) })
	w.view("p0", 1)
	o.later()
	w.wants("not known yet", "p0", 0, 0)
	w.tenants.change(func() { w.tenants.relays = relays })
	o.later()
	o.later()
	w.wants("known", "p0", 1, 1)
}

// Where the log no longer holds what marks posts, every post is looked at.
func TestDataLoss(t *testing.T) {
	w := newWorld(t)
	w.view("p0", 1)
	w.relay(0, 1).later()
	w.view("p0", 1)
	w.view("p0", 1)
	w.kafka.starts[part(domain.TopicVerdicts, 0)] = 3
	g := &group{}
	g.assign(0, 1)
	r := New(w.deps(g))
	wantStarted(t, r)
	eventually(t, "the count to be told", func() bool { w.pass(50 * time.Millisecond); return len(w.kafka.told("p0")) == 2 })
	w.wants("looked at", "p0", 2, 3, 3)
	eventually(t, "the relay to be ready", func() bool { return r.Ready() == nil })
}

// Whoever thinks that a partition stands elsewhere than it does writes nothing to the tables, of no partition.
func TestFoldComparesAndSets(t *testing.T) {
	w := newWorld(t)
	w.tell(0, "a0", "b1")
	e := domain.ImpressionsChanged{PostRef: key("a0"), Impressions: 99, Revision: 2}
	for _, from := range []int64{0, 2} {
		moves := []move{{part(domain.TopicImpressions, 1).At(1), 5}, {part(domain.TopicImpressions, 0).At(from), 6}}
		err := w.store.InTx(t.Context(), func(ctx ctx, tx projections.Tx) error { return fold(ctx, tx, moves, []record{{e, 0, 5}}, nil) })
		if domain.CodeOf(err) != domain.CodePositionBehind {
			t.Errorf("from %d: %v", from, err)
		}
	}
	if n := w.number("SELECT sum(next_offset) + (SELECT max(impressions) FROM relay_counts) FROM relay_partitions"); n != 1+1+10 {
		t.Errorf("the tables have %d", n)
	}
}
