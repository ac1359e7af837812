package deadletter

import (
	"context"

	"seenby/domain"
	"seenby/projections"
)

// Listing is what stands parked.
type Listing struct {
	Counts  map[string]projections.LetterCount // by projection, of all that was chosen
	Letters []Chosen                           // at most as many as asked for, in the order of projections, partitions and offsets
	More    bool                               // there are others
}

// List lists letters, at most limit, and counts all that are chosen, on one snapshot.
func (d *Desk) List(ctx context.Context, sel Selection, limit int) (Listing, error) {
	filters, err := d.filters(ctx, sel)
	if err != nil {
		return Listing{}, err
	}
	out := Listing{Counts: map[string]projections.LetterCount{}}
	err = d.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		for _, f := range filters {
			n, err := projections.CountFiltered(ctx, q, f)
			if err != nil {
				return err
			}
			out.Counts[f.Of.Name()] = n
			f.Limit = limit - len(out.Letters)
			letters, err := projections.Letters(ctx, q, f)
			if err != nil {
				return err
			}
			for _, l := range letters {
				out.Letters = append(out.Letters, Chosen{NameOf(f.Of, l), f.Of, l})
			}
			out.More = out.More || n.Letters+n.Follow > int64(len(letters))
		}
		return nil
	})
	return out, err
}

// Shown is one letter, and what this program makes of it.
type Shown struct {
	Chosen
	Record     *domain.Record // nil: neither the log nor the table holds it
	Gone       string         // then: why
	Now        error          // why this program cannot apply it either; nil: it could
	Discard    *domain.Discard
	Behind     []Chosen // the first that follow it, with its key
	BehindMore bool
}

// behindMax is how many followers are shown.
const behindMax = 20

// Show gives one letter with its record, read again.
func (d *Desk) Show(ctx context.Context, name Name) (Shown, error) {
	letters, err := d.find(ctx, []Name{name})
	if err != nil {
		return Shown{}, err
	}
	if len(letters) == 0 {
		return Shown{}, d.missing(ctx, name)
	}
	out := Shown{Chosen: letters[0]}
	records, gone, err := d.read(ctx, letters)
	if err != nil {
		return Shown{}, err
	}
	if r, ok := records[name.Offset]; ok {
		out.Record = &r
		if out.Now = r.Err; out.Now == nil {
			out.Now = out.Of.Check(r)
		}
	} else {
		out.Gone = gone
	}
	in, err := d.deps.Log.Installation(ctx)
	if err != nil {
		return Shown{}, err
	}
	if by, decided := in.Discards[name.Projection][letters[0].Position()]; decided {
		out.Discard = &by
	}
	out.Behind, out.BehindMore, err = d.behind(ctx, out.Chosen)
	return out, err
}

// behind gives the first letters that follow one.
func (d *Desk) behind(ctx context.Context, c Chosen) (behind []Chosen, more bool, err error) {
	if c.OrderKey == "" {
		return nil, false, nil
	}
	err = d.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		letters, err := projections.Letters(ctx, q, projections.LetterFilter{Of: c.Of, Follow: &c.Letter, Limit: behindMax + 1})
		for _, l := range letters {
			behind = append(behind, Chosen{NameOf(c.Of, l), c.Of, l})
		}
		return err
	})
	if len(behind) > behindMax {
		return behind[:behindMax], true, err
	}
	return behind, false, err
}

// find gives the letters of these names that stand. One name stands for several letters where a topic was made anew.
func (d *Desk) find(ctx context.Context, names []Name) ([]Chosen, error) {
	found, err := d.List(ctx, Selection{Names: names}, 2*len(names))
	return found.Letters, err
}

// missing says what is known of a letter that is not there.
func (d *Desk) missing(ctx context.Context, name Name) error {
	in, err := d.deps.Log.Installation(ctx)
	if err != nil {
		return err
	}
	if by, decided := decision(in, name); decided {
		return domain.Errorf(domain.CodeNotFound, "%s was discarded by %s at %s: %s", name, by.By, by.At.UTC().Format(timeForm), by.Reason)
	}
	return domain.Errorf(domain.CodeNotFound, "there is no dead letter %s; it may have been redriven", name)
}

const timeForm = "2006-01-02T15:04:05Z"

func decision(in *domain.Installation, name Name) (domain.Discard, bool) {
	for at, by := range in.Discards[name.Projection] {
		if at.Topic == name.Topic && at.Partition == name.Partition && at.NextOffset == name.Offset {
			return by, true
		}
	}
	return domain.Discard{}, false
}
