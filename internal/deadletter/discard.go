package deadletter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/projections"
)

// DiscardMax is how many letters one discard gives up: they are one transaction on tenants.
const DiscardMax = 1000

// Discarded is a letter that was given up.
type Discarded struct {
	Name   Name
	Key    string
	Behind bool // others wait behind it: the operator redrives them now
	Before bool // it was given up and gone before
}

// Discard gives letters up, for good, and records who decided it and why. All of the names must stand, or be given up
// already. It can be repeated after any error.
func (d *Desk) Discard(ctx context.Context, names []Name, by, reason string) ([]Discarded, error) {
	if err := tenancy.CheckDiscard(by, reason); err != nil {
		return nil, err
	}
	if len(names) > DiscardMax {
		return nil, domain.Errorf(domain.CodeTooLarge, "%d letters are more than the %d that can be discarded at once", len(names), DiscardMax)
	}
	letters, err := d.find(ctx, names)
	if err != nil {
		return nil, err
	}
	before, err := d.before(ctx, names, letters)
	if err != nil {
		return nil, err
	}
	if len(letters) == 0 {
		return before, nil
	}
	groups := group(letters)
	if err := d.mark(ctx, groups); err != nil {
		return nil, err
	}
	given := make([]tenancy.Discarded, len(letters))
	for i, l := range letters {
		given[i] = tenancy.Discarded{Projection: l.Name.Projection, Record: l.Position(), Key: l.Key}
	}
	if err := d.deps.Log.ChangeTenants(ctx, func(in *domain.Installation) ([]domain.Event, error) {
		return tenancy.Discard(in, d.deps.Now(), by, reason, given)
	}); err != nil {
		return nil, fmt.Errorf("record the decision; run the same discard again: %w", err)
	}
	if err := d.remove(ctx, groups); err != nil {
		return nil, fmt.Errorf("the decision is recorded, the letters are still there; run the same discard again: %w", err)
	}
	out := before
	for _, l := range letters {
		behind, _, err := d.behind(ctx, l)
		if err != nil {
			return nil, fmt.Errorf("the letters are discarded; what waits behind them is not known: %w", err)
		}
		out = append(out, Discarded{Name: l.Name, Key: l.KeyText(), Behind: len(behind) > 0})
	}
	return out, nil
}

// before are the names that do not stand because they were discarded; another one that does not stand is an error.
func (d *Desk) before(ctx context.Context, names []Name, letters []Chosen) ([]Discarded, error) {
	stands := map[Name]bool{}
	for _, l := range letters {
		stands[l.Name] = true
	}
	var out []Discarded
	var unknown []string
	var in *domain.Installation
	for _, n := range names {
		if stands[n] {
			continue
		}
		if in == nil {
			var err error
			if in, err = d.deps.Log.Installation(ctx); err != nil {
				return nil, err
			}
		}
		if _, decided := decision(in, n); decided {
			out = append(out, Discarded{Name: n, Before: true})
		} else {
			unknown = append(unknown, n.String())
		}
	}
	if len(unknown) > 0 {
		return nil, domain.Errorf(domain.CodeNotFound, "there is no dead letter %s; it may have been redriven. Nothing was discarded", strings.Join(unknown, ", "))
	}
	return out, nil
}

// place is what one lock covers.
type place struct {
	of        projections.ReadModel
	partition domain.Partition
}

// group gives the letters' offsets by what has to be locked for them.
func group(letters []Chosen) map[place][]int64 {
	groups := map[place][]int64{}
	for _, l := range letters {
		at := place{l.Of, l.Partition}
		groups[at] = append(groups[at], l.Offset)
	}
	return groups
}

// each calls f for every group in a transaction, in the order in which everybody locks.
func (d *Desk) each(ctx context.Context, groups map[place][]int64, f func(context.Context, projections.Tx, projections.ReadModel, domain.Partition, []int64) error) error {
	places := slices.SortedFunc(maps.Keys(groups), func(a, b place) int {
		if c := strings.Compare(a.of.Name(), b.of.Name()); c != 0 {
			return c
		}
		return domain.ComparePartitions(a.partition, b.partition)
	})
	return d.insist(ctx, func() error {
		return d.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			for _, at := range places {
				if err := f(ctx, tx, at.of, at.partition, groups[at]); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// mark marks all of the letters or none.
func (d *Desk) mark(ctx context.Context, groups map[place][]int64) error {
	return d.each(ctx, groups, func(ctx context.Context, tx projections.Tx, m projections.ReadModel, in domain.Partition, offsets []int64) error {
		all, err := projections.MarkDiscarding(ctx, tx, m, in, offsets)
		if err == nil && !all {
			err = domain.Errorf(domain.CodeConflict, "some of the letters were redriven or discarded meanwhile; nothing was discarded: list them again")
		}
		return err
	})
}

// remove deletes the marked letters whose discard is decided.
func (d *Desk) remove(ctx context.Context, groups map[place][]int64) error {
	return d.each(ctx, groups, func(ctx context.Context, tx projections.Tx, m projections.ReadModel, in domain.Partition, offsets []int64) error {
		_, err := projections.DeleteDiscarded(ctx, tx, m, in, offsets)
		return err
	})
}
