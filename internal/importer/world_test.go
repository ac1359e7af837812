package importer

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
)

var (
	now  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	shop = tenancy.TenantHandle{ID: "shop", Key: domain.TenantKey{7}}
)

// world is an installation in memory, whose topics have one partition.
type world struct {
	mu      sync.Mutex
	in      domain.Installation
	log     map[domain.Topic][]domain.Event
	erased  map[domain.PersonRef]bool
	gone    map[domain.PostID]bool
	fail    func(call string) (before, after error) // of every call
	records int
	runs    byte
	behind  bool // the read model of posts
}

func newWorld() *world {
	w := &world{log: map[domain.Topic][]domain.Event{}, erased: map[domain.PersonRef]bool{}, gone: map[domain.PostID]bool{}}
	w.in.Apply(domain.TenantCreated{Tenant: shop.ID, WrappedKey: []byte{1}, CreatedAt: now})
	return w
}

func (w *world) call(name string, f func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var before, after error
	if w.fail != nil {
		before, after = w.fail(name)
	}
	if before == nil {
		f()
	}
	if before == nil {
		return after
	}
	return before
}

func topicOf(e domain.Event) domain.Topic {
	switch e.(type) {
	case domain.PostEvent:
		return domain.TopicPosts
	case domain.ViewReported:
		return domain.TopicViews
	case domain.AudienceMemberAdded:
		return domain.TopicAudiences
	case domain.PersonNamed:
		return domain.TopicPeople
	case domain.PostBodyWritten:
		return domain.TopicBodies
	}
	panic("an import does not append a " + e.EventType())
}

func (w *world) end(topic domain.Topic) domain.Position {
	return domain.Position{Topic: topic, TopicID: domain.TopicID{topic[0]}, NextOffset: int64(len(w.log[topic]))}
}

func (w *world) Append(_ context.Context, events ...domain.Event) (out []domain.Position, err error) {
	err = w.call("append", func() {
		for _, e := range events {
			topic := topicOf(e)
			w.log[topic] = append(w.log[topic], e)
			out = []domain.Position{w.end(topic)}
		}
	})
	return out, err
}

func (w *world) Ends(_ context.Context, topic domain.Topic) (out []domain.Position, err error) {
	err = w.call("ends", func() { out = []domain.Position{w.end(topic)} })
	return out, err
}

func (w *world) ReadRanges(_ context.Context, from, to []domain.Position, apply func([]domain.Record) error) error {
	return w.call("read", func() {
		for _, e := range w.log[from[0].Topic][from[0].NextOffset:to[0].NextOffset] {
			if err := apply([]domain.Record{{Event: e}}); err != nil {
				panic(err)
			}
		}
	})
}

func (w *world) Installation(context.Context) (in *domain.Installation, err error) {
	err = w.call("installation", func() { in = &w.in })
	return in, err
}

func (w *world) ChangeTenants(_ context.Context, decide func(*domain.Installation) ([]domain.Event, error)) error {
	var decided error
	err := w.call("change", func() {
		var events []domain.Event
		events, decided = decide(&w.in)
		for _, e := range events {
			w.in.Apply(e)
			w.records++
		}
	})
	if decided != nil {
		return decided
	}
	return err
}

func (w *world) ErasedAt(ref domain.PersonRef) (time.Time, bool) { return now, w.erased[ref] }
func (w *world) Check(context.Context) error                     { return nil }

func (w *world) deleted(_ context.Context, _ domain.TenantID, _ []domain.PostID) (map[domain.PostID]bool, error) {
	return w.gone, nil
}

func (w *world) baselines(_ context.Context, _ []domain.PostKey, passing []domain.Position) (map[domain.PostKey]domain.Baseline, bool, error) {
	if w.behind && len(passing) > 0 {
		return nil, false, nil
	}
	states := map[domain.PostKey]domain.Post{}
	found := map[domain.PostKey]domain.Baseline{}
	for _, e := range w.log[domain.TopicPosts] {
		e := e.(domain.PostEvent)
		p := states[e.PostKey()]
		p.Apply(e, now)
		states[e.PostKey()], found[e.PostKey()] = p, p.Baseline
	}
	return found, true, nil
}

func (w *world) deps() Deps {
	return Deps{Log: w, Erasures: w, Now: func() time.Time { return now }, models: w, NewRun: func() domain.RunID {
		w.runs++
		return domain.RunID{w.runs}
	}}
}

// fileOf is a file with these lines, and the options to import it.
func fileOf(t *testing.T, what string, lines ...string) Options {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lines.ndjson")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Options{What: what, Tenant: shop, Source: Source{Path: path}, Rejected: path + ".rejected"}
}

func (w *world) run(t *testing.T, opts Options) Result {
	t.Helper()
	r, err := Run(t.Context(), w.deps(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rejectedOf(t *testing.T, opts Options) string {
	t.Helper()
	b, err := os.ReadFile(opts.Rejected)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}
