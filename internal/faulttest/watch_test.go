package faulttest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// watch reads every verdict as the brokers hand it out, committed ones alone, and holds it against the ledger. Its
// connections go straight to the servers: no fault but theirs touches them.
type watch struct {
	w          *world
	partitions int

	mu        sync.Mutex
	next      []int64 // by partition: the view offset whose verdict comes next
	undecided map[viewAt]int
	totals    verdictTotals
	problems  []string

	stalls stalls
}

// viewAt names a record of views.
type viewAt struct {
	partition int32
	offset    int64
}

// verdictTotals count verdicts.
type verdictTotals struct {
	counted, refused int
	undecided        int // part of refused
	missing, twice   int // records of views without a verdict, and with a second one
}

func newWatch(ctx context.Context, w *world) (*watch, error) {
	h := &watch{w: w, partitions: partitions, next: make([]int64, partitions), undecided: map[viewAt]int{}}
	start := map[int32]kgo.Offset{}
	for p := range int32(partitions) {
		start[p] = kgo.NewOffset().At(0)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(w.cluster.Direct...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{prefix + string(domain.TopicVerdicts): start}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // else a leader that changes before a marker looks like a log that was cut
		kgo.MetadataMinAge(250*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	h.stalls = stalls{ends: make([]int64, partitions), passed: make([]int64, partitions), since: make([]time.Time, partitions)}
	w.background.Go(func() {
		defer client.Close()
		h.follow(ctx, client)
	})
	w.background.Go(func() { h.sampleEnds(ctx) })
	w.background.Go(func() { h.samplePositions(ctx) })
	return h, nil
}

func (h *watch) follow(ctx context.Context, client *kgo.Client) {
	passed := make([]int64, partitions)
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		for r := range fetches.RecordsAll() {
			passed[r.Partition] = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			e, err := eventlog.Decode(domain.TopicVerdicts, r.Key, r.Value)
			v, ok := e.(*domain.Verdict)
			if err != nil || !ok {
				h.complain("verdicts/%d offset %d is no verdict: %v", r.Partition, r.Offset, err)
				continue
			}
			h.take(r.Partition, v)
		}
		fetches.EachError(func(_ string, p int32, err error) {
			if errors.As(err, new(*kgo.ErrDataLoss)) && !eventlog.NothingLost(err, passed[p]) {
				h.complain("verdicts/%d: %v", p, err)
			}
		})
	}
}

// take checks that each record of views has one verdict, in order. Nothing is ever missing between two offsets of
// views, since nothing there is written in a transaction.
func (h *watch) take(partition int32, v *domain.Verdict) {
	n, known := h.w.ledger.number(v.ViewID)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch next := h.next[partition]; {
	case v.ViewOffset < next:
		h.totals.twice++
		h.complainLocked("views/%d offset %d has a second verdict (%s)", partition, v.ViewOffset, v.Reason)
	case v.ViewOffset > next:
		h.totals.missing += int(v.ViewOffset - next)
		h.complainLocked("views/%d has no verdict from offset %d to %d", partition, next, v.ViewOffset-1)
	}
	h.next[partition] = max(h.next[partition], v.ViewOffset+1)
	if !known {
		h.complainLocked("views/%d offset %d: nobody reported the view %x", partition, v.ViewOffset, v.ViewID)
		return
	}
	at := viewAt{partition, v.ViewOffset}
	if v.Readmits != nil {
		delete(h.undecided, viewAt{partition, *v.Readmits})
	}
	if v.Counted() {
		h.totals.counted++
		if times := h.w.ledger.count(n); times > 1 {
			h.complainLocked("views/%d offset %d: view %d is counted %d times", partition, v.ViewOffset, n, times)
		}
		return
	}
	h.totals.refused++
	switch v.Reason {
	case domain.ReasonDuplicate:
	case domain.ReasonUndecided:
		h.totals.undecided++
		h.undecided[at] = n
	case domain.ReasonNotInAudience:
		h.w.ledger.refuse(n)
		if viewOf(h.w.ledger.seed, n).counts {
			h.complainLocked("views/%d offset %d: view %d is refused as not_in_audience", partition, v.ViewOffset, n)
		}
	default:
		h.complainLocked("views/%d offset %d: view %d is refused as %s", partition, v.ViewOffset, n, v.Reason)
	}
}

func (h *watch) complain(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.complainLocked(format, args...)
}

func (h *watch) complainLocked(format string, args ...any) {
	if len(h.problems) < problemsMax {
		h.problems = append(h.problems, fmt.Sprintf(format, args...))
	}
}

// open counts the undecided views that nothing has settled yet: neither their own readmission nor a counted verdict of
// their id.
func (h *watch) open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, n := range h.undecided {
		if h.w.ledger.isCounted(n) {
			delete(h.undecided, at)
		}
	}
	return len(h.undecided)
}

// judgedTo tells whether every view below the ends has its verdict.
func (h *watch) judgedTo(ends []int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p, end := range ends {
		if h.next[p] < end {
			return fmt.Errorf("views/%d is judged up to %d of %d", p, h.next[p], end)
		}
	}
	return nil
}

// stalls measure how long counting stands still: for a partition, how long views wait in it and impressions or
// unique viewers pass none of them; for all of them, how long no view was acknowledged.
type stalls struct {
	mu           sync.Mutex
	ends, passed []int64 // of views, by partition
	since        []time.Time
	longest      time.Duration
}

const sampleEvery = 100 * time.Millisecond

func (s *stalls) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.since {
		s.since[p] = time.Now()
	}
	s.longest = 0
}

// took is the longest time since the last reset.
func (s *stalls) took() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longest
}

// sample takes what is known of the ends or of the positions.
func (s *stalls) sample(into []int64, now []int64, silent time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, n := range now {
		before := s.passed[p]
		into[p] = max(into[p], n)
		if s.passed[p] > before || s.passed[p] >= s.ends[p] {
			s.since[p] = time.Now()
		}
		s.longest = max(s.longest, time.Since(s.since[p]))
	}
	s.longest = max(s.longest, silent)
}

// passedTo tells whether both have passed the ends.
func (s *stalls) passedTo(ends []int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, end := range ends {
		if s.passed[p] < end {
			return fmt.Errorf("counted up to %d of %d of views/%d", s.passed[p], end, p)
		}
	}
	return nil
}

func (h *watch) sampleEnds(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(h.w.cluster.Direct...), kgo.MetadataMinAge(250*time.Millisecond))
	if err != nil {
		h.complain("open a client: %v", err)
		return
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for ctx.Err() == nil {
		ends, _ := endsOfViews(ctx, admin, time.Second)
		h.stalls.sample(h.stalls.ends, ends, h.w.silent())
		sleep(ctx, sampleEvery)
	}
}

// endsOfViews asks the ends of views; 0 where a partition does not answer.
func endsOfViews(ctx context.Context, admin *kadm.Client, within time.Duration) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	topic := prefix + string(domain.TopicViews)
	listed, err := admin.ListEndOffsets(ctx, topic)
	ends := make([]int64, partitions)
	for p := range ends {
		o, ok := listed.Lookup(topic, int32(p))
		if !ok || o.Err != nil {
			err = errors.Join(err, fmt.Errorf("views/%d: %w", p, errors.Join(o.Err, errNoAnswer)))
			continue
		}
		ends[p] = o.Offset
	}
	return ends, err
}

var errNoAnswer = errors.New("no answer")

func (h *watch) samplePositions(ctx context.Context) {
	var conn *pgx.Conn
	for ctx.Err() == nil {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		var err error
		if conn == nil {
			conn, err = pgx.Connect(ask, h.w.pg.DSN)
		}
		if err == nil {
			var now []int64
			if now, err = passedViews(ask, conn); err == nil {
				h.stalls.sample(h.stalls.passed, now, 0)
			} else {
				conn.Close(ask)
				conn = nil
			}
		} else {
			conn = nil
			h.stalls.sample(h.stalls.passed, make([]int64, partitions), 0)
		}
		cancel()
		sleep(ctx, sampleEvery)
	}
	if conn != nil {
		conn.Close(context.WithoutCancel(ctx))
	}
}

func passedViews(ctx context.Context, conn *pgx.Conn) ([]int64, error) {
	rows, err := conn.Query(ctx, `
		SELECT p.partition, min(p.view_next_offset) FROM positions p WHERE p.projection IN ('impressions', 'uniqueviews')
		GROUP BY p.partition HAVING count(*) = 2`)
	if err != nil {
		return nil, err
	}
	passed := make([]int64, partitions)
	var partition int32
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&partition, &next}, func() error {
		passed[partition] = next
		return nil
	})
	return passed, err
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
