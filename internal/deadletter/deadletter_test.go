package deadletter

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/projectiontest"
)

// TestRedriveKilledAnywhere ends a redrive at its first step, the next at its second, and so on, until one gets
// through: then all is as if nothing had ever been parked.
func TestRedriveKilledAnywhere(t *testing.T) {
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed %d", seed)
	w := newWorld(t, seed)
	projectiontest.PostsAndMembers(w.log, false)
	want := w.sound()
	w.deliver(w.everyTenth())
	if n := len(w.names()); n < 10 {
		t.Fatalf("only %d letters are parked", n)
	}
	runs := 0
	for n := 1; ; n++ {
		runs++
		w.steps.left = n
		err := w.desk.Redrive(t.Context(), Selection{}, func(Tried) {})
		if err == nil {
			break
		}
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
	}
	w.steps.left = 0
	if got := w.dump(); got != want {
		t.Errorf("after %d runs the tables are\n%s\nwant\n%s", runs, got, want)
	}
	if runs < 8 {
		t.Errorf("only %d runs", runs)
	}
}

// TestRedriveBesideAProjector redrives again and again while a projector with a fault goes on parking.
func TestRedriveBesideAProjector(t *testing.T) {
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed %d", seed)
	w := newWorld(t, seed)
	projectiontest.PostsAndMembers(w.log, false)
	want := w.sound()
	parks := w.everyTenth()
	done := make(chan error)
	go func() {
		for _, b := range w.log.Batches(w.log.Rand, w.log.Parts(), func() int { return 7 }) {
			if err := w.d.Deliver(t.Context(), parks, b); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		w.redrive(Selection{Projection: "posts"})
	}
	w.redrive(Selection{})
	if got := w.dump(); got != want {
		t.Errorf("the tables are\n%s\nwant\n%s", got, want)
	}
}

// TestRedriveSelections: a letter does not pass an earlier one of its key, and nothing else is touched.
func TestRedriveSelections(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Append(published("a", "first"))
	w.log.Append(published("a", "second"))
	w.log.Append(published("b", "other"))
	w.log.AppendPoison(domain.TopicPosts, projectiontest.Post("c").Key(), errors.New("the value is no event"))
	w.log.Append(published("c", "behind"))
	w.deliver(faulty{w.p, refuseEvents("first", "other")})
	l, err := w.desk.List(t.Context(), Selection{Key: "demo/a"}, 10)
	if err != nil || len(l.Letters) != 2 {
		t.Fatalf("%+v, %v", l, err)
	}
	first, second := l.Letters[0].Name, l.Letters[1].Name
	shown, err := w.desk.Show(t.Context(), first)
	if err != nil || shown.Now != nil || shown.Record.Event.EventType() != "PostPublished" || len(shown.Behind) != 1 || shown.Behind[0].Name != second {
		t.Errorf("shown %+v, %v", shown, err)
	}
	if fates, _ := w.redrive(Selection{Names: []Name{second}}); fates[projections.FateWaits] != 1 || len(fates) != 1 {
		t.Errorf("the second alone: %v", fates)
	}
	if fates, _ := w.redrive(Selection{Tenant: "acme"}); len(fates) != 0 {
		t.Errorf("another tenant: %v", fates)
	}
	if fates, _ := w.redrive(Selection{Names: []Name{first}}); fates[projections.FateApplied] != 1 || len(fates) != 1 {
		t.Errorf("the first alone: %v", fates)
	}
	fates, _ := w.redrive(Selection{Key: "demo/c"})
	if fates[projections.FatePoison] != 1 || fates[projections.FateApplied] != 0 {
		t.Errorf("a key that stays broken: %v", fates)
	}
	if fates, _ := w.redrive(Selection{}); fates[projections.FateApplied] != 2 || fates[projections.FatePoison] != 1 {
		t.Errorf("all: %v", fates)
	}
	if n := len(w.names()); n != 2 {
		t.Errorf("%d letters stay", n)
	}
	if dump := w.dump(); strings.Count(dump, `outcome="created"`) != 2 || strings.Count(dump, `outcome="unchanged"`) != 1 {
		t.Errorf("the tables are\n%s", dump)
	}
	if err := w.desk.Redrive(t.Context(), Selection{Projection: "likes"}, func(Tried) {}); domain.CodeOf(err) != domain.CodeInvalid {
		t.Errorf("no projection of that name: %v", err)
	}
}

// TestRedriveWithoutALog: what is gone stays parked and says why; what the table keeps of an unreadable record is
// enough once it can be read.
func TestRedriveWithoutALog(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Append(published("a", "first"))
	w.log.Append(published("a", "second"))
	topic, key, event := published("b", "kept")
	w.log.AppendPoison(topic, key, errors.New("the value is no event"))
	w.deliver(faulty{w.p, refuseEvents("first")})
	for part, records := range w.log.Records {
		for _, r := range records {
			w.gone[part.At(r.Offset)] = true
		}
	}
	fates, _ := w.redrive(Selection{Key: "demo/a"})
	if fates[projections.FatePoison] != 2 || len(fates) != 1 {
		t.Errorf("gone: %v", fates)
	}
	if _, last := w.redrive(Selection{Key: "demo/a"}); !strings.Contains(last.Reason, "the log was cut off") || !strings.Contains(last.Reason, "discard") {
		t.Errorf("it says %q", last.Reason)
	}
	if n := len(w.names()); n != 3 {
		t.Errorf("%d letters are left", n)
	}
	w.desk.deps.Decode = func(_ domain.Topic, gotKey, value []byte) (domain.Event, error) {
		if string(gotKey) != string(key) || len(value) != 1 || value[0] != 0xff {
			t.Errorf("asked to decode %q %x", gotKey, value)
		}
		return event, nil
	}
	if fates, _ := w.redrive(Selection{Key: "demo/b"}); fates[projections.FateApplied] != 1 {
		t.Errorf("kept: %v", fates)
	}
	if dump := w.dump(); strings.Count(dump, `outcome="created"`) != 1 {
		t.Errorf("the tables are\n%s", dump)
	}
}

// TestRedriveOfAnotherRecord: a log that was cut off and has grown again holds other records at the same offsets.
func TestRedriveOfAnotherRecord(t *testing.T) {
	for name, change := range map[string]func(*domain.Record){
		"another key":  func(r *domain.Record) { r.Key = projectiontest.Post("z").Key() },
		"another time": func(r *domain.Record) { r.Time = r.Time.Add(time.Millisecond) },
		"another type": func(r *domain.Record) {
			r.Event = domain.PostDeleted{PostRef: projectiontest.Post("a"), EventID: domain.EventID{1}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, first := parkedPair(t)
			for part := range w.log.Records {
				change(&w.log.Records[part][0])
			}
			fates, _ := w.redrive(Selection{})
			if fates[projections.FatePoison] != 1 || fates[projections.FateWaits] != 1 || w.applied() {
				t.Errorf("fates %v", fates)
			}
			if shown, err := w.desk.Show(t.Context(), first); err != nil || shown.Record != nil || !strings.Contains(shown.Gone, "another record") {
				t.Errorf("shown %+v, %v", shown, err)
			}
		})
	}
}

// TestRedriveOfAnErasedText: a text that was parked and erased meanwhile does not come back.
func TestRedriveOfAnErasedText(t *testing.T) {
	w := newWorld(t, 1)
	post := projectiontest.Post("a")
	for n, erased := range []bool{true, false} {
		id := domain.EventID{1, byte(n)}
		w.log.Append(domain.TopicBodies, post.BodyKey(id), domain.PostBodyWritten{PostRef: post, EventID: id, Text: "text"})
		if erased {
			w.log.Append(domain.TopicBodies, post.BodyKey(id), domain.PostBodyErased{PostRef: post, EventID: id})
		}
	}
	want := w.sound()
	w.deliver(faulty{w.p, func(r domain.Record) bool { return r.Event.EventType() == "PostBodyWritten" }})
	if fates, _ := w.redrive(Selection{}); fates[projections.FateOvertaken] != 1 || fates[projections.FateApplied] != 1 {
		t.Errorf("fates %v", fates)
	}
	if got := w.dump(); got != want {
		t.Errorf("the tables are\n%s\nwant\n%s", got, want)
	}
}

// TestRedriveWaitsForTheProjector: while a transaction holds the partition's position nothing is redriven, and two
// redrives at once apply each event once.
func TestRedriveWaitsForTheProjector(t *testing.T) {
	w, _ := parkedPair(t)
	conn, err := w.d.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "SELECT FROM positions FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	const operators = 2
	ended := make(chan error, operators)
	var applied atomic.Int64
	for range operators {
		go func() {
			ended <- w.desk.Redrive(t.Context(), Selection{}, func(t Tried) {
				if t.Fate == projections.FateApplied {
					applied.Add(1)
				}
			})
		}()
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for waiting := 0; waiting < operators; {
		select {
		case err := <-ended:
			t.Fatalf("it did not wait: %v", err)
		case <-ticker.C:
			if err := w.d.Pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(w.names()); n != 2 || w.applied() {
		t.Errorf("%d letters are there, while the projector writes", n)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range operators {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if n := applied.Load(); n != 2 || len(w.names()) != 0 {
		t.Errorf("%d were applied, %v are left", n, w.names())
	}
}
