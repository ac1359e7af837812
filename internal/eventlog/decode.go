package eventlog

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"seenby/domain"
	"seenby/topics/eventspb"
)

// Decode reads the event of a record. Its errors are poison: the same bytes will never decode. An event of a
// type unknown to this version is domain.ErrUnknownEvent.
func Decode(topic domain.Topic, key, value []byte) (domain.Event, error) {
	if value == nil {
		return decodeTombstone(topic, key)
	}
	if topic == domain.TopicVerdicts {
		if v, plain := plainVerdict(key, value); plain {
			return v, nil
		}
	}
	return decodeAny(topic, key, value)
}

// decodeAny reads every event there is.
func decodeAny(topic domain.Topic, key, value []byte) (domain.Event, error) {
	var m eventspb.Event
	if err := proto.Unmarshal(value, &m); err != nil {
		return nil, domain.Errorf(domain.CodeInvalid, "the value is no event").Because(err)
	}
	e, err := decodeKind(key, &m)
	if err != nil {
		return nil, err
	}
	if home := TopicOf(e); home != topic {
		return nil, domain.Errorf(domain.CodeInvalid, "%s belongs on topic %s, not on %s", e.EventType(), home, topic)
	}
	return e, nil
}

func decodeTombstone(topic domain.Topic, key []byte) (domain.Event, error) {
	switch topic {
	case domain.TopicBodies:
		if post, id, ok := domain.ParseBodyKey(key); ok {
			return domain.PostBodyErased{PostRef: post, EventID: id}, nil
		}
	case domain.TopicPeople:
		if ref, erased, ok := domain.ParsePersonKey(key); ok && !erased {
			return domain.PersonForgotten{Ref: ref}, nil
		}
	}
	return nil, domain.Errorf(domain.CodeInvalid, "a tombstone that topic %s has no use for", topic)
}

func decodeKind(key []byte, m *eventspb.Event) (domain.Event, error) {
	switch k := m.Kind.(type) {
	case *eventspb.Event_ViewReported:
		return decodeView(key, k.ViewReported)
	case *eventspb.Event_ViewCounted:
		v, err := decodeVerdict(key, k.ViewCounted.GetVerdict())
		if err != nil {
			return nil, err
		}
		v.QuotaFullAt = fromMicros(k.ViewCounted.GetQuotaFullAtUs())
		return v, nil
	case *eventspb.Event_ViewRefused:
		return decodeRefused(key, k.ViewRefused)
	case *eventspb.Event_ViewRetracted:
		ref, _, ok := domain.ParsePersonKey(key)
		id, ok2 := fixed[domain.ViewID](k.ViewRetracted.GetViewId())
		if !ok || !ok2 {
			return nil, badKey("ViewRetracted")
		}
		return domain.ViewRetracted{Viewer: ref, ViewID: id, ViewOffset: k.ViewRetracted.GetViewOffset(), Post: domain.PostID(k.ViewRetracted.GetPost()), Reason: k.ViewRetracted.GetReason()}, nil
	case *eventspb.Event_PersonNamed:
		ref, erased, ok := domain.ParsePersonKey(key)
		if !ok || erased {
			return nil, badKey("PersonNamed")
		}
		return domain.PersonNamed{Ref: ref, ID: k.PersonNamed.GetId()}, nil
	case *eventspb.Event_PersonErased:
		ref, erased, ok := domain.ParsePersonKey(key)
		if !ok || !erased {
			return nil, badKey("PersonErased")
		}
		return domain.PersonErased{Ref: ref, ErasedAt: fromMicros(k.PersonErased.GetErasedAtUs())}, nil
	case *eventspb.Event_PostBodyWritten:
		post, id, ok := domain.ParseBodyKey(key)
		if !ok {
			return nil, badKey("PostBodyWritten")
		}
		return domain.PostBodyWritten{PostRef: post, EventID: id, Text: k.PostBodyWritten.GetText()}, nil
	case *eventspb.Event_ImpressionsChanged:
		post, ok := domain.ParsePostKey(key)
		if !ok {
			return nil, badKey("ImpressionsChanged")
		}
		c := k.ImpressionsChanged
		return domain.ImpressionsChanged{
			PostRef: post, Impressions: c.GetImpressions(), UniqueViewers: c.GetUniqueViewers(), Imported: c.GetImported(), Revision: c.GetRevision(),
			AsOf: fromMicros(c.GetAsOfUs()), HighestMilestone: c.GetHighestMilestone(), Milestones: c.GetMilestones(),
		}, nil
	case *eventspb.Event_AudienceMemberAdded:
		tenant, audience, person, ok := domain.ParseMemberKey(key)
		id, ok2 := fixed[domain.EventID](k.AudienceMemberAdded.GetEventId())
		if !ok || !ok2 {
			return nil, badKey("AudienceMemberAdded")
		}
		return domain.AudienceMemberAdded{Tenant: tenant, Audience: audience, Person: person, EventID: id}, nil
	case *eventspb.Event_AudienceMemberRemoved:
		tenant, audience, person, ok := domain.ParseMemberKey(key)
		id, ok2 := fixed[domain.EventID](k.AudienceMemberRemoved.GetEventId())
		if !ok || !ok2 {
			return nil, badKey("AudienceMemberRemoved")
		}
		return domain.AudienceMemberRemoved{Tenant: tenant, Audience: audience, Person: person, EventID: id}, nil
	}
	if e, err := decodePost(key, m); e != nil || err != nil {
		return e, err
	}
	return decodeTenants(key, m)
}

func decodePost(key []byte, m *eventspb.Event) (domain.Event, error) {
	post, okKey := domain.ParsePostKey(key)
	var id []byte
	var e domain.Event
	switch k := m.Kind.(type) {
	case *eventspb.Event_PostPublished:
		p := k.PostPublished
		id = p.GetEventId()
		eventID, _ := fixed[domain.EventID](id)
		author, ok := fixed[domain.PersonKey](p.GetAuthor())
		body, ok2 := optionalFixed[domain.Digest](p.GetBodyDigest())
		okKey = okKey && ok && ok2
		e = domain.PostPublished{
			PostRef: post, EventID: eventID, Author: author, Audience: domain.Audience(p.GetAudience()),
			PublishedAt: fromOptionalMicros(p.PublishedAtUs), Body: body, BasedOnVersion: p.BasedOnVersion,
		}
	case *eventspb.Event_PostEdited:
		p := k.PostEdited
		id = p.GetEventId()
		eventID, _ := fixed[domain.EventID](id)
		edited := domain.PostEdited{PostRef: post, EventID: eventID, PublishedAt: fromOptionalMicros(p.PublishedAtUs), BasedOnVersion: p.BasedOnVersion}
		if p.Audience != nil {
			audience := domain.Audience(p.GetAudience())
			edited.Audience = &audience
		}
		if p.BodyDigest != nil {
			body, ok := optionalFixed[domain.Digest](p.BodyDigest)
			okKey = okKey && ok
			edited.Body = &body
		}
		e = edited
	case *eventspb.Event_PostDeleted:
		id = k.PostDeleted.GetEventId()
		eventID, _ := fixed[domain.EventID](id)
		e = domain.PostDeleted{PostRef: post, EventID: eventID, BasedOnVersion: k.PostDeleted.BasedOnVersion}
	case *eventspb.Event_CountsImported:
		c := k.CountsImported
		id = c.GetEventId()
		eventID, _ := fixed[domain.EventID](id)
		e = domain.CountsImported{PostRef: post, EventID: eventID, Impressions: c.GetImpressions(), UniqueViewers: c.GetUniqueViewers(), AsOf: fromMicros(c.GetAsOfUs())}
	default:
		return nil, nil
	}
	if !okKey || len(id) != len(domain.EventID{}) {
		return nil, badKey(e.EventType())
	}
	return e, nil
}

func decodeTenants(key []byte, m *eventspb.Event) (domain.Event, error) {
	tenant, kind, id, ok := domain.ParseTenantsKey(key)
	if !ok && m.Kind != nil {
		return nil, badKey("the record on tenants")
	}
	switch k := m.Kind.(type) {
	case *eventspb.Event_TenantCreated:
		t := k.TenantCreated
		return domain.TenantCreated{Tenant: tenant, Name: t.GetName(), WrappedKey: t.GetWrappedKey(), SecretFingerprint: t.GetSecretFingerprint(), CreatedAt: fromMicros(t.GetCreatedAtUs())}, nil
	case *eventspb.Event_TenantClosed:
		return domain.TenantClosed{Tenant: tenant, ClosedAt: fromMicros(k.TenantClosed.GetClosedAtUs())}, nil
	case *eventspb.Event_LimitsSet:
		l := k.LimitsSet
		if kind != domain.TenantKindLimits || id != strconv.FormatInt(l.GetRevision(), 10) {
			return nil, badKey("LimitsSet")
		}
		limits := domain.Limits{
			Revision: l.GetRevision(), DuplicateWindow: ms(l.GetDuplicateWindowMs()), Stale: ms(l.GetStaleMs()), Future: ms(l.GetFutureMs()),
			Quota:          domain.Quota{ViewsPerMinute: l.GetQuotaViewsPerMinute(), BurstViews: l.GetQuotaBurstViews()},
			PostCap:        domain.PostCap{Views: l.GetPostCapViews(), Window: ms(l.GetPostCapWindowMs())},
			RefuseOwnViews: l.GetRefuseOwnViews(), CountUnknownPosts: l.GetCountUnknownPosts(),
			IntakeViewsPerSecond: cmp.Or(l.GetIntakeViewsPerSecond(), domain.DefaultLimits().IntakeViewsPerSecond),
		}
		// Whoever judges by them counts on it.
		if err := limits.Validate(); err != nil {
			return nil, fmt.Errorf("limits of tenant %s, revision %d: %w", tenant, limits.Revision, err)
		}
		return domain.LimitsSet{Tenant: tenant, SetAt: fromMicros(l.GetSetAtUs()), Limits: limits}, nil
	case *eventspb.Event_KeyIssued:
		if len(k.KeyIssued.GetSha256()) != 32 {
			return nil, badKey("KeyIssued")
		}
		return domain.KeyIssued{Tenant: tenant, KeyID: id, Prefix: k.KeyIssued.GetPrefix(), SHA256: [32]byte(k.KeyIssued.GetSha256()), Label: k.KeyIssued.GetLabel(), IssuedAt: fromMicros(k.KeyIssued.GetIssuedAtUs())}, nil
	case *eventspb.Event_KeyRevoked:
		return domain.KeyRevoked{Tenant: tenant, KeyID: id, Prefix: k.KeyRevoked.GetPrefix(), RevokedAt: fromMicros(k.KeyRevoked.GetRevokedAtUs())}, nil
	case *eventspb.Event_DecisionRecorded:
		d := k.DecisionRecorded
		about, err := decodePositions(d.GetAbout())
		if err != nil {
			return nil, err
		}
		return domain.DecisionRecorded{Tenant: tenant, DecisionID: id, Kind: d.GetKind(), By: d.GetBy(), Reason: d.GetReason(), DecidedAt: fromMicros(d.GetDecidedAtUs()), About: about, Projection: d.GetProjection()}, nil
	case *eventspb.Event_ImportRecorded:
		return decodeImport(tenant, id, k.ImportRecorded)
	case *eventspb.Event_EndpointSet:
		e := k.EndpointSet
		return domain.EndpointSet{
			Tenant: tenant, EndpointID: id, URL: e.GetUrl(), SecretGeneration: e.GetSecretGeneration(), RotatedAt: fromMicros(e.GetRotatedAtUs()),
			AllowPrivate: e.GetAllowPrivate(), CreatedAt: fromMicros(e.GetCreatedAtUs()), DisabledAt: fromMicros(e.GetDisabledAtUs()), DisabledReason: e.GetDisabledReason(),
		}, nil
	case *eventspb.Event_RelaySet:
		r := k.RelaySet
		return domain.RelaySet{Tenant: tenant, Enabled: r.GetEnabled(), Milestones: r.GetMilestones(), SetAt: fromMicros(r.GetSetAtUs())}, nil
	case *eventspb.Event_PartitionsRecorded:
		return domain.PartitionsRecorded{Topic: domain.Topic(id), Partitions: k.PartitionsRecorded.GetPartitions()}, nil
	case *eventspb.Event_SecretRecorded:
		return domain.SecretRecorded{Fingerprint: k.SecretRecorded.GetFingerprint()}, nil
	}
	return nil, domain.ErrUnknownEvent
}

func decodeImport(tenant domain.TenantID, id string, m *eventspb.ImportRecorded) (domain.Event, error) {
	run, ok := fixed[domain.RunID](m.GetRun())
	if !ok || len(m.GetLinesSha256()) != 32 {
		return nil, badKey("ImportRecorded")
	}
	since, err := decodePositions(m.GetSince())
	if err != nil {
		return nil, err
	}
	return domain.ImportRecorded{
		Tenant: tenant, ImportID: id, Run: run, Lines: m.GetLines(), Imported: m.GetImported(), Rejected: m.GetRejected(),
		LinesSHA256: [32]byte(m.GetLinesSha256()), Since: since, BegunAt: fromMicros(m.GetBegunAtUs()),
		RecordedAt: fromMicros(m.GetRecordedAtUs()), FinishedAt: fromMicros(m.GetFinishedAtUs()),
	}, nil
}

func decodeView(key []byte, m *eventspb.ViewReported) (domain.Event, error) {
	ref, erased, ok := domain.ParsePersonKey(key)
	id, ok2 := fixed[domain.ViewID](m.GetViewId())
	if !ok || erased || !ok2 {
		return nil, badKey("ViewReported")
	}
	e := domain.ViewReported{
		Viewer: ref, ViewID: id, Post: domain.PostID(m.GetPost()),
		ViewedAt: fromOptionalMicros(m.ViewedAtUs), SentAt: fromOptionalMicros(m.SentAtUs),
		Anonymous: m.GetAnonymous(), Imported: m.GetImported(), Context: decodeContext(m.Context),
	}
	if r := m.Readmission; r != nil {
		waited, err := decodePositions(r.GetWaitedFor())
		if err != nil {
			return nil, err
		}
		e.Readmitted = &domain.Readmission{
			Offset: r.GetReadmits(), Received: time.UnixMicro(r.GetReceivedAtUs()).UTC(),
			ViewedAt: time.UnixMicro(r.GetViewedAtUs()).UTC(), WaitedFor: waited,
		}
	}
	return e, nil
}

// decodeVerdict accepts any key: a malformed view may have had one that says nothing, and its verdict stands
// under the same key.
func decodeVerdict(key []byte, m *eventspb.ViewVerdict) (*domain.Verdict, error) {
	if m == nil {
		return nil, domain.Errorf(domain.CodeInvalid, "a verdict without content")
	}
	id, ok := fixed[domain.ViewID](m.GetViewId())
	author, ok2 := optionalFixed[domain.PersonKey](m.GetAuthor())
	if !ok || !ok2 {
		return nil, domain.Errorf(domain.CodeInvalid, "a verdict whose ids are not 16 bytes long")
	}
	ref, _, _ := domain.ParsePersonKey(key)
	return &domain.Verdict{
		Viewer: ref, ViewID: id, ViewOffset: m.GetViewOffset(), ViewEpoch: domain.LeaderEpoch(m.GetViewEpoch()), Post: domain.PostID(m.GetPost()), Author: author,
		PostVersion: m.GetPostVersion(), AudienceKind: m.GetAudienceKind(), LimitsRevision: m.GetLimitsRevision(),
		ClaimedAt: fromOptionalMicros(m.ClaimedAtUs), ViewedAt: time.UnixMicro(m.GetViewedAtUs()).UTC(),
		Received: time.UnixMicro(m.GetReceivedAtUs()).UTC(), Anonymous: m.GetAnonymous(), OwnView: m.GetOwnView(),
		Imported: m.GetImported(), Context: decodeContext(m.Context), Readmits: m.Readmits,
	}, nil
}

func decodeRefused(key []byte, m *eventspb.ViewRefused) (domain.Event, error) {
	v, err := decodeVerdict(key, m.GetVerdict())
	if err != nil {
		return nil, err
	}
	reason, ok := reasonFromWire[m.GetReason()]
	if !ok {
		return nil, domain.ErrUnknownEvent // a reason of a newer version: counting it as another would be wrong
	}
	v.Reason, v.DeadLetters, v.Detail = reason, m.GetDeadLetters(), m.GetDetail()
	v.WaitsFor, err = decodePositions(m.GetWaitsFor())
	return v, err
}

func decodeContext(c *eventspb.ViewContext) *domain.ViewContext {
	if c == nil {
		return nil
	}
	return &domain.ViewContext{App: c.GetApp(), Surface: c.GetSurface(), DwellMS: c.DwellMs, VisibleRatio: c.VisibleRatio}
}

func decodePositions(ps []*eventspb.LogPosition) ([]domain.Position, error) {
	if len(ps) == 0 {
		return nil, nil
	}
	out := make([]domain.Position, len(ps))
	for i, p := range ps {
		id, ok := fixed[domain.TopicID](p.GetTopicId())
		if !ok {
			return nil, domain.Errorf(domain.CodeInvalid, "a position whose topic id is not 16 bytes long")
		}
		out[i] = domain.Position{Topic: domain.Topic(p.GetTopic()), TopicID: id, Partition: p.GetPartition(), NextOffset: p.GetNextOffset()}
	}
	return out, nil
}

func badKey(eventType string) error {
	return domain.Errorf(domain.CodeInvalid, "%s with a key or an id that is not of its form", eventType)
}

// fixed reads an id of exactly its length.
func fixed[T ~[16]byte](b []byte) (T, bool) {
	var zero T
	if len(b) != len(zero) {
		return zero, false
	}
	return T(b), true
}

// optionalFixed reads an id of its length, or none.
func optionalFixed[T ~[16]byte](b []byte) (T, bool) {
	var zero T
	if len(b) == 0 {
		return zero, true
	}
	return fixed[T](b)
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func fromOptionalMicros(us *int64) time.Time {
	if us == nil {
		return time.Time{}
	}
	return time.UnixMicro(*us).UTC()
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
