package deadletter

import (
	"context"
	"math"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// Tried is a letter and what a redrive made of it.
type Tried struct {
	Name Name
	Key  string
	projections.Redriven
}

// Redrive tries the chosen letters again, batch after batch, and tells each letter's fate after its batch. Of the
// followers of a letter that stays, only those in the same batch are told. It ends early with an error of the log or
// the database: what was told is done then, and the rest can be asked again.
func (d *Desk) Redrive(ctx context.Context, sel Selection, told func(Tried)) error {
	filters, err := d.filters(ctx, sel)
	if err != nil {
		return err
	}
	in, err := d.deps.Log.Installation(ctx)
	if err != nil {
		return err
	}
	for _, f := range filters {
		if err := d.redriveAll(ctx, f, in.Discards[f.Of.Name()], told); err != nil {
			return err
		}
	}
	return nil
}

// redriveAll goes through a projection's chosen letters, a partition after the other.
func (d *Desk) redriveAll(ctx context.Context, f projections.LetterFilter, discards map[domain.Position]domain.Discard, told func(Tried)) error {
	f.Limit = d.batchLettersMax
	var at domain.Partition
	for {
		var page []projections.Letter
		err := d.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
			page, err = projections.Letters(ctx, q, f)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		batch := d.batchOf(f.Of, page)
		last := batch[len(batch)-1]
		if last.Partition != at {
			at, f.Without = last.Partition, nil // keys are stuck in their own partition
		}
		fates, err := d.redrive(ctx, batch, discards)
		if err != nil {
			return err
		}
		for i, fate := range fates {
			told(Tried{batch[i].Name, batch[i].KeyText(), fate})
			if fate.Stays() && fate.OrderKey != "" {
				f.Without = append(f.Without, fate.OrderKey)
			}
		}
		f.After = last.Position()
	}
}

// batchOf is the beginning of a page that fits into one transaction: of one partition, and not too large.
func (d *Desk) batchOf(m projections.ReadModel, page []projections.Letter) []Chosen {
	var batch []Chosen
	bytes := 0
	for _, l := range page {
		bytes += max(0, l.ValueBytes)
		if len(batch) > 0 && (l.Partition != page[0].Partition || bytes > d.batchBytesMax) {
			break
		}
		batch = append(batch, Chosen{NameOf(m, l), m, l})
	}
	return batch
}

const (
	// triesMax is how often a transaction is tried that PostgreSQL could not do just then.
	triesMax = 5
	// tryAgainFirst doubles from try to try.
	tryAgainFirst = 200 * time.Millisecond
)

// redrive tries one batch, and gives the fates in its order.
func (d *Desk) redrive(ctx context.Context, batch []Chosen, discards map[domain.Position]domain.Discard) ([]projections.Redriven, error) {
	records, gone, err := d.read(ctx, batch)
	if err != nil {
		return nil, err
	}
	w := projections.Redriving{In: batch[0].Partition, Records: records, Discarded: map[int64]bool{}, Overtaken: d.overtaken(batch)}
	for _, l := range batch {
		w.Offsets = append(w.Offsets, l.Offset)
		if _, decided := discards[l.Position()]; decided {
			w.Discarded[l.Offset] = true
		}
	}
	if w.Overtaken != nil {
		// Most of it before the lock, so that little is left to read under it.
		if _, err := w.Overtaken(ctx, math.MaxInt64); err != nil {
			return nil, err
		}
	}
	var fates []projections.Redriven
	if err := d.insist(ctx, func() error {
		return d.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) (err error) {
			fates, err = projections.Redrive(ctx, tx, batch[0].Of, w)
			return err
		})
	}); err != nil {
		return nil, err
	}
	of := make(map[int64]projections.Redriven, len(fates))
	for _, f := range fates {
		if _, have := records[f.Offset]; !have && f.Fate == projections.FatePoison && gone != "" {
			f.Reason += ": " + gone + ". Restore the log, or discard the letter"
		}
		of[f.Offset] = f
	}
	ordered := make([]projections.Redriven, len(batch))
	for i, l := range batch {
		ordered[i] = of[l.Offset]
	}
	return ordered, nil
}

// insist tries again what may work later. Whether a commit without an answer took place shows the next try: its letters
// are absent.
func (d *Desk) insist(ctx context.Context, f func() error) error {
	wait := tryAgainFirst
	for try := 1; ; try++ {
		err := f()
		if domain.CodeOf(err) != domain.CodeUnavailable || try == triesMax {
			return err
		}
		d.deps.Logger.Warn("retrying", "err", err, "wait", wait)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		wait *= 2
	}
}
