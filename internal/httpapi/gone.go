package httpapi

import (
	"context"

	"seenby/domain"
)

// standing fails with errGone for a post that is known to be deleted, so that a write of it appends nothing.
func (s *server) standing(ctx context.Context, tenant domain.TenantID, post domain.PostID) error {
	if s.gone(ctx, tenant, []domain.PostID{post})[post] {
		return errGone
	}
	return nil
}

// gone gives those of the posts that are known to be deleted. A deletion is final, so what the read models say of it is
// true however far behind they are. What they do not know yet, and everything while they are away, the log decides:
// then a void event is appended.
func (s *server) gone(ctx context.Context, tenant domain.TenantID, of []domain.PostID) (gone map[domain.PostID]bool) {
	if len(of) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout/goneShare)
	defer cancel()
	err := s.models.read(ctx, func(ctx context.Context, r reader) (err error) {
		gone, err = r.deleted(ctx, tenant, of)
		return err
	})
	if err != nil {
		s.deps.Logger.WarnContext(ctx, "deleted posts could not be looked for before a write; the log decides", "err", err)
		return nil
	}
	return gone
}
