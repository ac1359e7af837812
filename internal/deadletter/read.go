package deadletter

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// read reads the records of letters of one partition again: from the log, else from the copy that the table keeps of
// what could not be decoded. The log comes first, since it also has the record's own time.
func (d *Desk) read(ctx context.Context, letters []Chosen) (records map[int64]domain.Record, gone string, err error) {
	m, in := letters[0].Of, letters[0].Partition
	offsets := make([]int64, len(letters))
	for i, l := range letters {
		offsets[i] = l.Offset
	}
	records, gone, err = d.deps.Log.ReadAt(ctx, in, offsets)
	if err != nil {
		return nil, "", err
	}
	for _, l := range letters {
		if r, found := records[l.Offset]; found && !l.Is(r) {
			delete(records, l.Offset)
			gone = "another record stands in its place: the log was cut off behind it, and has grown since"
		}
	}
	missing := map[int64]projections.Letter{}
	var kept []int64
	for _, l := range letters {
		if _, found := records[l.Offset]; !found && l.ValueBytes >= 0 {
			missing[l.Offset] = l.Letter
			kept = append(kept, l.Offset)
		}
	}
	if len(kept) == 0 {
		return records, gone, nil
	}
	var values map[int64][]byte
	err = d.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
		values, err = projections.LetterValues(ctx, q, m, in, kept)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	for offset, value := range values {
		l := missing[offset]
		r := domain.Record{Partition: in, Offset: offset, Time: l.RecordedAt, Key: l.Key}
		if r.Time.Equal(time.Unix(0, 0)) {
			r.Time = time.Time{} // what was no time a table can hold is kept as the epoch
		}
		if r.Event, r.Err = d.deps.Decode(in.Topic, l.Key, value); r.Err != nil {
			r.Value = value
		}
		records[offset] = r
	}
	return records, gone, nil
}

// overtaken looks for later records that take back what letters say. Only texts are taken back by what waits for
// nothing, so nil for every other topic: it reads the partition from the first of the letters on.
func (d *Desk) overtaken(letters []Chosen) func(context.Context, int64) (map[int64]bool, error) {
	m, in := letters[0].Of, letters[0].Partition
	if in.Topic != domain.TopicBodies {
		return nil
	}
	waiting := map[string][]projections.Letter{}
	for _, l := range letters {
		waiting[string(l.Key)] = append(waiting[string(l.Key)], l.Letter)
	}
	gone := map[int64]bool{}
	scanned := letters[0].Offset
	return func(ctx context.Context, next int64) (map[int64]bool, error) {
		if scanned >= next {
			return gone, nil
		}
		err := d.deps.Log.Scan(ctx, in.At(scanned), next, func(r domain.Record) {
			scanned = max(scanned, r.Offset+1)
			for _, l := range waiting[string(r.Key)] {
				if l.Offset < r.Offset && projections.Overtakes(m, r, l.OrderKey) {
					gone[l.Offset] = true
				}
			}
		})
		return gone, err
	}
}
