package erasure

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seenby/domain"
)

var part = domain.Partition{Topic: domain.TopicPeople}

func ref(name string) domain.PersonRef {
	r := domain.PersonRef{Tenant: "acme"}
	copy(r.Person[:], name)
	return r
}

// topic is the topic people in memory, with one partition; every follower reads it from the start, and what
// followers append stands in it.
type topic struct {
	mu      sync.Mutex
	records []domain.Record
	appends int
	refused int   // appends that are still to fail
	broken  error // ends the following
	slow    int   // polls of each following that take a second
}

func (l *topic) add(key []byte, e domain.Event, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(key, e, at)
}

func (l *topic) put(key []byte, e domain.Event, at time.Time) {
	r := domain.Record{Partition: part, Offset: int64(len(l.records)), Time: at, Key: key, Event: e}
	if e == nil {
		r.Err = errors.New("bytes")
	}
	l.records = append(l.records, r)
}

func (l *topic) named(name string) {
	l.add(ref(name).Key(), domain.PersonNamed{Ref: ref(name), ID: name}, time.Now())
}

func (l *topic) erased(name string, at time.Time) {
	l.add(ref(name).ErasedKey(), domain.PersonErased{Ref: ref(name), ErasedAt: at}, at)
}

func (l *topic) forgotten(name string) {
	l.add(ref(name).Key(), domain.PersonForgotten{Ref: ref(name)}, time.Now())
}

func (l *topic) Append(_ context.Context, events ...domain.Event) ([]domain.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused > 0 {
		l.refused--
		return nil, domain.Errorf(domain.CodeUnavailable, "Kafka did not answer")
	}
	for _, e := range events {
		l.appends++
		l.put(e.(domain.PersonForgotten).Ref.Key(), e, time.Now())
	}
	return []domain.Position{part.At(int64(len(l.records)))}, nil
}

// Follow polls, as the real one does, a record at a time.
func (l *topic) Follow(ctx context.Context, name domain.Topic, apply func(domain.Batch) error, caughtUp func()) error {
	if name != domain.TopicPeople {
		return errors.New("another topic")
	}
	next, caught := 0, false
	for polls := 0; ; polls++ {
		if polls > 1 && polls < l.slow {
			<-time.After(time.Second)
		}
		b, err := l.poll(&next)
		if err != nil {
			return err
		}
		if err := apply(b); err != nil {
			return err
		}
		if len(b.Records) > 0 {
			continue
		}
		if !caught {
			caught = true
			caughtUp()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func (l *topic) poll(next *int) (b domain.Batch, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return b, l.broken
	}
	if *next < len(l.records) {
		b.Records = l.records[*next : *next+1]
		*next++
	}
	return b, nil
}

// names are those whom the topic still names: the last record of their key is no tombstone.
func (l *topic) names() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]bool{}
	for _, r := range l.records {
		switch e := r.Event.(type) {
		case domain.PersonNamed:
			out[e.ID] = true
		case domain.PersonForgotten:
			for name := range out {
				if ref(name) == e.Ref {
					delete(out, name)
				}
			}
		}
	}
	return out
}

func (l *topic) follow(t *testing.T) *Marks {
	t.Helper()
	m := NewMarks(l, l, time.Now, slog.New(slog.DiscardHandler))
	go m.Run(t.Context()) //nolint:errcheck // it ends with the test
	synctest.Wait()
	return m
}

func TestMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, noon := &topic{}, time.Now().UTC().Truncate(time.Microsecond)
		l.named("ann")
		l.named("bob")
		l.erased("ann", noon.Add(-time.Hour))
		l.forgotten("ann")
		l.erased("ann", noon) // by two apis at once: the first date stands
		l.forgotten("ann")
		l.add(ref("eve").ErasedKey(), nil, noon.Add(-time.Minute)) // what it holds cannot be read, its key can
		l.forgotten("eve")
		l.add([]byte("strange"), nil, noon)
		unread := NewMarks(l, l, time.Now, slog.New(slog.DiscardHandler))
		if err := unread.Check(t.Context()); domain.CodeOf(err) != domain.CodeUnavailable {
			t.Errorf("before the topic was read: %v", err)
		}
		m := l.follow(t)
		if err := m.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]time.Time{"ann": noon.Add(-time.Hour), "eve": noon.Add(-time.Minute), "bob": {}} {
			if at, erased := m.ErasedAt(ref(name)); erased == want.IsZero() || !at.Equal(want) {
				t.Errorf("%s: %v, %v; want %v", name, at, erased, want)
			}
		}
		if _, erased := m.ErasedAt(domain.PersonRef{Tenant: "other", Person: ref("ann").Person}); erased {
			t.Error("another tenant's person is erased, too")
		}
		// What this process appended counts before it is read back; what others append, once it is read.
		m.Note(domain.PersonErased{Ref: ref("bob"), ErasedAt: noon})
		l.erased("cid", noon)
		l.forgotten("cid")
		<-time.After(time.Second)
		for _, name := range []string{"bob", "cid"} {
			if _, erased := m.ErasedAt(ref(name)); !erased {
				t.Errorf("%s is not erased", name)
			}
		}
		<-time.After(time.Minute)
		if l.appends != 0 {
			t.Errorf("%d tombstones, though none was missing", l.appends)
		}
	})
}

// TestUnfinishedErasures: what an erasure can leave undone is finished by those who follow, once each, and they rest.
func TestUnfinishedErasures(t *testing.T) {
	const followers = 3
	day := 24 * time.Hour
	for _, c := range []struct {
		name    string
		before  func(l *topic, now time.Time) // what stands when the followers start
		live    func(l *topic, now time.Time)
		missing int // tombstones that each may append at most
	}{
		{"finished before", func(l *topic, now time.Time) { l.named("ann"); l.erased("ann", now); l.forgotten("ann") }, nil, 0},
		{"died between mark and tombstone, and all were away", func(l *topic, now time.Time) { l.named("ann"); l.erased("ann", now.Add(-6*day)) }, nil, 1},
		{"the tombstone went with compaction", func(l *topic, now time.Time) { l.erased("ann", now.Add(-8*day)) }, nil, 0},
		{"a name raced, and all were away", func(l *topic, now time.Time) { l.erased("ann", now.Add(-9*day)); l.named("ann") }, nil, 1},
		{"died between mark and tombstone", nil, func(l *topic, now time.Time) { l.named("ann"); l.erased("ann", now) }, 1},
		{"a name raced", nil, func(l *topic, now time.Time) { l.erased("ann", now); l.forgotten("ann"); l.named("ann") }, 1},
		{"it raced and was settled by another", nil, func(l *topic, now time.Time) {
			l.erased("ann", now)
			l.forgotten("ann")
			l.named("ann")
			l.forgotten("ann")
		}, 0},
		{"an unreadable name raced", nil, func(l *topic, now time.Time) { l.erased("ann", now); l.add(ref("ann").Key(), nil, now) }, 1},
		{"the tombstone is a little behind", nil, func(l *topic, now time.Time) {
			l.erased("ann", now)
			time.AfterFunc(finishEvery/2, func() { l.forgotten("ann") })
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &topic{}
				l.named("bob")
				if c.before != nil {
					c.before(l, time.Now())
				}
				for range followers {
					l.follow(t)
				}
				if c.live != nil {
					c.live(l, time.Now())
				}
				<-time.After(time.Minute)
				if l.appends > followers*c.missing || (l.appends == 0) != (c.missing == 0) {
					t.Errorf("%d tombstones by %d followers", l.appends, followers)
				}
				if names := l.names(); len(names) != 1 || !names["bob"] {
					t.Errorf("the topic names %v", names)
				}
				was := l.appends
				l.follow(t) // and whoever starts later finds nothing to do
				<-time.After(time.Minute)
				if l.appends != was {
					t.Errorf("a later follower appended %d more", l.appends-was)
				}
			})
		})
	}
}

// A name that was read while its person's tombstone was on its way may stand behind that tombstone.
func TestNameBehindOurTombstone(t *testing.T) {
	m := NewMarks(nil, nil, time.Now, slog.New(slog.DiscardHandler))
	m.caughtUp = true
	name := domain.Record{Key: ref("ann").Key(), Event: domain.PersonNamed{Ref: ref("ann"), ID: "ann"}}
	m.Note(domain.PersonErased{Ref: ref("ann"), ErasedAt: time.Now()})
	m.apply(domain.Batch{Records: []domain.Record{name}})
	_, seen := m.due(nil)
	due, seen := m.due(seen)
	m.apply(domain.Batch{Records: []domain.Record{name}})
	m.close(due, seen)
	if len(due) != 1 || len(m.open) != 1 {
		t.Errorf("%d due, %d open after the name was read again", len(due), len(m.open))
	}
}

// While Kafka takes no writes, the tombstones wait.
func TestKafkaTakesNoWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &topic{refused: 30}
		l.follow(t)
		l.erased("ann", time.Now())
		l.named("ann")
		<-time.After(time.Minute)
		if l.appends != 1 || l.names()["ann"] {
			t.Errorf("%d tombstones, the topic names %v", l.appends, l.names())
		}
	})
}

// What is known stays known while the topic is followed anew, and a name from before its mark is no raced one.
func TestFollowingAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &topic{}
		l.named("ann")
		l.erased("ann", time.Now().Add(-time.Minute))
		l.slow = 10 // records between name and tombstone that take a second each
		for range l.slow {
			l.named("bob")
		}
		l.forgotten("ann")
		m := NewMarks(l, l, time.Now, slog.New(slog.DiscardHandler))
		away := domain.Errorf(domain.CodeUnavailable, "Kafka did not answer")
		for range 2 {
			ended := make(chan error)
			go func() { ended <- m.Run(t.Context()) }()
			<-time.After(time.Minute)
			l.mu.Lock()
			l.broken = away
			l.mu.Unlock()
			if err := <-ended; !errors.Is(err, away) {
				t.Errorf("%v", err)
			}
			l.mu.Lock()
			l.broken = nil
			l.mu.Unlock()
			if _, erased := m.ErasedAt(ref("ann")); !erased || m.Check(t.Context()) != nil {
				t.Error("it forgot")
			}
		}
		if l.appends != 0 {
			t.Errorf("%d tombstones, though none was missing", l.appends)
		}
	})
}
