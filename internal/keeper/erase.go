package keeper

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/projections/posts"
)

const (
	// eraseEvery is how often texts to be erased are looked for. Compaction takes days, so there is no hurry.
	eraseEvery = time.Second
	// eraseMax is how many tombstones are appended in one go.
	eraseMax = 1000
)

// erasing is what a keeper knows of its tombstones. Nothing is lost with it: whatever is marked in the read model
// is given again until the projection has read its tombstone.
type erasing struct {
	looked  time.Time
	waitFor []domain.Position // of the tombstones appended last; none: they are read
}

// erase appends tombstones of the texts that the projection of posts has marked (DESIGN §1: nothing erasable). The
// owner of partition 0 does it for all; two at once would cost records only.
func (k *Keeper) erase(ctx context.Context) error {
	now := time.Now()
	if !k.erases() || now.Sub(k.erasing.looked) < eraseEvery {
		return nil
	}
	k.erasing.looked = now
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if len(k.erasing.waitFor) > 0 {
		// The marks that stand may be those of the tombstones that are on their way.
		read, err := k.deps.Readmodel.Settled(ctx, []posts.Wait{{WaitsFor: k.erasing.waitFor}})
		if err != nil || !read[0] {
			return err
		}
		k.erasing.waitFor = nil
	}
	erased, err := k.deps.Readmodel.Erasable(ctx, eraseMax)
	if err != nil || len(erased) == 0 {
		return err
	}
	events := make([]domain.Event, len(erased))
	for i, e := range erased {
		events[i] = e
	}
	if k.erasing.waitFor, err = k.deps.Appender.Append(ctx, events...); err != nil {
		return err // some may stand in the log; a repeat is harmless
	}
	k.log.Info("keeper: texts were erased", "posts", postsOf(erased), "records", len(erased))
	if hook := k.deps.Hooks.Erased; hook != nil {
		hook(len(erased))
	}
	return nil
}

// erases tells whether this keeper is the one.
func (k *Keeper) erases() bool {
	for p := range k.ledgers {
		if p.Partition == 0 {
			return true
		}
	}
	return false
}

func postsOf(erased []domain.PostBodyErased) int {
	of := map[domain.PostKey]bool{}
	for _, e := range erased {
		of[e.PostRef] = true
	}
	return len(of)
}
