package httpapi

import (
	"context"
	"encoding/binary"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"seenby/domain"
	"seenby/internal/tenancy"
)

// Erasure is what became of the erasure of a person. It is the same for a person who was never seen.
type Erasure struct {
	_           struct{}  `json:"-" additionalProperties:"true"`
	Receipt     string    `json:"receipt" doc:"Opaque; GET /v1/erasures/{receipt} asks again."`
	ErasedAt    time.Time `json:"erased_at" doc:"Since when the person is never named again; of a repeated erasure, the first one's."`
	NameRemoved bool      `json:"name_removed" doc:"The read models, and so all answers, name the person no more."`
	CompactedBy time.Time `json:"compacted_by" doc:"erased_at and two days: by then the log's compaction has removed the name, too."`
	Compacted   bool      `json:"compacted" doc:"Whether that time has passed."`
	Detail      string    `json:"detail" doc:"What was done, for people."`
}

const (
	erasureDone     = "The person is marked as erased for good, and the name's tombstone stands in the log. The read models name the person no more. Counts stay; later views count and stay unnamed."
	erasureAccepted = "The person is marked as erased for good, and the name's tombstone stands in the log. The read models have not followed yet: ask for the receipt, with Seenby-Wait-For."
)

// compactedWithin is how long the name may stay in the log: up to a day until its segment is closed, and another
// until it is compacted (package topics, where the two days come from).
const compactedWithin = 48 * time.Hour

type personErased struct {
	Status   int
	Position string `header:"Seenby-Position" doc:"Covers all that the write appended; send it as Seenby-Wait-For."`
	Body     Erasure
}

type erasureOutput struct{ Body Erasure }

func (s *server) eraseOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "erase-person", Method: http.MethodDelete, Path: "/v1/people/{id}", Summary: "Erase a person",
		Description: "Final: no answer names the person again. Counts stay, and later views by the person count and stay unnamed. Repeatable; the answer does not tell whether the person was known. 202: the erasure stands in the log, the read models have not followed in time.",
		Responses: answers(api, map[int]any{http.StatusOK: Erasure{}, http.StatusAccepted: Erasure{}},
			map[string]string{headerPosition: postWriteHeaders[headerPosition]}),
	}
}

func (s *server) erasePerson(ctx context.Context, in *struct {
	ID string `path:"id" minLength:"1" maxLength:"255" doc:"The app's own id of the person."`
}) (*personErased, error) {
	tenant := tenantOf(ctx)
	if err := domain.CheckID("id", in.ID); err != nil {
		return nil, err
	}
	// The date of an earlier erasure has to be known: a second mark would take its place.
	if err := s.deps.Erasures.Check(ctx); err != nil {
		return nil, err
	}
	ref := domain.PersonRef{Tenant: tenant.ID, Person: domain.NewPersonKey(tenant.Key, domain.PersonKnown, in.ID)}
	mark := domain.PersonErased{Ref: ref, ErasedAt: s.deps.Now().UTC().Truncate(time.Microsecond)}
	// The mark first: a name that is appended in between then stands before the tombstone, and is gone with it.
	events := []domain.Event{mark, domain.PersonForgotten{Ref: ref}}
	if at, erased := s.deps.Erasures.ErasedAt(ref); erased {
		mark.ErasedAt, events = at, events[1:]
	}
	appending, cancel := s.appending(ctx)
	defer cancel()
	positions, err := s.append(appending, events)
	if err != nil {
		return nil, err
	}
	s.deps.Erasures.Note(mark)
	out := &personErased{
		Status: http.StatusOK, Position: tenancy.SealPositions(tenant.Key, positions),
		Body: s.erasure(tenant, ref.Person, mark.ErasedAt, true),
	}
	applying, cancel := context.WithTimeout(ctx, s.cfg.ApplyTimeout)
	defer cancel()
	if err := s.waits.until(applying, readsOfErasure.passed(positions)); err != nil {
		// It stands in the log: whatever failed, failed in waiting for the read models.
		s.deps.Logger.WarnContext(ctx, "an erasure is not in the read models yet", "err", err)
		out.Status, out.Body = http.StatusAccepted, s.erasure(tenant, ref.Person, mark.ErasedAt, false)
	}
	return out, nil
}

func (s *server) erasureOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-erasure", Method: http.MethodGet, Path: "/v1/erasures/{receipt}", Summary: "Ask what became of an erasure",
		Errors: []int{http.StatusNotFound, http.StatusGatewayTimeout},
	}
}

func (s *server) getErasure(ctx context.Context, in *struct {
	WaitParams
	Receipt string `path:"receipt" doc:"Of DELETE /v1/people/{id}."`
}) (*erasureOutput, error) {
	tenant := tenantOf(ctx)
	person, at, err := openReceipt(tenant.Key, in.Receipt)
	if err != nil {
		return nil, err
	}
	out := &erasureOutput{}
	err = s.answer(ctx, tenant, in.WaitParams, readsOfErasure, func(ctx context.Context, r reader) error {
		// A name that is missing may yet come. Where the mark is, it may not.
		removed, err := r.erased(ctx, domain.PersonRef{Tenant: tenant.ID, Person: person})
		out.Body = s.erasure(tenant, person, at, removed)
		return err
	})
	return out, err
}

func (s *server) erasure(tenant tenancy.TenantHandle, person domain.PersonKey, at time.Time, removed bool) Erasure {
	e := Erasure{
		Receipt: sealReceipt(tenant.Key, person, at), ErasedAt: at, NameRemoved: removed, CompactedBy: at.Add(compactedWithin),
		Detail: erasureDone,
	}
	e.Compacted = !s.deps.Now().Before(e.CompactedBy)
	if !removed {
		e.Detail = erasureAccepted
	}
	return e
}

// A receipt is the person and the time in microseconds.
const receiptBytes = len(domain.PersonKey{}) + 8

func sealReceipt(key domain.TenantKey, person domain.PersonKey, at time.Time) string {
	b := append(make([]byte, 0, receiptBytes), person[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixMicro())) //nolint:gosec // reversed by openReceipt
	return tenancy.Seal(key, tenancy.KindErasure, b)
}

// errNoErasure is the one answer for a receipt that never was, is damaged, or is another tenant's.
var errNoErasure = domain.Errorf(domain.CodeNotFound, "There is no such erasure.")

func openReceipt(key domain.TenantKey, receipt string) (person domain.PersonKey, at time.Time, err error) {
	b, err := tenancy.Open(key, tenancy.KindErasure, receipt)
	if err != nil || len(b) != receiptBytes {
		return person, at, errNoErasure
	}
	copy(person[:], b)
	return person, time.UnixMicro(int64(binary.BigEndian.Uint64(b[len(person):]))).UTC(), nil //nolint:gosec // as sealed
}
