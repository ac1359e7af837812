package eventlog

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"seenby/domain"
	"seenby/topics/eventspb"
)

// TopicOf is the topic that an event belongs on.
func TopicOf(e domain.Event) domain.Topic {
	switch e.(type) {
	case domain.PostPublished, domain.PostEdited, domain.PostDeleted, domain.CountsImported:
		return domain.TopicPosts
	case domain.AudienceMemberAdded, domain.AudienceMemberRemoved:
		return domain.TopicAudiences
	case domain.ViewReported:
		return domain.TopicViews
	case *domain.Verdict, domain.ViewRetracted:
		return domain.TopicVerdicts
	case domain.PersonNamed, domain.PersonErased, domain.PersonForgotten:
		return domain.TopicPeople
	case domain.PostBodyWritten, domain.PostBodyErased:
		return domain.TopicBodies
	case domain.ImpressionsChanged:
		return domain.TopicImpressions
	default:
		return domain.TopicTenants
	}
}

// Encode gives the record key and value of an event; a nil value is a tombstone. It fails only on an event
// type that has no wire form, which is a defect.
func Encode(e domain.Event) (key, value []byte, err error) {
	key, msg := wireForm(e)
	if msg == nil {
		if key == nil {
			return nil, nil, fmt.Errorf("encode %s: no wire form", e.EventType())
		}
		return key, nil, nil
	}
	value, err = proto.Marshal(msg)
	if err != nil {
		return nil, nil, domain.Errorf(domain.CodeInvalid, "%s cannot be encoded: it holds text that is not UTF-8", e.EventType()).Because(err)
	}
	return key, value, nil
}

func wireForm(e domain.Event) ([]byte, *eventspb.Event) {
	switch e := e.(type) {
	case domain.PostPublished:
		return e.PostRef.Key(), &eventspb.Event{Kind: &eventspb.Event_PostPublished{PostPublished: &eventspb.PostPublished{
			EventId: e.EventID[:], Author: e.Author[:], Audience: string(e.Audience),
			PublishedAtUs: optionalMicros(e.PublishedAt), BodyDigest: digestBytes(e.Body), BasedOnVersion: e.BasedOnVersion,
		}}}
	case domain.PostEdited:
		m := &eventspb.PostEdited{EventId: e.EventID[:], PublishedAtUs: optionalMicros(e.PublishedAt), BasedOnVersion: e.BasedOnVersion}
		if e.Audience != nil {
			m.Audience = proto.String(string(*e.Audience))
		}
		if e.Body != nil {
			m.BodyDigest = append([]byte{}, digestBytes(*e.Body)...)
		}
		return e.PostRef.Key(), &eventspb.Event{Kind: &eventspb.Event_PostEdited{PostEdited: m}}
	case domain.PostDeleted:
		return e.PostRef.Key(), &eventspb.Event{Kind: &eventspb.Event_PostDeleted{PostDeleted: &eventspb.PostDeleted{
			EventId: e.EventID[:], BasedOnVersion: e.BasedOnVersion,
		}}}
	case domain.CountsImported:
		return e.PostRef.Key(), &eventspb.Event{Kind: &eventspb.Event_CountsImported{CountsImported: &eventspb.CountsImported{
			EventId: e.EventID[:], Impressions: e.Impressions, UniqueViewers: e.UniqueViewers, AsOfUs: micros(e.AsOf),
		}}}
	case domain.AudienceMemberAdded:
		return domain.MemberKey(e.Tenant, e.Audience, e.Person), &eventspb.Event{Kind: &eventspb.Event_AudienceMemberAdded{
			AudienceMemberAdded: &eventspb.AudienceMemberAdded{EventId: e.EventID[:]}}}
	case domain.AudienceMemberRemoved:
		return domain.MemberKey(e.Tenant, e.Audience, e.Person), &eventspb.Event{Kind: &eventspb.Event_AudienceMemberRemoved{
			AudienceMemberRemoved: &eventspb.AudienceMemberRemoved{EventId: e.EventID[:]}}}
	case domain.ViewReported:
		return e.Viewer.Key(), &eventspb.Event{Kind: &eventspb.Event_ViewReported{ViewReported: viewReported(&e)}}
	case *domain.Verdict:
		return e.Viewer.Key(), verdict(e)
	case domain.ViewRetracted:
		return e.Viewer.Key(), &eventspb.Event{Kind: &eventspb.Event_ViewRetracted{ViewRetracted: &eventspb.ViewRetracted{
			ViewId: e.ViewID[:], ViewOffset: e.ViewOffset, Post: string(e.Post), Reason: e.Reason,
		}}}
	case domain.PersonNamed:
		return e.Ref.Key(), &eventspb.Event{Kind: &eventspb.Event_PersonNamed{PersonNamed: &eventspb.PersonNamed{Id: e.ID}}}
	case domain.PersonErased:
		return e.Ref.ErasedKey(), &eventspb.Event{Kind: &eventspb.Event_PersonErased{PersonErased: &eventspb.PersonErased{ErasedAtUs: micros(e.ErasedAt)}}}
	case domain.PersonForgotten:
		return e.Ref.Key(), nil
	case domain.PostBodyWritten:
		return e.PostRef.BodyKey(e.EventID), &eventspb.Event{Kind: &eventspb.Event_PostBodyWritten{PostBodyWritten: &eventspb.PostBodyWritten{Text: e.Text}}}
	case domain.PostBodyErased:
		return e.PostRef.BodyKey(e.EventID), nil
	case domain.ImpressionsChanged:
		return e.PostRef.Key(), &eventspb.Event{Kind: &eventspb.Event_ImpressionsChanged{ImpressionsChanged: &eventspb.ImpressionsChanged{
			Impressions: e.Impressions, UniqueViewers: e.UniqueViewers, Imported: e.Imported, Revision: e.Revision, AsOfUs: micros(e.AsOf),
			HighestMilestone: e.HighestMilestone, Milestones: e.Milestones,
		}}}
	}
	return tenantsForm(e)
}

func tenantsForm(e domain.Event) ([]byte, *eventspb.Event) {
	switch e := e.(type) {
	case domain.TenantCreated:
		return domain.TenantsKey(e.Tenant, domain.TenantKindTenant, ""), &eventspb.Event{Kind: &eventspb.Event_TenantCreated{TenantCreated: &eventspb.TenantCreated{
			Name: e.Name, WrappedKey: e.WrappedKey, SecretFingerprint: e.SecretFingerprint, CreatedAtUs: micros(e.CreatedAt),
		}}}
	case domain.TenantClosed:
		return domain.TenantsKey(e.Tenant, domain.TenantKindTenant, ""), &eventspb.Event{Kind: &eventspb.Event_TenantClosed{TenantClosed: &eventspb.TenantClosed{
			ClosedAtUs: micros(e.ClosedAt),
		}}}
	case domain.LimitsSet:
		l := e.Limits
		return domain.TenantsKey(e.Tenant, domain.TenantKindLimits, strconv.FormatInt(l.Revision, 10)), &eventspb.Event{Kind: &eventspb.Event_LimitsSet{LimitsSet: &eventspb.LimitsSet{
			Revision: l.Revision, DuplicateWindowMs: l.DuplicateWindow.Milliseconds(), StaleMs: l.Stale.Milliseconds(),
			FutureMs: l.Future.Milliseconds(), QuotaViewsPerMinute: l.Quota.ViewsPerMinute, QuotaBurstViews: l.Quota.BurstViews,
			PostCapViews: l.PostCap.Views, PostCapWindowMs: l.PostCap.Window.Milliseconds(), RefuseOwnViews: l.RefuseOwnViews,
			SetAtUs: micros(e.SetAt), CountUnknownPosts: l.CountUnknownPosts, IntakeViewsPerSecond: l.IntakeViewsPerSecond,
		}}}
	case domain.KeyIssued:
		return domain.TenantsKey(e.Tenant, domain.TenantKindKey, e.KeyID), &eventspb.Event{Kind: &eventspb.Event_KeyIssued{KeyIssued: &eventspb.KeyIssued{
			Prefix: e.Prefix, Sha256: e.SHA256[:], Label: e.Label, IssuedAtUs: micros(e.IssuedAt),
		}}}
	case domain.KeyRevoked:
		return domain.TenantsKey(e.Tenant, domain.TenantKindKey, e.KeyID), &eventspb.Event{Kind: &eventspb.Event_KeyRevoked{KeyRevoked: &eventspb.KeyRevoked{
			Prefix: e.Prefix, RevokedAtUs: micros(e.RevokedAt),
		}}}
	case domain.DecisionRecorded:
		return domain.TenantsKey(e.Tenant, domain.TenantKindDecision, e.DecisionID), &eventspb.Event{Kind: &eventspb.Event_DecisionRecorded{DecisionRecorded: &eventspb.DecisionRecorded{
			Kind: e.Kind, By: e.By, Reason: e.Reason, DecidedAtUs: micros(e.DecidedAt), About: logPositions(e.About), Projection: e.Projection,
		}}}
	case domain.ImportRecorded:
		return domain.TenantsKey(e.Tenant, domain.TenantKindImport, e.ImportID), &eventspb.Event{Kind: &eventspb.Event_ImportRecorded{ImportRecorded: &eventspb.ImportRecorded{
			Run: e.Run[:], Lines: e.Lines, Imported: e.Imported, Rejected: e.Rejected, LinesSha256: e.LinesSHA256[:], Since: logPositions(e.Since),
			BegunAtUs: micros(e.BegunAt), RecordedAtUs: micros(e.RecordedAt), FinishedAtUs: micros(e.FinishedAt),
		}}}
	case domain.EndpointSet:
		return domain.TenantsKey(e.Tenant, domain.TenantKindEndpoint, e.EndpointID), &eventspb.Event{Kind: &eventspb.Event_EndpointSet{EndpointSet: &eventspb.EndpointSet{
			Url: e.URL, SecretGeneration: e.SecretGeneration, RotatedAtUs: micros(e.RotatedAt), AllowPrivate: e.AllowPrivate,
			CreatedAtUs: micros(e.CreatedAt), DisabledAtUs: micros(e.DisabledAt), DisabledReason: e.DisabledReason,
		}}}
	case domain.RelaySet:
		return domain.TenantsKey(e.Tenant, domain.TenantKindRelay, ""), &eventspb.Event{Kind: &eventspb.Event_RelaySet{RelaySet: &eventspb.RelaySet{
			Enabled: e.Enabled, Milestones: e.Milestones, SetAtUs: micros(e.SetAt),
		}}}
	case domain.PartitionsRecorded:
		return domain.TenantsKey("", domain.TenantKindPartitions, string(e.Topic)), &eventspb.Event{Kind: &eventspb.Event_PartitionsRecorded{PartitionsRecorded: &eventspb.PartitionsRecorded{
			Partitions: e.Partitions,
		}}}
	case domain.SecretRecorded:
		return domain.TenantsKey("", domain.TenantKindSecret, ""), &eventspb.Event{Kind: &eventspb.Event_SecretRecorded{SecretRecorded: &eventspb.SecretRecorded{
			Fingerprint: e.Fingerprint,
		}}}
	}
	return nil, nil
}

func viewReported(e *domain.ViewReported) *eventspb.ViewReported {
	m := &eventspb.ViewReported{
		ViewId: e.ViewID[:], Post: string(e.Post), ViewedAtUs: optionalMicros(e.ViewedAt), SentAtUs: optionalMicros(e.SentAt),
		Anonymous: e.Anonymous, Imported: e.Imported, Context: viewContext(e.Context),
	}
	if r := e.Readmitted; r != nil {
		m.Readmission = &eventspb.Readmission{
			Readmits: r.Offset, ReceivedAtUs: micros(r.Received), ViewedAtUs: micros(r.ViewedAt), WaitedFor: logPositions(r.WaitedFor),
		}
	}
	return m
}

func verdict(v *domain.Verdict) *eventspb.Event {
	m := &eventspb.ViewVerdict{
		ViewId: v.ViewID[:], ViewOffset: v.ViewOffset, ViewEpoch: int32(v.ViewEpoch), Post: string(v.Post), PostVersion: v.PostVersion,
		AudienceKind: v.AudienceKind, LimitsRevision: v.LimitsRevision, ClaimedAtUs: optionalMicros(v.ClaimedAt),
		ViewedAtUs: micros(v.ViewedAt), ReceivedAtUs: micros(v.Received), Anonymous: v.Anonymous, OwnView: v.OwnView,
		Imported: v.Imported, Context: viewContext(v.Context), Readmits: v.Readmits,
	}
	if v.Author != (domain.PersonKey{}) {
		m.Author = v.Author[:]
	}
	if v.Counted() {
		return &eventspb.Event{Kind: &eventspb.Event_ViewCounted{ViewCounted: &eventspb.ViewCounted{Verdict: m, QuotaFullAtUs: micros(v.QuotaFullAt)}}}
	}
	return &eventspb.Event{Kind: &eventspb.Event_ViewRefused{ViewRefused: &eventspb.ViewRefused{
		Verdict: m, Reason: reasonToWire[v.Reason], WaitsFor: logPositions(v.WaitsFor), DeadLetters: v.DeadLetters, Detail: v.Detail,
	}}}
}

var reasonToWire = map[domain.Reason]eventspb.RefusalReason{
	domain.ReasonMalformed:     eventspb.RefusalReason_REFUSAL_REASON_MALFORMED,
	domain.ReasonStale:         eventspb.RefusalReason_REFUSAL_REASON_STALE,
	domain.ReasonFuture:        eventspb.RefusalReason_REFUSAL_REASON_FUTURE,
	domain.ReasonDuplicate:     eventspb.RefusalReason_REFUSAL_REASON_DUPLICATE,
	domain.ReasonOwnView:       eventspb.RefusalReason_REFUSAL_REASON_OWN_VIEW,
	domain.ReasonUnknownPost:   eventspb.RefusalReason_REFUSAL_REASON_UNKNOWN_POST,
	domain.ReasonDeletedPost:   eventspb.RefusalReason_REFUSAL_REASON_DELETED_POST,
	domain.ReasonNotInAudience: eventspb.RefusalReason_REFUSAL_REASON_NOT_IN_AUDIENCE,
	domain.ReasonPostCap:       eventspb.RefusalReason_REFUSAL_REASON_POST_CAP,
	domain.ReasonViewerQuota:   eventspb.RefusalReason_REFUSAL_REASON_VIEWER_QUOTA,
	domain.ReasonUndecided:     eventspb.RefusalReason_REFUSAL_REASON_UNDECIDED,
	domain.ReasonBot:           eventspb.RefusalReason_REFUSAL_REASON_BOT,
	domain.ReasonTooShort:      eventspb.RefusalReason_REFUSAL_REASON_TOO_SHORT,
}

var reasonFromWire = func() map[eventspb.RefusalReason]domain.Reason {
	m := make(map[eventspb.RefusalReason]domain.Reason, len(reasonToWire))
	for r, w := range reasonToWire {
		m[w] = r
	}
	return m
}()

func viewContext(c *domain.ViewContext) *eventspb.ViewContext {
	if c == nil {
		return nil
	}
	return &eventspb.ViewContext{App: c.App, Surface: c.Surface, DwellMs: c.DwellMS, VisibleRatio: c.VisibleRatio}
}

func logPositions(ps []domain.Position) []*eventspb.LogPosition {
	if len(ps) == 0 {
		return nil
	}
	out := make([]*eventspb.LogPosition, len(ps))
	for i, p := range ps {
		out[i] = &eventspb.LogPosition{Topic: string(p.Topic), TopicId: p.TopicID[:], Partition: p.Partition, NextOffset: p.NextOffset}
	}
	return out
}

func digestBytes(d domain.Digest) []byte {
	if d == (domain.Digest{}) {
		return nil
	}
	return d[:]
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func optionalMicros(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return proto.Int64(t.UnixMicro())
}
