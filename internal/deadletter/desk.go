package deadletter

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// Store is the database; its errors are classified.
type Store interface {
	InTx(ctx context.Context, f func(ctx context.Context, tx projections.Tx) error) error
	Snapshot(ctx context.Context, f func(ctx context.Context, q projections.Querier) error) error
}

// Log is Kafka.
type Log interface {
	// ReadAt reads records by their offsets; what the log does not hold is not in found, and gone says why.
	ReadAt(ctx context.Context, in domain.Partition, offsets []int64) (found map[int64]domain.Record, gone string, err error)
	// Scan reads a partition up to an offset, or to its end.
	Scan(ctx context.Context, from domain.Position, to int64, each func(domain.Record)) error
	// Installation folds the topic tenants to its end.
	Installation(ctx context.Context) (*domain.Installation, error)
	// ChangeTenants appends what decide says, in one transaction that nobody overtakes.
	ChangeTenants(ctx context.Context, decide func(*domain.Installation) ([]domain.Event, error)) error
}

// Deps are the parts that a desk is joined with.
type Deps struct {
	Store       Store
	Log         Log
	Decode      func(topic domain.Topic, key, value []byte) (domain.Event, error)
	Projections []projections.Projection
	Now         func() time.Time
	Logger      *slog.Logger // for retries; nil: none
}

// Desk is where an operator works on dead letters. Safe for concurrent use, by several processes too.
type Desk struct {
	deps Deps
	// batchLettersMax is how many letters one transaction tries, and batchBytesMax how much of their values may be in
	// memory: the projector of the partition waits meanwhile.
	batchLettersMax int
	batchBytesMax   int
}

const (
	batchLettersMax = 500
	batchBytesMax   = 16 << 20
)

// New makes a desk. It does not touch the network.
func New(deps Deps) *Desk {
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	return &Desk{deps: deps, batchLettersMax: batchLettersMax, batchBytesMax: batchBytesMax}
}

// Selection chooses letters. The zero value is all of them.
type Selection struct {
	Names      []Name // none: all
	Projection string // empty: all
	Tenant     domain.TenantID
	Key        string // as KeyText writes it; empty: all
}

// Chosen is a letter with its projection.
type Chosen struct {
	Name Name
	projections.Letter
}

// KeyText is the letter's record key for people.
func (c Chosen) KeyText() string { return KeyText(c.Partition.Topic, c.Key) }

// filters are the selection's, one per projection, with no limit yet.
func (d *Desk) filters(sel Selection) ([]filtered, error) {
	var keys [][]byte
	var err error
	if sel.Key != "" {
		if keys, err = ParseKey(sel.Key); err != nil {
			return nil, err
		}
	}
	if sel.Tenant != "" {
		if err := domain.CheckTenantID(string(sel.Tenant)); err != nil {
			return nil, err
		}
	}
	places := map[string][]projections.LetterPlace{}
	for _, n := range sel.Names {
		if _, err := d.projection(n.Projection); err != nil {
			return nil, err
		}
		places[n.Projection] = append(places[n.Projection], n.LetterPlace)
	}
	if sel.Projection != "" {
		if _, err := d.projection(sel.Projection); err != nil {
			return nil, err
		}
	}
	var out []filtered
	for _, p := range d.deps.Projections {
		if sel.Projection != "" && p.Name() != sel.Projection || len(sel.Names) > 0 && len(places[p.Name()]) == 0 {
			continue
		}
		out = append(out, filtered{p, projections.LetterFilter{
			Projection: p.Name(), Version: p.Version(), Tenant: sel.Tenant, Keys: keys, Places: places[p.Name()],
		}})
	}
	return out, nil
}

type filtered struct {
	projection projections.Projection
	filter     projections.LetterFilter
}

func (d *Desk) projection(name string) (projections.Projection, error) {
	known := make([]string, len(d.deps.Projections))
	for i, p := range d.deps.Projections {
		if p.Name() == name {
			return p, nil
		}
		known[i] = p.Name()
	}
	return nil, domain.Invalid("projection", "there is no projection %q; there are %s", name, strings.Join(known, ", "))
}
