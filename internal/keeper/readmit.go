package keeper

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/projections/posts"
)

// advance looks for settled views and appends those that are proven to be unresolved. What it cannot do yet
// it does at a later call.
func (k *Keeper) advance(ctx context.Context) error {
	if err := k.rewind(ctx); err != nil {
		return err
	}
	if err := k.settle(ctx); err != nil {
		return err
	}
	if err := k.prove(ctx); err != nil {
		return err
	}
	err := k.readmit(ctx)
	if pending := k.deps.Hooks.Pending; pending != nil {
		n := 0
		for _, l := range k.ledgers {
			n += len(l.byOffset)
		}
		pending(n)
	}
	return err
}

// rewind reads again what ledgers had no room for, once they have.
func (k *Keeper) rewind(ctx context.Context) error {
	for _, l := range k.ledgers {
		l.tidy()
		at, ok := l.rewindTo()
		if !ok {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		err := k.deps.Source.Seek(ask, []domain.Position{at})
		cancel()
		if err != nil {
			return err // reading stands where it stood
		}
		l.rewound()
	}
	return nil
}

// settle asks the read model about views that wait, some of every partition.
func (k *Keeper) settle(ctx context.Context) error {
	var asked []*pending
	share := max(settleMax/max(len(k.ledgers), 1), 1)
	for _, l := range k.ledgers {
		asked = append(asked, l.unsettled(share)...)
	}
	if len(asked) == 0 {
		return nil
	}
	waits := make([]posts.Wait, len(asked))
	for i, p := range asked {
		v := p.verdict
		waits[i] = posts.Wait{Key: domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}, Viewer: v.Viewer.Person, WaitsFor: v.WaitsFor}
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	settled, err := k.deps.Readmodel.Settled(ctx, waits)
	if err != nil {
		return err
	}
	if len(settled) != len(asked) {
		return domain.Errorf(domain.CodeInternal, "asked about %d views and got %d answers", len(asked), len(settled))
	}
	for i, p := range asked {
		p.settled = settled[i]
	}
	return nil
}

// prove asks the end of views for every partition that has something to append and no fresh answer.
func (k *Keeper) prove(ctx context.Context) error {
	now := time.Now()
	var need []*ledger
	for _, l := range k.ledgers {
		if l.unproven(now) && len(l.ready(1)) > 0 {
			need = append(need, l)
		}
	}
	if len(need) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ends, err := k.deps.Source.Ends(ctx, domain.TopicViews)
	if err != nil {
		return err
	}
	for _, l := range need {
		if int(l.part.Partition) >= len(ends) {
			return domain.Errorf(domain.CodeMisconfigured, "views has %d partitions and verdicts more", len(ends))
		}
		l.proof = proof{end: ends[l.part.Partition].NextOffset, asked: now}
	}
	return nil
}

// readmit appends what is settled and proven, at most AppendMax per partition. A proof serves for one append.
func (k *Keeper) readmit(ctx context.Context) error {
	for _, l := range k.ledgers {
		if !l.proven(time.Now()) {
			continue
		}
		l.proof = proof{}
		ready := l.ready(k.cfg.AppendMax)
		if len(ready) == 0 {
			continue
		}
		events := make([]domain.Event, len(ready))
		for i, p := range ready {
			events[i] = readmission(p.verdict)
		}
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		at, err := k.deps.Appender.Append(ask, events...)
		cancel()
		if err != nil {
			return err // some may stand in the log: the next proof will show
		}
		for _, p := range ready {
			p.attempts++
		}
		if len(at) != 1 || at[0].Partition != l.part.Partition {
			// Judged there, by another memory, they could count again: to go on would only add to them.
			return domain.Errorf(domain.CodeMisconfigured, "views of verdicts/%d were appended to another partition: the partition counts disagree", l.part.Partition)
		}
		k.log.Info("keeper: undecided views were appended again", "partition", l.part.Partition, "views", len(ready))
		if readmitted := k.deps.Hooks.Readmitted; readmitted != nil {
			readmitted(len(ready))
		}
	}
	return nil
}
