package eventlog

import (
	"context"

	"seenby/domain"
)

// forgetBatchMax bounds what one append of tombstones holds.
const forgetBatchMax = 1000

// ForgetTenant appends a tombstone for every name and every text of a tenant that stand on people and bodies now,
// and says how many they were. It reads both topics from their starts, and may be repeated: tombstones ask for
// nothing. It goes by keys alone, so that a record that nobody can read leaves, too. Marks of erased people stay.
func (l *Log) ForgetTenant(ctx context.Context, tenant domain.TenantID) (names, texts int, err error) {
	if names, err = l.forget(ctx, domain.TopicPeople, tenant); err != nil {
		return names, 0, err
	}
	texts, err = l.forget(ctx, domain.TopicBodies, tenant)
	return names, texts, err
}

func (l *Log) forget(ctx context.Context, topic domain.Topic, tenant domain.TenantID) (n int, err error) {
	starts, err := l.Starts(ctx, topic)
	if err != nil {
		return 0, err
	}
	ends, err := l.Ends(ctx, topic)
	if err != nil {
		return 0, err
	}
	reader, err := l.NewReader()
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	if err := reader.Seek(ctx, starts); err != nil {
		return 0, err
	}
	for !reader.Passed(ends) {
		b, err := reader.Poll(ctx, forgetBatchMax)
		if err != nil {
			return n, err
		}
		var tombstones []domain.Event
		for _, r := range b.Records {
			if of, _, _ := domain.SplitTenant(r.Key); of != tenant {
				continue
			}
			if e := tombstoneOf(topic, r); e != nil {
				tombstones = append(tombstones, e)
			}
		}
		if _, err := l.Append(ctx, tombstones...); err != nil {
			return n, err
		}
		n += len(tombstones)
	}
	return n, nil
}

// tombstoneOf is what takes a record of people or bodies away; nil for a tombstone and for a mark.
func tombstoneOf(topic domain.Topic, r domain.Record) domain.Event {
	switch r.Event.(type) {
	case domain.PersonForgotten, domain.PostBodyErased:
		return nil
	}
	if topic == domain.TopicBodies {
		if post, id, ok := domain.ParseBodyKey(r.Key); ok {
			return domain.PostBodyErased{PostRef: post, EventID: id}
		}
		return nil
	}
	if ref, mark, ok := domain.ParsePersonKey(r.Key); ok && !mark {
		return domain.PersonForgotten{Ref: ref}
	}
	return nil
}
