package tenancy

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"seenby/domain"
)

// topicCodes spell a topic in one byte of a position token. Append only: tokens live longer than a process.
var topicCodes = []domain.Topic{
	domain.TopicPosts, domain.TopicAudiences, domain.TopicViews, domain.TopicVerdicts,
	domain.TopicPeople, domain.TopicBodies, domain.TopicTenants, domain.TopicImpressions,
}

// partitionsMax bounds what a decoder believes; no installation has nearly as many.
const partitionsMax = 1 << 16

// EncodePositions packs positions for Seal: per topic its code, its id and its partitions, ascending, as
// differences, each with its next offset. The greatest of repeated positions is kept. 48 partitions of three
// topics take about 700 bytes. The slice is sorted in place; a topic of another name panics.
func EncodePositions(positions []domain.Position) []byte {
	slices.SortFunc(positions, func(a, b domain.Position) int {
		return cmp.Or(
			cmp.Compare(topicCode(a.Topic), topicCode(b.Topic)),
			slices.Compare(a.TopicID[:], b.TopicID[:]),
			cmp.Compare(a.Partition, b.Partition),
			cmp.Compare(b.NextOffset, a.NextOffset), // greatest first: CompactFunc keeps the first
		)
	})
	positions = slices.CompactFunc(positions, func(a, b domain.Position) bool { return a.In() == b.In() })
	out := make([]byte, 0, 20+6*len(positions))
	for len(positions) > 0 {
		first := positions[0]
		n := slices.IndexFunc(positions, func(p domain.Position) bool { return p.Topic != first.Topic || p.TopicID != first.TopicID })
		if n < 0 {
			n = len(positions)
		}
		out = append(out, topicCode(first.Topic))
		out = append(out, first.TopicID[:]...)
		out = binary.AppendUvarint(out, uint64(n)) //nolint:gosec // a length
		last := int32(-1)
		for _, p := range positions[:n] {
			out = binary.AppendUvarint(out, uint64(p.Partition-last-1)) //nolint:gosec // ascending
			out = binary.AppendUvarint(out, uint64(p.NextOffset))       //nolint:gosec // never negative
			last = p.Partition
		}
		positions = positions[n:]
	}
	return out
}

// DecodePositions reads what EncodePositions made; anything else is CodeInvalid.
func DecodePositions(b []byte) ([]domain.Position, error) {
	bad := domain.Errorf(domain.CodeInvalid, "holds no positions")
	var out []domain.Position
	for len(b) > 0 {
		var id domain.TopicID
		if len(b) < 1+len(id) || int(b[0]) >= len(topicCodes) {
			return nil, bad
		}
		topic := topicCodes[b[0]]
		copy(id[:], b[1:])
		b = b[1+len(id):]
		n, used := binary.Uvarint(b)
		if used <= 0 || n == 0 || n > uint64(len(b)) {
			return nil, bad
		}
		b = b[used:]
		last := int64(-1)
		for range n {
			step, used := binary.Uvarint(b)
			if used <= 0 || step > partitionsMax {
				return nil, bad
			}
			b = b[used:]
			next, used := binary.Uvarint(b)
			if used <= 0 || next > math.MaxInt64 {
				return nil, bad
			}
			b = b[used:]
			last += int64(step) + 1 //nolint:gosec // bounded above
			if last > partitionsMax {
				return nil, bad
			}
			out = append(out, domain.Position{Topic: topic, TopicID: id, Partition: int32(last), NextOffset: int64(next)}) //nolint:gosec // bounded above
		}
	}
	return out, nil
}

// SealPositions is the token of positions.
func SealPositions(key domain.TenantKey, positions []domain.Position) string {
	return Seal(key, KindPosition, EncodePositions(positions))
}

// OpenPositions reads a token of SealPositions.
func OpenPositions(key domain.TenantKey, token string) ([]domain.Position, error) {
	payload, err := Open(key, KindPosition, token)
	if err != nil {
		return nil, err
	}
	return DecodePositions(payload)
}

func topicCode(t domain.Topic) byte {
	i := slices.Index(topicCodes, t)
	if i < 0 {
		panic("tenancy: a position of an unknown topic: " + string(t))
	}
	return byte(i) //nolint:gosec // fewer than 256
}
