package gate

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"

	"seenby/domain"
)

// decoder reads of a verdict's record only what a memory keeps of it: this is what a restore spends its time
// on. Its answer is the same as eventlog.Decode's in the fields it fills (a test holds it to that).
type decoder struct{ v domain.Verdict }

// Field numbers of topics/events.proto; they never change.
const (
	fieldViewCounted  = 30
	fieldViewRefused  = 31
	fieldVerdict      = 1 // of ViewCounted and ViewRefused
	fieldQuotaFullAt  = 2 // of ViewCounted
	fieldVerdictID    = 1
	fieldVerdictView  = 2
	fieldVerdictPost  = 3
	fieldVerdictImp   = 13
	fieldVerdictEpoch = 16
	reasonNotRead     = domain.Reason("not read") // stands for any refusal
	protoBytesNeeded  = protowire.BytesType
	protoVarintNeeded = protowire.VarintType
)

// decode returns a verdict that the next call overwrites: Viewer, ViewID, ViewOffset, ViewEpoch, Post, Imported and
// QuotaFullAt of a counted one; of a refused one only ViewOffset, ViewEpoch and that it was refused.
func (d *decoder) decode(r *kgo.Record) (*domain.Verdict, error) {
	d.v = domain.Verdict{}
	field, body, err := only(r.Value)
	if err != nil {
		return nil, d.corrupt(r)
	}
	switch field {
	case fieldViewCounted:
	case fieldViewRefused:
		d.v.Reason = reasonNotRead
	default:
		return nil, domain.ErrUnknownEvent
	}
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return nil, d.corrupt(r)
		}
		body = body[n:]
		switch {
		case num == fieldVerdict && typ == protoBytesNeeded:
			content, m := protowire.ConsumeBytes(body)
			if m < 0 || !d.content(content) {
				return nil, d.corrupt(r)
			}
			n = m
		case num == fieldQuotaFullAt && typ == protoVarintNeeded && field == fieldViewCounted:
			us, m := protowire.ConsumeVarint(body)
			if m < 0 {
				return nil, d.corrupt(r)
			}
			if us != 0 {
				d.v.QuotaFullAt = time.UnixMicro(int64(us)) //nolint:gosec // as it was written
			}
			n = m
		default:
			if n = protowire.ConsumeFieldValue(num, typ, body); n < 0 {
				return nil, d.corrupt(r)
			}
		}
		body = body[n:]
	}
	if d.v.Counted() {
		ref, _, ok := domain.ParsePersonKey(r.Key)
		if !ok || d.v.Post == "" || d.v.ViewID == (domain.ViewID{}) {
			return nil, d.corrupt(r)
		}
		d.v.Viewer = ref
	}
	return &d.v, nil
}

// content reads a ViewVerdict.
func (d *decoder) content(b []byte) bool {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		switch {
		case num == fieldVerdictID && typ == protoBytesNeeded:
			id, m := protowire.ConsumeBytes(b)
			if m < 0 || len(id) != len(d.v.ViewID) {
				return false
			}
			n = m
			copy(d.v.ViewID[:], id)
		case num == fieldVerdictView && typ == protoVarintNeeded:
			offset, m := protowire.ConsumeVarint(b)
			n = m
			d.v.ViewOffset = int64(offset) //nolint:gosec // as it was written
		case num == fieldVerdictEpoch && typ == protoVarintNeeded:
			epoch, m := protowire.ConsumeVarint(b)
			n = m
			d.v.ViewEpoch = domain.LeaderEpoch(epoch) //nolint:gosec // as it was written
		case num == fieldVerdictImp && typ == protoVarintNeeded:
			imported, m := protowire.ConsumeVarint(b)
			n = m
			d.v.Imported = d.v.Counted() && imported != 0
		case num == fieldVerdictPost && typ == protoBytesNeeded:
			post, m := protowire.ConsumeBytes(b)
			n = m
			if m > 0 && d.v.Counted() {
				d.v.Post = domain.PostID(post)
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// only is the one field of an Event, the last where there are more.
func only(b []byte) (field protowire.Number, body []byte, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, nil, protowire.ParseError(n)
		}
		b = b[n:]
		if typ == protoBytesNeeded {
			v, m := protowire.ConsumeBytes(b)
			if m < 0 {
				return 0, nil, protowire.ParseError(m)
			}
			field, body, n = num, v, m
		} else if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return 0, nil, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return field, body, nil
}

// corrupt stops the partition: a gate wrote this record, and a memory that leaves it out would count again.
func (d *decoder) corrupt(r *kgo.Record) error {
	return domain.Errorf(domain.CodeDataLoss, "the verdict at %s/%d offset %d cannot be decoded", r.Topic, r.Partition, r.Offset)
}

// newer tells whether a value without a known event can be one of a later version: an event is a message, so
// it has at least one length-delimited field, and the whole parses.
func newer(value []byte) bool {
	field, _, err := only(value)
	return err == nil && field != 0
}
