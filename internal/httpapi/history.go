package httpapi

import (
	"context"
	"encoding/binary"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"seenby/domain"
)

// History is one page of a post's events.
type History struct {
	_          struct{}       `json:"-" additionalProperties:"true"`
	Events     []HistoryEvent `json:"events" nullable:"false" doc:"In the order of the log, oldest first."`
	NextCursor string         `json:"next_cursor,omitempty" doc:"Absent on the last page."`
}

// HistoryEvent is what became of one event of a post. It holds no text: old texts are nobody's to read, and those of
// void events are erased.
type HistoryEvent struct {
	_          struct{}  `json:"-" additionalProperties:"true"`
	Type       string    `json:"type" example:"PostEdited"`
	Outcome    string    `json:"outcome" example:"replaced" doc:"created, replaced, unchanged, deleted, imported, void_conflict, void_gone or void_missing."`
	Void       bool      `json:"void" doc:"The event changed nothing because of what stood before it."`
	Version    int64     `json:"version" minimum:"0" doc:"Of the post after the event."`
	RecordedAt time.Time `json:"recorded_at"`
}

type historyOutput struct{ Body History }

var readsOfHistory = reads{domain.TopicPosts: {projectionPosts}}

func (s *server) historyOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-history", Method: http.MethodGet, Path: "/v1/posts/{id}/history", Summary: "List what became of a post's events",
		Description: "Writes that lost are listed too, as void.",
		Errors:      []int{http.StatusNotFound, http.StatusGone, http.StatusGatewayTimeout},
	}
}

func (s *server) getHistory(ctx context.Context, in *struct {
	WaitParams
	ID     string `path:"id" minLength:"1" maxLength:"255"`
	Limit  string `query:"limit" example:"50" doc:"1 to 200; default 50."`
	Cursor string `query:"cursor" doc:"next_cursor of the page before."`
}) (*historyOutput, error) {
	tenant := tenantOf(ctx)
	if err := domain.CheckID("id", in.ID); err != nil {
		return nil, err
	}
	limit, err := parseLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	list := listOf("history", in.ID)
	after, err := openHistoryCursor(tenant.Key, list, in.Cursor)
	if err != nil {
		return nil, err
	}
	key := domain.PostKey{Tenant: tenant.ID, Post: domain.PostID(in.ID)}
	out := &historyOutput{}
	err = s.answer(ctx, tenant, in.WaitParams, readsOfHistory, func(ctx context.Context, r reader) error {
		if _, err := findPost(ctx, r, key); err != nil {
			return err
		}
		// One more than the page tells whether there is another.
		rows, err := r.history(ctx, key, after, limit+1)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows = rows[:limit]
			out.Body.NextCursor = sealList(tenant.Key, list, binary.BigEndian.AppendUint64(nil, uint64(rows[limit-1].RecordOffset))) //nolint:gosec // not negative
		}
		out.Body.Events = make([]HistoryEvent, len(rows))
		for i, e := range rows {
			out.Body.Events[i] = HistoryEvent{
				Type: e.EventType, Outcome: string(e.Kind), Void: e.Void(), Version: e.Version, RecordedAt: e.RecordedAt.UTC(),
			}
		}
		return nil
	})
	return out, err
}

// openHistoryCursor gives the record offset of the last event of the page before, -1 for an empty cursor.
func openHistoryCursor(key domain.TenantKey, list []byte, cursor string) (int64, error) {
	at, err := openList(key, list, cursor)
	if err != nil || at == nil {
		return -1, err
	}
	if len(at) != 8 {
		return -1, errCursor
	}
	return int64(binary.BigEndian.Uint64(at)), nil //nolint:gosec // as sealed
}
