package projectiontest

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// The load of FIGURES.md: posts by Zipf's law, viewers evenly.
const (
	benchBatch      = 5000
	benchPosts      = 100_000
	benchZipf       = 1.1
	benchViewers    = 1_000_000
	benchPartitions = 12
	benchPrepared   = 60 // batches made beforehand, so that making them up is not measured
)

// BenchmarkApply measures how many verdicts a second one projector folds, positions and commits included, in
// batches of 5,000 over 12 partitions.
func BenchmarkApply(b *testing.B, dsn string, p projections.Projection) {
	d := Open(b, dsn)
	ctx := b.Context()
	r := rand.New(rand.NewSource(1))                     //nolint:gosec // repeatable
	posts := rand.NewZipf(r, benchZipf, 1, benchPosts-1) //nolint:gosec // repeatable
	parts := make([]domain.Partition, benchPartitions)
	for i := range parts {
		parts[i] = domain.Partition{Topic: domain.TopicVerdicts, TopicID: TopicID(domain.TopicVerdicts), Partition: int32(i)} //nolint:gosec // small
	}
	rows, err := d.Positions(ctx, p, parts)
	if err != nil {
		b.Fatal(err)
	}
	batch := func() []domain.Verdict {
		all := make([]domain.Verdict, benchBatch)
		for i := range all {
			viewer := r.Intn(benchViewers)
			v := &all[i]
			v.Viewer = domain.PersonRef{Tenant: "demo", Person: Person(fmt.Sprintf("viewer%d", viewer))}
			v.Post = domain.PostID(fmt.Sprintf("post-%d", posts.Uint64()))
			v.ViewedAt = Start.Add(time.Duration(r.Int63n(int64(24 * time.Hour))))
			v.LimitsRevision = int64(viewer % benchPartitions) // carries the partition
		}
		return all
	}
	prepared := make([][]domain.Verdict, benchPrepared)
	for i := range prepared {
		prepared[i] = batch()
	}
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		if i >= benchPrepared {
			b.StopTimer()
			prepared[i%benchPrepared] = batch()
			b.StartTimer()
		}
		var in domain.Batch
		next := map[domain.Partition]int64{}
		for j := range prepared[i%benchPrepared] {
			v := &prepared[i%benchPrepared][j]
			part := parts[v.LimitsRevision]
			at, begun := next[part]
			if !begun {
				at = rows[part].NextOffset
			}
			v.ViewOffset = at
			in.Records = append(in.Records, domain.Record{Partition: part, Offset: at, Event: v, Time: v.ViewedAt})
			next[part] = at + 1
		}
		for part, at := range next {
			in.Next = append(in.Next, part.At(at))
		}
		w := projections.Cut(rows, in)
		if err := d.Write(ctx, p, w, nil); err != nil {
			b.Fatal(err)
		}
		for _, m := range w.Moves {
			row := rows[m.From.In()]
			row.NextOffset, row.ViewNextOffset = m.NextOffset, m.ViewNextOffset
			rows[m.From.In()] = row
		}
	}
	b.ReportMetric(float64(b.N*benchBatch)/b.Elapsed().Seconds(), "views/s")
}
