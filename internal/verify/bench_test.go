package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections"
)

const (
	benchVerdicts   = 10_000_000
	benchPartitions = 12
	benchPosts      = 100_000
	// benchLiveMax leaves room, under 256 MB, for what is read and not collected yet.
	benchLiveMax = 160 << 20
)

// BenchmarkRun recomputes 10 million verdicts, each of a viewer of its own, that are made up as they are asked for: what a
// run itself holds and takes, without Kafka and PostgreSQL (BenchmarkVerify has those).
func BenchmarkRun(b *testing.B) {
	var live uint64
	for b.Loop() {
		w := &made{each: benchVerdicts / benchPartitions}
		watch := func(Progress) {
			held := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
			metrics.Read(held)
			live = max(live, held[0].Value.Uint64())
		}
		runtime.GC()
		r, err := Run(b.Context(), Deps{Log: w, ReadModels: w, Operators: worldOperators{&world{}}, Progress: watch}, Scope{})
		if err != nil || !r.Clean {
			b.Fatalf("%v %+v", err, r.Findings)
		}
	}
	b.ReportMetric(benchVerdicts*float64(b.N)/b.Elapsed().Seconds(), "verdicts/s")
	b.ReportMetric(float64(live)/(1<<20), "MiB-live-heap")
	if live > benchLiveMax {
		b.Errorf("%d MiB are held", live>>20)
	}
}

// made is a log of counted views, and the read models of it.
type made struct{ each int64 }

func (m *made) ends(topic domain.Topic, next int64) []domain.Position {
	out := make([]domain.Position, benchPartitions)
	for n := range out {
		out[n] = domain.Position{Topic: topic, TopicID: topicIDs[topic], Partition: int32(n), NextOffset: next}
	}
	return out
}

func (m *made) Starts(_ context.Context, topic domain.Topic) ([]domain.Position, error) {
	return m.ends(topic, 0), nil
}

func (m *made) Ends(_ context.Context, topic domain.Topic) ([]domain.Position, error) {
	return m.ends(topic, m.each), nil
}

var madeAt = time.UnixMilli(1_700_000_000_000).UTC()

func (m *made) view(n int32, offset int64) domain.ViewReported {
	e := domain.ViewReported{Viewer: domain.PersonRef{Tenant: "demo"}, Post: domain.PostID(fmt.Sprintf("post-%06d", offset*int64(n+1)%benchPosts)), ViewedAt: madeAt}
	binary.LittleEndian.PutUint64(e.Viewer.Person[:], uint64(offset)*benchPartitions+uint64(n)) //nolint:gosec // not negative
	copy(e.ViewID[:], e.Viewer.Person[:])
	return e
}

func (m *made) ReadRange(_ context.Context, from domain.Position, until int64, apply func([]domain.Record) error) error {
	var batch []domain.Record
	for offset := from.NextOffset; offset < until; offset++ {
		e := m.view(from.Partition, offset)
		r := domain.Record{Partition: from.In(), Offset: offset, Time: madeAt, Key: e.Viewer.Key(), Event: e}
		if from.Topic == domain.TopicVerdicts {
			r.Event = &domain.Verdict{Viewer: e.Viewer, ViewID: e.ViewID, ViewOffset: offset, Post: e.Post, LimitsRevision: 1, ClaimedAt: madeAt, ViewedAt: madeAt, Received: madeAt}
		}
		if batch = append(batch, r); len(batch) == 2000 || offset == until-1 {
			if err := apply(batch); err != nil {
				return err
			}
			batch = make([]domain.Record, 0, 2000)
		}
	}
	return nil
}

func (m *made) Read(_ context.Context, _ Scope, to Rows) error {
	state := State{Positions: map[string][]projections.PositionRow{}}
	for _, p := range followed {
		for _, end := range m.ends(domain.TopicVerdicts, m.each) {
			state.Positions[p.Name()] = append(state.Positions[p.Name()], projections.PositionRow{Position: end, ViewNextOffset: end.NextOffset})
		}
	}
	if err := to.State(state); err != nil {
		return err
	}
	counts := map[countKey]int64{}
	for n := range int32(benchPartitions) {
		shard := projections.Shard(n)
		for offset := range m.each {
			e := m.view(n, offset)
			post := domain.PostKey{Tenant: "demo", Post: e.Post}
			to.Viewer(post, e.Viewer.Person, ViewerRow{madeAt.UnixMicro(), madeAt.UnixMicro(), 1}, shard)
			counts[countKey{post, shard}]++
		}
		if n+projections.Shards >= benchPartitions { // the last of its shard: what is not held is not measured
			for k, c := range counts {
				if k.shard == shard {
					to.Impressions(k.post, shard, c, 0, 0)
					to.ViewerCount(k.post, shard, c)
					delete(counts, k)
				}
			}
		}
	}
	return nil
}
