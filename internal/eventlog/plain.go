package eventlog

import (
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"seenby/domain"
	"seenby/topics/eventspb"
)

// Field numbers of topics/events.proto; they never change.
const (
	fieldViewCounted = 30
	fieldViewRefused = 31

	fieldVerdict     = 1 // of ViewCounted and ViewRefused
	fieldQuotaFullAt = 2 // of ViewCounted
	fieldReason      = 2 // of ViewRefused

	fieldViewID         = 1
	fieldViewOffset     = 2
	fieldPost           = 3
	fieldAuthor         = 4
	fieldPostVersion    = 5
	fieldAudienceKind   = 6
	fieldLimitsRevision = 7
	fieldClaimedAt      = 8
	fieldViewedAt       = 9
	fieldReceivedAt     = 10
	fieldAnonymous      = 11
	fieldOwnView        = 12
	fieldImported       = 13
	fieldViewEpoch      = 16
)

// plainVerdict reads a verdict as nearly all of them are: fields as we write them, in ascending order and each once, and
// none of the rare ones. All others, sound or not, are left to the generated code, which takes four times as long: reading
// verdicts is what projectors, verification and rebuilds spend their time on.
func plainVerdict(key, value []byte) (v *domain.Verdict, plain bool) {
	kind, body, ok := message(value)
	if !ok || kind != fieldViewCounted && kind != fieldViewRefused {
		return nil, false
	}
	num, content, rest, ok := field(body, 0)
	if !ok || num != fieldVerdict {
		return nil, false
	}
	v = &domain.Verdict{}
	if !plainContent(content, v) {
		return nil, false
	}
	second := uint64(0)
	if len(rest) > 0 {
		tag, typ, n := protowire.ConsumeTag(rest)
		if n < 0 || tag != fieldQuotaFullAt || typ != protowire.VarintType {
			return nil, false
		}
		m := 0
		if second, m = protowire.ConsumeVarint(rest[n:]); m < 0 || n+m != len(rest) {
			return nil, false
		}
	}
	if kind == fieldViewCounted {
		v.QuotaFullAt = fromMicros(int64(second)) //nolint:gosec // as it was written
	} else if v.Reason, ok = reasonFromWire[eventspb.RefusalReason(second)]; !ok { //nolint:gosec // as it was written
		return nil, false
	}
	v.Viewer, _, _ = domain.ParsePersonKey(key)
	return v, true
}

// message is the one field of a message that is nothing but another message.
func message(b []byte) (num protowire.Number, body []byte, ok bool) {
	num, body, rest, ok := field(b, 0)
	return num, body, ok && len(rest) == 0
}

// field reads a length-delimited field whose number is above another.
func field(b []byte, above protowire.Number) (num protowire.Number, content, rest []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 || num <= above || typ != protowire.BytesType {
		return 0, nil, nil, false
	}
	content, m := protowire.ConsumeBytes(b[n:])
	if m < 0 {
		return 0, nil, nil, false
	}
	return num, content, b[n+m:], true
}

func plainContent(b []byte, v *domain.Verdict) bool {
	var last protowire.Number
	var viewed, received int64
	id := false
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num <= last {
			return false
		}
		last, b = num, b[n:]
		switch typ {
		case protowire.VarintType:
			u, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return false
			}
			b = b[n:]
			i := int64(u) //nolint:gosec // as it was written
			switch num {
			case fieldViewOffset:
				v.ViewOffset = i
			case fieldPostVersion:
				v.PostVersion = i
			case fieldLimitsRevision:
				v.LimitsRevision = i
			case fieldClaimedAt:
				v.ClaimedAt = time.UnixMicro(i).UTC()
			case fieldViewedAt:
				viewed = i
			case fieldReceivedAt:
				received = i
			case fieldAnonymous:
				v.Anonymous = u != 0
			case fieldOwnView:
				v.OwnView = u != 0
			case fieldImported:
				v.Imported = u != 0
			case fieldViewEpoch:
				v.ViewEpoch = domain.LeaderEpoch(i) //nolint:gosec // as it was written
			default:
				return false
			}
		case protowire.BytesType:
			content, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return false
			}
			b = b[n:]
			switch num {
			case fieldViewID:
				if v.ViewID, id = fixed[domain.ViewID](content); !id {
					return false
				}
			case fieldPost:
				if !utf8.Valid(content) {
					return false
				}
				v.Post = domain.PostID(content)
			case fieldAuthor:
				author, ok := optionalFixed[domain.PersonKey](content)
				if !ok {
					return false
				}
				v.Author = author
			case fieldAudienceKind:
				if v.AudienceKind = knownKind(content); v.AudienceKind == "" {
					return false
				}
			default:
				return false
			}
		default:
			return false
		}
	}
	v.ViewedAt, v.Received = time.UnixMicro(viewed).UTC(), time.UnixMicro(received).UTC()
	return id
}

// knownKind is one of the audience kinds, without a copy; empty: it is none.
func knownKind(b []byte) string {
	switch string(b) {
	case "everyone":
		return "everyone"
	case "audience":
		return "audience"
	case "author":
		return "author"
	}
	return ""
}
