package projector_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"seenby/domain"
	"seenby/internal/projector"
	"seenby/projections"
)

func TestFollowsTheLogAndGoesOnAfterARestart(t *testing.T) {
	d, l := open(t), newLog()
	l.count(part0, "a", 20)
	l.count(part1, "a", 10)
	source := l.source(part0, part1)
	stop := start(t, newProjector(source, d))
	d.waitTally(t, "a", 30)
	l.count(part1, "a", 3)
	d.waitTally(t, "a", 33)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l.count(part0, "a", 5)
	start(t, newProjector(l.source(part0, part1), d))
	d.waitTally(t, "a", 38)
}

func TestSkipsVerdictsOfViewsThatHaveOne(t *testing.T) {
	d, l := open(t), newLog()
	l.count(part0, "a", 10)
	for i := range int64(10) {
		l.append(part0, "a", &domain.Verdict{Post: "a", ViewOffset: i})
	}
	l.count(part0, "b", 1)
	start(t, newProjector(l.source(part0), d))
	d.waitTally(t, "b", 1)
	d.waitTally(t, "a", 10)
}

// gate holds one transaction of a store back until it is let through.
type gate struct {
	projector.Store
	armed   atomic.Bool
	reached chan struct{}
	open    chan struct{}
}

func (g *gate) InTx(ctx context.Context, f func(context.Context, projections.Tx) error) error {
	if g.armed.CompareAndSwap(true, false) {
		close(g.reached)
		<-g.open
	}
	return g.Store.InTx(ctx, f)
}

// A projector that lost its partition while it was about to write writes nothing.
func TestAZombieWritesNothing(t *testing.T) {
	d, l := open(t), newLog()
	l.count(part0, "a", 1)
	g := &gate{Store: d, reached: make(chan struct{}), open: make(chan struct{})}
	old := l.source(part0)
	start(t, newProjector(old, g))
	d.waitTally(t, "a", 1)
	g.armed.Store(true)
	l.count(part0, "a", 5)
	<-g.reached // with some or all of the five, or a complete_to, in hand
	stop := start(t, newProjector(l.source(part0), d))
	d.waitTally(t, "a", 6)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	old.assign() // the group took it away
	close(g.open)
	wait(t, func() bool { return old.reading() == 0 })
	d.waitTally(t, "a", 6)
}

// patientSource waits for records for as long as it is let.
type patientSource struct{ *fakeSource }

func (s patientSource) Poll(ctx context.Context, eventsMax int) (b domain.Batch, err error) {
	for len(b.Next) == 0 && err == nil {
		b, err = s.fakeSource.Poll(ctx, eventsMax)
	}
	return b, err
}

// A partition that comes while the others have nothing new is read at once: the wait for records ends.
func TestANewPartitionIsNotWaitedFor(t *testing.T) {
	d, l := open(t), newLog()
	l.count(part0, "a", 1)
	l.count(part1, "b", 1)
	source := l.source(part0)
	start(t, newProjector(patientSource{source}, d))
	d.waitTally(t, "a", 1)
	source.assign(part0, part1)
	d.waitTally(t, "b", 1)
	source.assign(part1)
	wait(t, func() bool { return source.reading() == 1 })
}

// Two projectors that both believe in a partition get in each other's way and count nothing twice.
func TestTwoProjectorsOfOnePartition(t *testing.T) {
	d, l := open(t), newLog()
	start(t, newProjector(l.source(part0), d))
	start(t, newProjector(l.source(part0), d))
	for n := int64(1); n <= 10; n++ {
		l.count(part0, "a", 20)
		d.waitTally(t, "a", 20*n)
	}
}

// flaky commits and then says that it does not know.
type flaky struct {
	projector.Store
	n atomic.Int64
}

func (f *flaky) InTx(ctx context.Context, do func(context.Context, projections.Tx) error) error {
	err := f.Store.InTx(ctx, do)
	if err == nil && f.n.Add(1)%2 == 0 {
		return domain.Errorf(domain.CodeUnavailable, "the answer to COMMIT is lost")
	}
	return err
}

func TestALostAnswerToCommitRepeatsNothing(t *testing.T) {
	d, l := open(t), newLog()
	l.count(part0, "a", 50)
	l.count(part1, "a", 50)
	l.count(part1, "b", 1)
	start(t, newProjector(l.source(part0, part1), &flaky{Store: d}))
	d.waitTally(t, "b", 1)
	d.waitTally(t, "a", 100)
}

func TestPoisonIsParkedWithItsFollowersAndOthersGoOn(t *testing.T) {
	d, l := open(t), newLog()
	l.append(part0, "k", &domain.Verdict{Post: "before", ViewOffset: 0})
	l.append(part0, "k", &domain.Verdict{Post: "", ViewOffset: 1})
	l.append(part0, "k", &domain.Verdict{Post: "after", ViewOffset: 2})
	l.count(part0, "other", 30)
	l.append(part0, "k", &domain.Verdict{Post: "after", ViewOffset: 33}) // in a later batch
	l.count(part0, "end", 1)
	start(t, newProjector(l.source(part0), d))
	d.waitTally(t, "end", 1)
	d.waitTally(t, "before", 1)
	d.waitTally(t, "other", 30)
	d.waitTally(t, "after", 0)
	if n := d.number(t, "SELECT count(*) FROM dead_letters WHERE projection = 'tally'"); n != 3 {
		t.Errorf("%d letters are parked, not 3", n)
	}
	if n := d.number(t, "SELECT count(*) FROM dead_letters WHERE follows"); n != 2 {
		t.Errorf("%d letters follow another, not 2", n)
	}
}

// stops runs a projector to its end by itself.
func stops(t *testing.T, d *database, l *fakeLog, code domain.Code, names string) {
	t.Helper()
	p := newProjector(l.source(part0), d)
	err := p.Run(t.Context())
	if domain.CodeOf(err) != code || !strings.Contains(err.Error(), names) {
		t.Fatalf("stopped with %q (%s), not with %s that names %q", err, domain.CodeOf(err), code, names)
	}
	if s := p.Status(); !s.Stopped || !errors.Is(s.Err, err) || len(s.Partitions) != 0 {
		t.Errorf("stopped, it says %+v", s)
	}
}

func TestStops(t *testing.T) {
	t.Run("on data that only PostgreSQL refuses", func(t *testing.T) {
		d, l := open(t), newLog()
		l.count(part0, "a", 7)
		l.count(part0, "refused", 1)
		stops(t, d, l, domain.CodeInternal, "verdicts partition 0 offsets 7 to 7")
		d.waitTally(t, "a", 7)
	})
	t.Run("on an event of an unknown type", func(t *testing.T) {
		d, l := open(t), newLog()
		l.append(part0, "k", domain.ViewRetracted{})
		stops(t, d, l, domain.CodeMisconfigured, "verdicts partition 0 offset 0")
	})
	t.Run("on a position that the log no longer holds", func(t *testing.T) {
		d, l := open(t), newLog()
		l.start = 5
		stops(t, d, l, domain.CodeDataLoss, "starts at 5")
	})
	t.Run("on a topic made anew", func(t *testing.T) {
		d, l := open(t), newLog()
		d.exec(t, "INSERT INTO positions (projection, version, topic_id, partition, topic) VALUES ('tally', 1, gen_random_uuid(), 0, 'verdicts')")
		stops(t, d, l, domain.CodeDataLoss, "made anew")
	})
}

// With more poison than allowed the projector parks as much as it may, stands still before the next, says so, and goes
// on by itself once there is room.
func TestStandsStillAtTheLimit(t *testing.T) {
	d, l := open(t), newLog()
	l.count(part0, "before", 1)
	for i := range small.LettersMax + 2 {
		l.append(part0, fmt.Sprint("k", i), &domain.Verdict{ViewOffset: i + 1})
	}
	l.count(part0, "end", 1)
	p := newProjector(l.source(part0), d)
	start(t, p)
	stands := func(offset int64) {
		t.Helper()
		wait(t, func() bool {
			s := p.Status()
			return s.Stopped && s.Err != nil && strings.Contains(s.Err.Error(), fmt.Sprintf("partition 0 offset %d ", offset))
		})
		if code := domain.CodeOf(p.Status().Err); code != domain.CodeTooLarge {
			t.Errorf("it stands for %s", code)
		}
		if n := d.number(t, "SELECT count(*) FROM dead_letters"); n != small.LettersMax {
			t.Errorf("%d letters are parked, not the %d allowed", n, small.LettersMax)
		}
		if n := d.number(t, "SELECT next_offset FROM positions"); n != offset {
			t.Errorf("it stands at %d, not at %d", n, offset)
		}
	}
	stands(small.LettersMax + 1)
	d.exec(t, "DELETE FROM dead_letters WHERE record_offset = 3")
	stands(small.LettersMax + 2)
	d.waitTally(t, "before", 1)
	d.exec(t, "DELETE FROM dead_letters WHERE record_offset = 5")
	d.waitTally(t, "end", 1)
	wait(t, func() bool { s := p.Status(); return !s.Stopped && s.Err == nil })
}

// Two projectors that park at the same time do not pass the limit together.
func TestTheLimitHoldsForTwoAtOnce(t *testing.T) {
	d := open(t)
	park := func(part domain.Partition, then func()) error {
		return d.InTx(t.Context(), func(ctx context.Context, tx projections.Tx) error {
			if err := projections.InsertMissing(ctx, tx, tallies, []domain.Partition{part}); err != nil {
				return err
			}
			_, err := projections.Write(ctx, tx, tallies, projections.Work{
				Moves: []projections.Move{{From: part.At(0), NextOffset: 1}}, ParkedAt: time.Now(), LettersMax: 1,
				Records: []domain.Record{{Partition: part, Event: &domain.Verdict{}}},
			})
			then()
			return err
		})
	}
	second := make(chan error, 1)
	if err := park(part0, func() {
		go func() { second <- park(part1, func() {}) }()
		wait(t, func() bool {
			return len(second) > 0 || d.number(t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
		})
	}); err != nil {
		t.Fatal(err)
	}
	var full *projections.Full
	if err := <-second; !errors.As(err, &full) || full.Record.Partition != part1 {
		t.Errorf("the second: %v", err)
	}
	if n := d.number(t, "SELECT count(*) FROM dead_letters"); n != 1 {
		t.Errorf("%d letters are parked", n)
	}
}

// An app that goes on writing the post of one poisoned event must not stop the others.
func TestFollowersAreNotLimited(t *testing.T) {
	d, l := open(t), newLog()
	l.append(part0, "k", &domain.Verdict{Post: "", ViewOffset: 0})
	for i := range small.LettersMax + 5 {
		l.append(part0, "k", &domain.Verdict{Post: "a", ViewOffset: i + 1})
	}
	l.append(part0, "other", &domain.Verdict{Post: "other", ViewOffset: small.LettersMax + 6})
	start(t, newProjector(l.source(part0), d))
	d.waitTally(t, "other", 1)
}

// On a silent log the read model is complete to a later time every second, also where no view was ever reported.
func TestAsOfAdvancesWhenIdle(t *testing.T) {
	d, l := open(t), newLog()
	l.count(part0, "a", 3)
	source := l.source(part0, part1)
	p := newProjector(source, d)
	start(t, p)
	asOf := func() time.Time {
		at, err := d.AsOf(t.Context(), "tally")
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	wait(t, func() bool { return !asOf().IsZero() })
	first := asOf()
	wait(t, func() bool { return asOf().After(first) })
	d.waitTally(t, "a", 3)
	wait(t, func() bool {
		source.mu.Lock()
		defer source.mu.Unlock()
		return len(source.commits) == 2
	})

	// A view without a verdict yet holds it back.
	l.mu.Lock()
	l.viewEnds[0]++
	l.mu.Unlock()
	reported := time.Now()
	var rounds int
	for last := asOf(); rounds < 2; rounds++ {
		wait(t, func() bool { // the other partition goes on
			return d.number(t, "SELECT count(*) FROM positions WHERE partition = 1 AND complete_to > '"+last.Add(time.Second).Format(time.RFC3339Nano)+"'") == 1
		})
		last = last.Add(time.Second)
	}
	wait(t, func() bool { return p.Status().Partitions[0].Lag > 0 })
	if at := asOf(); at.After(reported) {
		t.Errorf("complete to %v although a view of %v has no verdict", at, reported)
	}
	l.append(part0, "a", &domain.Verdict{Post: "a", ViewOffset: 3})
	wait(t, func() bool { return asOf().After(reported) })
	for _, ps := range p.Status().Partitions {
		if ps.LagEvents != 0 || ps.Lag != 0 {
			t.Errorf("lag of %+v", ps)
		}
	}
}

// away is a store that cannot be reached.
type away struct{ calls []time.Time }

func (a *away) InTx(ctx context.Context, _ func(context.Context, projections.Tx) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // as a store does: the end has cut a pause short, and this is no attempt
	}
	a.calls = append(a.calls, time.Now())
	return domain.Errorf(domain.CodeUnavailable, "PostgreSQL cannot be reached")
}

// While PostgreSQL is away the projector tries for ever, at most RetryMax apart, says so, and stops at once when
// it is told to. In fake time.
func TestRetriesWithABoundedPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &away{}
		p := projector.New(tallies, newLog().source(part0), a, projector.Config{}, slog.New(slog.DiscardHandler), time.Now, projector.Hooks{})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(a.calls); n < 300 || n > 650 {
			t.Errorf("%d attempts in ten minutes", n)
		}
		for i := 1; i < len(a.calls); i++ {
			if pause := a.calls[i].Sub(a.calls[i-1]); pause > 2*time.Second || pause < 50*time.Millisecond {
				t.Errorf("attempt %d came after %v", i, pause)
			}
		}
	})
}

// TestADroppedVersionIsLeftQuietly: whose positions are gone with their version stops reading, and neither fails nor tries
// again and again until it is told.
func TestADroppedVersionIsLeftQuietly(t *testing.T) {
	d, log := open(t), newLog()
	source := log.source(part0, part1)
	var retries atomic.Int64
	p := projector.New(tallies, source, d, small, slog.New(slog.DiscardHandler), time.Now, projector.Hooks{Retrying: func(error) { retries.Add(1) }})
	stop := start(t, p)
	log.count(part0, "p", 3)
	d.waitTally(t, "p", 3)
	d.exec(t, `BEGIN;
		INSERT INTO read_model_versions (projection, version, fold_version, followed) VALUES ('tally', 2, 1, true);
		UPDATE read_models SET live_version = 2 WHERE projection = 'tally';
		DELETE FROM positions WHERE projection = 'tally';
		DELETE FROM read_model_versions WHERE projection = 'tally' AND version = 1;
		DROP SCHEMA tally_v1 CASCADE;
		COMMIT`)
	log.count(part0, "p", 1)
	log.count(part1, "p", 1)
	wait(t, func() bool { return source.reading() == 0 })
	log.count(part0, "p", 1)
	wait(t, func() bool { return p.Status().Err == nil })
	if n := retries.Load(); n > 2 {
		t.Errorf("it tried %d times again", n)
	}
	if err := stop(); err != nil {
		t.Errorf("it failed: %v", err)
	}
}
