package postgres

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/posts"
)

// Positions gives the positions of every projection's live version, by its name.
func (s *Store) Positions(ctx context.Context) (map[string][]projections.PositionRow, error) {
	all, err := projections.Positions(ctx, s.pool)
	return all, Classify(err)
}

// Versions is projections.Versions.
func (s *Store) Versions(ctx context.Context) ([]projections.VersionRow, error) {
	all, err := projections.Versions(ctx, s.pool)
	return all, Classify(err)
}

// AsOf is projections.AsOf; to read it with rows of the same snapshot, call that in Snapshot.
func (s *Store) AsOf(ctx context.Context, names ...string) (time.Time, error) {
	at, err := projections.AsOf(ctx, s.pool, names...)
	return at, Classify(err)
}

// Lookup is posts.Lookup: one statement, for the gate.
func (s *Store) Lookup(ctx context.Context, asked []posts.Asked) (posts.LookupResult, error) {
	res, err := posts.Lookup(ctx, s.pool, asked)
	return res, Classify(err)
}

// Settled is posts.Settled, for the keeper.
func (s *Store) Settled(ctx context.Context, waits []posts.Wait) ([]bool, error) {
	settled, err := posts.Settled(ctx, s.pool, waits)
	return settled, Classify(err)
}

// Erasable is posts.Erasable, for the keeper.
func (s *Store) Erasable(ctx context.Context, limit int) ([]domain.PostBodyErased, error) {
	erased, err := posts.Erasable(ctx, s.pool, limit)
	return erased, Classify(err)
}

// OutcomeOf is posts.OutcomeOf, for the api that waits for its own event.
func (s *Store) OutcomeOf(ctx context.Context, key domain.PostKey, id domain.EventID) (domain.Outcome, bool, error) {
	o, ok, err := posts.OutcomeOf(ctx, s.pool, key, id)
	return o, ok, Classify(err)
}

// ReadPosts is posts.Read.
func (s *Store) ReadPosts(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]posts.View, error) {
	views, err := posts.Read(ctx, s.pool, keys)
	return views, Classify(err)
}
