package importer

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
)

const (
	// changeTimeout bounds one command on tenants.
	changeTimeout  = 40 * time.Second
	changeTries    = 10
	changePause    = 500 * time.Millisecond
	standingsWhere = "reading what an earlier process left open"
)

// begin takes the import over and learns which lines stand in the log without a record.
func (r *run) begin(ctx context.Context) error {
	since, err := r.deps.Log.Ends(ctx, r.kind.topic)
	if err != nil {
		return err
	}
	id, run := r.result.Record.ImportID, r.deps.NewRun()
	if err := r.change(ctx, func(in *domain.Installation) (events []domain.Event, err error) {
		r.result.Record, events, err = tenancy.BeginImport(in, r.deps.Now(), r.opts.Tenant.ID, id, run, since)
		return events, err
	}); err != nil {
		return err
	}
	record := &r.result.Record
	if record.Finished() {
		r.result.Already = true
		return nil
	}
	return r.findStanding(ctx, record.Since)
}

// record writes down how far the import is.
func (r *run) record(ctx context.Context) error {
	if err := r.rejected.sync(); err != nil {
		return err
	}
	r.result.Record.RecordedAt = r.deps.Now()
	if err := r.change(ctx, func(in *domain.Installation) ([]domain.Event, error) {
		return tenancy.RecordImport(in, r.result.Record)
	}); err != nil {
		return err
	}
	r.recorded = r.deps.Now()
	return nil
}

// pause is record where everything that was appended is accounted for.
func (r *run) pause(ctx context.Context) error {
	r.result.Record.Since = nil
	return r.record(ctx)
}

// change carries out a command on tenants. It tries again where another command came in between or Kafka is away for a
// moment; what the command itself decides is final. The end of ctx does not cut it short: a clean stop records where it is.
func (r *run) change(ctx context.Context, decide func(*domain.Installation) ([]domain.Event, error)) error {
	var decided error
	for try := 1; ; try++ {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
		err := r.deps.Log.ChangeTenants(attempt, func(in *domain.Installation) (events []domain.Event, err error) {
			events, decided = decide(in)
			return events, decided
		})
		cancel()
		code := domain.CodeOf(err)
		if err == nil || decided != nil || code != domain.CodeConflict && code != domain.CodeUnavailable || try == changeTries {
			return err
		}
		timer := time.NewTimer(changePause)
		select {
		case <-ctx.Done(): // tried once, and once more at once
			try = max(try, changeTries-1)
		case <-timer.C:
		}
		timer.Stop()
	}
}

// mark is what an event of an import is known by.
type mark struct {
	person domain.PersonKey
	post   domain.PostKey
	id     [16]byte
}

// markOf is an event's mark; ok is false for what no import of this kind has appended.
func (r *run) markOf(e domain.Event) (m mark, ok bool) {
	switch e := e.(type) {
	case domain.ViewReported:
		return mark{person: e.Viewer.Person, id: e.ViewID}, e.Imported && e.Readmitted == nil && e.Viewer.Tenant == r.opts.Tenant.ID
	case domain.PostPublished:
		return mark{post: e.PostRef, id: e.EventID}, e.PostRef.Tenant == r.opts.Tenant.ID && r.parser.ours(e.EventID)
	case domain.CountsImported:
		return mark{post: e.PostRef, id: e.EventID}, e.PostRef.Tenant == r.opts.Tenant.ID && r.parser.ours(e.EventID)
	case domain.AudienceMemberAdded:
		return mark{person: e.Person, id: e.EventID}, e.Tenant == r.opts.Tenant.ID && r.parser.ours(e.EventID)
	}
	return mark{}, false
}

// findStanding reads the log from where a process that ended without a word may have appended.
func (r *run) findStanding(ctx context.Context, since []domain.Position) error {
	ends, err := r.deps.Log.Ends(ctx, r.kind.topic)
	if err != nil {
		return err
	}
	from := make([]domain.Position, 0, len(ends))
	for _, end := range ends {
		start := end
		for _, p := range since {
			if p.In() == end.In() {
				start = p
			}
		}
		from = append(from, start)
	}
	r.tell(func(p *Progress) { p.Detail = standingsWhere })
	defer func() { r.progress.Detail = "" }()
	r.standing = map[mark]bool{}
	return r.deps.Log.ReadRanges(ctx, from, ends, func(records []domain.Record) error {
		for _, record := range records {
			if m, ok := r.markOf(record.Event); ok && record.Err == nil {
				r.standing[m] = true
			}
		}
		return nil
	})
}

// fresh are the items that do not stand in the log, and how many do. A mark is used up: a later line with the same id is a
// line of its own, which the gate will refuse.
func (r *run) fresh(items []item) (fresh []item, stood int) {
	if len(r.standing) == 0 {
		return items, 0
	}
	for _, it := range items {
		if m, ok := r.markOf(it.event); ok && r.standing[m] {
			delete(r.standing, m)
			stood++
			continue
		}
		fresh = append(fresh, it)
	}
	return fresh, stood
}
