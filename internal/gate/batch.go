package gate

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// batch is one run of views on its way through the gate; its slices go side by side.
type batch struct {
	records []*kgo.Record
	views   []domain.ViewRecord
	limits  map[domain.TenantID]domain.Limits
}

// step judges one batch. The partition is as before where it fails.
func (s *session) step(ctx context.Context) error {
	records, err := s.poll(ctx)
	if err != nil || len(records) == 0 {
		return err
	}
	b, err := s.decode(records)
	if err != nil {
		return err
	}
	if err := s.limitsOf(ctx, b); err != nil {
		return err
	}
	answers, err := s.answer(ctx, b)
	if err != nil {
		return err
	}
	overlay := s.memory.Begin()
	verdicts := make([]judged, len(b.views))
	for i, v := range b.views {
		var limits domain.Limits // a malformed view is judged by none
		if v.Malformed == "" {
			limits = b.limits[v.View.Viewer.Tenant]
		}
		verdict := overlay.Judge(v, answers[i], limits)
		verdicts[i] = judged{verdict, overlay.Now(), records[i].Key}
	}
	if err := s.commit(ctx, verdicts); err != nil {
		return err
	}
	overlay.Commit()
	s.next = records[len(records)-1].Offset + 1
	return nil
}

// poll waits for views, then gathers more until the batch is full or GatherFor is over.
func (s *session) poll(ctx context.Context) ([]*kgo.Record, error) {
	records, err := s.take(ctx, nil)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil || len(records) == 0 {
		return nil, err
	}
	gather, cancel := context.WithTimeout(ctx, s.w.g.cfg.GatherFor)
	defer cancel()
	for len(records) < s.w.g.cfg.BatchViewsMax && gather.Err() == nil {
		if records, err = s.take(gather, records); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.w.checkClock(records[len(records)-1].Timestamp)
	return records, s.unbroken(ctx, records)
}

// unbroken tells whether the records follow on what was judged. The topic is not compacted and holds no
// transactions, so a gap is worth a question: the client may have been moved over records that are gone.
func (s *session) unbroken(ctx context.Context, records []*kgo.Record) error {
	next := s.next
	for _, r := range records {
		if r.Offset < next {
			return domain.Errorf(domain.CodeDataLoss, "%s/%d gave offset %d again after %d: it was truncated", r.Topic, r.Partition, r.Offset, next-1)
		}
		if r.Offset > next {
			start, err := s.offset(ctx, r.Topic, offsetStart)
			if err != nil {
				return err
			}
			if start > next {
				return domain.Errorf(domain.CodeDataLoss, "%s/%d starts at %d, and the views from %d on have no verdict yet: they are lost", r.Topic, r.Partition, start, next)
			}
		}
		next = r.Offset + 1
	}
	return nil
}

func (s *session) take(ctx context.Context, records []*kgo.Record) ([]*kgo.Record, error) {
	fetches := s.client.PollRecords(ctx, s.w.g.cfg.BatchViewsMax-len(records))
	if records == nil {
		records = make([]*kgo.Record, 0, fetches.NumRecords())
	}
	for r := range fetches.RecordsAll() {
		records = append(records, r)
	}
	next := s.next
	if len(records) > 0 {
		next = records[len(records)-1].Offset + 1
	}
	return records, fetchError(fetches, s.topic(domain.TopicViews), next)
}

// decode reads the records. One that cannot be judged is marked malformed; only an event of a later version
// is an error, for what it means cannot be guessed.
func (s *session) decode(records []*kgo.Record) (*batch, error) {
	b := &batch{records: records, views: make([]domain.ViewRecord, len(records)), limits: map[domain.TenantID]domain.Limits{}}
	for i, r := range records {
		v := &b.views[i]
		v.Offset, v.Epoch, v.Appended = r.Offset, domain.LeaderEpochOf(r.LeaderEpoch), r.Timestamp
		e, err := eventlog.Decode(domain.TopicViews, r.Key, r.Value)
		if errors.Is(err, domain.ErrUnknownEvent) && newer(r.Value) {
			return nil, domain.Errorf(domain.CodeMisconfigured, "%s/%d offset %d holds an event of an unknown type; no view behind it is judged before this gate is upgraded", r.Topic, r.Partition, r.Offset).Because(err)
		}
		if view, ok := e.(domain.ViewReported); ok && err == nil {
			v.View = view
			if err = domain.CheckTenantID(string(view.Viewer.Tenant)); err == nil {
				err = view.Check()
			}
		} else if err == nil {
			err = domain.Errorf(domain.CodeInvalid, "%s is no view", e.EventType())
		}
		if err != nil {
			v.View = domain.ViewReported{Readmitted: v.View.Readmitted}
			v.View.Viewer, _, _ = domain.ParsePersonKey(r.Key)
			v.Malformed = detail(err)
		}
	}
	return b, nil
}

// detail is what a malformed verdict says: our own words only, never the record's, for the verdict stands in an
// immutable topic.
func detail(err error) string {
	s := "cannot be decoded"
	var e *domain.Error
	if errors.As(err, &e) {
		s = e.Message
		if e.Field != "" {
			s = e.Field + " " + s
		}
	}
	return strings.ToValidUTF8(s[:min(len(s), detailBytesMax)], "")
}

// limitsOf finds the limits of every tenant in the batch. A tenant that is not known yet is waited for: the
// api that took the view had read of it, so it stands on the topic. One that is not known even then does not
// exist, and its views are malformed.
func (s *session) limitsOf(ctx context.Context, b *batch) error {
	unknown := b.findLimits(s.w.g.deps.Tenants)
	if unknown {
		err := s.w.insist(ctx, "read the topic tenants to its end", func() error {
			ask, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			ends, err := s.w.g.deps.Ends.Ends(ask, domain.TopicTenants)
			if err != nil {
				return err
			}
			return s.w.g.deps.Tenants.WaitFor(ask, ends)
		})
		if err != nil {
			return err
		}
		b.findLimits(s.w.g.deps.Tenants)
		for i := range b.views {
			v := &b.views[i]
			if _, ok := b.limits[v.View.Viewer.Tenant]; !ok && v.Malformed == "" {
				v.View = domain.ViewReported{Viewer: v.View.Viewer, Readmitted: v.View.Readmitted}
				v.Malformed = "tenant is unknown or closed"
			}
		}
	}
	for _, limits := range b.limits {
		if !s.windows.covers(windowsOf(limits)) {
			return errWindow // before a view is judged by the raised limits
		}
	}
	return nil
}

// findLimits asks for what it does not have yet and tells whether any tenant of a well-formed view is unknown.
func (b *batch) findLimits(from Tenants) (unknown bool) {
	asked := map[domain.TenantID]bool{}
	for i := range b.views {
		v := &b.views[i]
		tenant := v.View.Viewer.Tenant
		if v.Malformed != "" || asked[tenant] {
			continue
		}
		asked[tenant] = true
		limits, ok := from.Limits(tenant)
		if !ok {
			unknown = true
			continue
		}
		b.limits[tenant] = limits
	}
	return unknown
}

// detached is a context for what the end of ctx must not cut short, but that must end.
func detached(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}
