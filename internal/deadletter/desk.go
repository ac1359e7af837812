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

// Chosen is a letter with the version that it is of.
type Chosen struct {
	Name Name
	Of   projections.ReadModel
	projections.Letter
}

// KeyText is the letter's record key for people.
func (c Chosen) KeyText() string { return KeyText(c.Partition.Topic, c.Key) }

// filters are the selection's, one per projection, of its live version, with no limit yet.
func (d *Desk) filters(ctx context.Context, sel Selection) ([]projections.LetterFilter, error) {
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
		if err := d.known(n.Projection); err != nil {
			return nil, err
		}
		places[n.Projection] = append(places[n.Projection], n.LetterPlace)
	}
	if sel.Projection != "" {
		if err := d.known(sel.Projection); err != nil {
			return nil, err
		}
	}
	models, err := d.live(ctx)
	if err != nil {
		return nil, err
	}
	var out []projections.LetterFilter
	for _, m := range models {
		if sel.Projection != "" && m.Name() != sel.Projection || len(sel.Names) > 0 && len(places[m.Name()]) == 0 {
			continue
		}
		out = append(out, projections.LetterFilter{Of: m, Tenant: sel.Tenant, Keys: keys, Places: places[m.Name()]})
	}
	return out, nil
}

// live are the versions that readers see. A letter of another version is dealt with when that version is live.
func (d *Desk) live(ctx context.Context) (models []projections.ReadModel, err error) {
	err = d.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
		models, err = projections.Live(ctx, q, d.deps.Projections)
		return err
	})
	return models, err
}

// known refuses the name of a projection that this program does not have.
func (d *Desk) known(name string) error {
	known := make([]string, len(d.deps.Projections))
	for i, p := range d.deps.Projections {
		if p.Name() == name {
			return nil
		}
		known[i] = p.Name()
	}
	return domain.Invalid("projection", "there is no projection %q; there are %s", name, strings.Join(known, ", "))
}
