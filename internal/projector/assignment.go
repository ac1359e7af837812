package projector

import (
	"context"
	"fmt"
	"slices"

	"seenby/domain"
	"seenby/projections"
)

// sync makes owned what the group assigns: what is lost is dropped; what is new, or unsure, starts at its
// position in PostgreSQL.
func (p *Projector) sync(ctx context.Context) (changed <-chan struct{}, err error) {
	assigned, changed := p.source.Assignment()
	var lost, gained []domain.Partition
	for part := range p.owned {
		if !slices.Contains(assigned, part) {
			lost = append(lost, part)
			delete(p.owned, part)
		}
	}
	if len(lost) > 0 {
		p.source.Drop(lost)
		p.log.InfoContext(ctx, "partitions lost", "partitions", len(lost))
	}
	for _, part := range assigned {
		if p.owned[part] == nil || p.unsure {
			gained = append(gained, part)
		}
	}
	if len(gained) == 0 {
		p.unsure = false
		return changed, nil
	}
	at, err := p.load(ctx, gained)
	if err != nil {
		return changed, err
	}
	if err := p.source.Seek(ctx, at); err != nil {
		return changed, fmt.Errorf("go to the positions: %w", err)
	}
	p.unsure = false
	p.publish(nil) // from here on the lag is known, whenever the first batch comes
	p.log.InfoContext(ctx, "reading from positions", "partitions", len(gained))
	return changed, nil
}

// load reads the positions of partitions into owned, making those that are missing.
func (p *Projector) load(ctx context.Context, parts []domain.Partition) ([]domain.Position, error) {
	var rows []projections.PositionRow
	err := p.store.InTx(ctx, func(ctx context.Context, tx projections.Tx) (err error) {
		if err := projections.InsertMissing(ctx, tx, p.model, parts); err != nil {
			return err
		}
		rows, err = projections.PositionsOf(ctx, tx, p.model)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load positions: %w", err)
	}
	at := make([]domain.Position, 0, len(parts))
	gone := slices.Clone(parts)
	for _, row := range rows {
		if !slices.Contains(parts, row.In()) {
			continue
		}
		if o := p.owned[row.In()]; o != nil {
			o.row = row
		} else {
			p.owned[row.In()] = &partition{row: row}
		}
		at = append(at, row.Position)
		gone = slices.DeleteFunc(gone, func(part domain.Partition) bool { return part == row.In() })
	}
	for _, part := range gone { // the version was dropped, and this projector is about to be told
		delete(p.owned, part)
	}
	p.source.Drop(gone)
	return at, nil
}
