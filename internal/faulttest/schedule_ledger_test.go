package faulttest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// ledger is what is known from outside: what the apps know, and what stands in the log, read by a client of its own.
type ledger struct {
	plan
	client *kgo.Client

	mu       sync.Mutex
	reported []*reported
	byID     map[viewRef]*reported

	views    [][]viewRecord // by partition
	verdicts [][]verdictRecord
	ends     map[logPlace]int64 // read up to
	repeated map[viewPlace]bool // verdicts that the test wrote a second time
}

type viewRef struct {
	viewer domain.PersonRef
	id     domain.ViewID
}

type viewPlace struct {
	partition int32
	offset    int64
}

type logPlace struct {
	topic     string
	partition int32
}

type viewRecord struct {
	domain.ViewReported
	offset int64
	at     time.Time
}

type verdictRecord struct {
	*domain.Verdict
	offset int64
	raw    *kgo.Record
}

func newLedger(p plan) *ledger {
	return &ledger{
		plan: p, byID: map[viewRef]*reported{}, views: make([][]viewRecord, p.partitions), verdicts: make([][]verdictRecord, p.partitions),
		ends: map[logPlace]int64{}, repeated: map[viewPlace]bool{},
	}
}

func refOf(v *domain.ViewReported) viewRef { return viewRef{v.Viewer, v.ViewID} }

// add tells whether the view is new.
func (l *ledger) add(r *reported) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID[refOf(&r.view)] != nil {
		return false
	}
	l.byID[refOf(&r.view)] = r
	l.reported = append(l.reported, r)
	return true
}

func (l *ledger) acknowledge(views []*reported) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range views {
		r.acked = true
	}
}

// reports are the views that were sent so far.
func (l *ledger) reports() []*reported {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.reported)
}

// read brings the ledger up to the log's end. It tells whether it came there.
func (w *world) read() (bool, error) {
	l := w.ledger
	views, verdicts := prefix+string(domain.TopicViews), prefix+string(domain.TopicVerdicts)
	if l.client == nil {
		from := map[string]map[int32]kgo.Offset{views: {}, verdicts: {}}
		for p := range w.partitions {
			for _, topic := range []string{views, verdicts} {
				from[topic][p] = kgo.NewOffset().At(l.ends[logPlace{topic, p}])
			}
		}
		client, err := kgo.NewClient(append(w.kafka(w.quiet).ClientOpts(),
			kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
			kgo.FetchMaxWait(100*time.Millisecond))...)
		if err != nil {
			return false, err
		}
		l.client = client
	}
	var ends []domain.Position
	for _, topic := range []domain.Topic{domain.TopicViews, domain.TopicVerdicts} {
		at, err := w.own.Ends(w.ctx, topic)
		if err != nil {
			return false, nil //nolint:nilerr // asked again
		}
		ends = append(ends, at...)
	}
	there := func() bool {
		return !slices.ContainsFunc(ends, func(p domain.Position) bool {
			return l.ends[logPlace{prefix + string(p.Topic), p.Partition}] < p.NextOffset
		})
	}
	for !there() {
		ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
		fetches := l.client.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			return false, nil // an open transaction is in the way
		}
		var err error
		fetches.EachRecord(func(r *kgo.Record) {
			l.ends[logPlace{r.Topic, r.Partition}] = r.Offset + 1
			if r.Attrs.IsControl() || err != nil {
				return
			}
			if r.Topic == views {
				err = l.takeView(r)
			} else {
				err = l.takeVerdict(r)
			}
		})
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// rest closes the ledger's client: one that waits for records asks for them ten times a second.
func (l *ledger) rest() {
	if l.client != nil {
		l.client.Close()
		l.client = nil
	}
}

func (l *ledger) takeView(r *kgo.Record) error {
	e, err := eventlog.Decode(domain.TopicViews, r.Key, r.Value)
	if err != nil {
		return err
	}
	l.views[r.Partition] = append(l.views[r.Partition], viewRecord{e.(domain.ViewReported), r.Offset, r.Timestamp})
	return nil
}

func (l *ledger) takeVerdict(r *kgo.Record) error {
	e, err := eventlog.Decode(domain.TopicVerdicts, r.Key, r.Value)
	if err != nil {
		return err
	}
	l.verdicts[r.Partition] = append(l.verdicts[r.Partition], verdictRecord{e.(*domain.Verdict), r.Offset, r})
	return nil
}

// repeatVerdicts writes the last verdict of each partition once more, as no gate does: those who fold verdicts are to
// pass over it.
func (w *world) repeatVerdicts() {
	cfg := w.kafka(w.quiet)
	client, err := kgo.NewClient(cfg.ClientOpts()...)
	if err != nil {
		w.fail(err)
		return
	}
	defer client.Close()
	for p, verdicts := range w.ledger.verdicts {
		if len(verdicts) == 0 {
			continue
		}
		last := verdicts[len(verdicts)-1]
		r := &kgo.Record{Topic: last.raw.Topic, Partition: int32(p), Key: last.raw.Key, Value: last.raw.Value, Timestamp: last.raw.Timestamp} //nolint:gosec // a partition
		if err := client.ProduceSync(w.ctx, r).FirstErr(); err != nil {
			w.fail(err)
			return
		}
		w.ledger.repeated[viewPlace{int32(p), last.ViewOffset}] = true //nolint:gosec // a partition
	}
}

// undecided are the views, of all partitions, that nothing has brought to an end.
func (l *ledger) undecided() (open []string) {
	for p, verdicts := range l.verdicts {
		ended, counted := map[int64]bool{}, map[viewRef]bool{}
		for _, v := range verdicts {
			if v.Readmits != nil {
				ended[*v.Readmits] = true
			}
			if v.Counted() {
				counted[viewRef{v.Viewer, v.ViewID}] = true
			}
		}
		for _, v := range verdicts {
			if v.Reason == domain.ReasonUndecided && !ended[v.ViewOffset] && !counted[viewRef{v.Viewer, v.ViewID}] {
				open = append(open, fmt.Sprintf("views/%d offset %d", p, v.ViewOffset))
			}
		}
	}
	return open
}

// quietMost is how long the installation may take, undisturbed, until nothing moves any more: session time-outs, open
// transactions, pauses and a proof of the keeper's come one after another.
const quietMost = 4 * time.Minute

// awaitQuiet waits until every view has its verdict, no undecided one is open, and everything is folded.
func (w *world) awaitQuiet() error { return w.await(w.moving) }

// awaitVerdicts waits until every view has a verdict.
func (w *world) awaitVerdicts() error { return w.await(w.unjudged) }

// await waits until nothing is left to be said.
func (w *world) await(left func() string) error {
	limit := time.Now().Add(quietMost)
	for {
		read, err := w.read()
		if err == nil {
			err = w.failed()
		}
		if err != nil {
			return err
		}
		why := "the log cannot be read to its end"
		if read {
			if why = left(); why == "" {
				return nil
			}
		}
		if time.Now().After(limit) {
			return fmt.Errorf("never quiet: %s%s", why, w.describe())
		}
		sleep(w.ctx, 500*time.Millisecond)
	}
}

// unjudged names a view without a verdict.
func (w *world) unjudged() string {
	for p := range w.partitions {
		judged := map[int64]bool{}
		for _, v := range w.ledger.verdicts[p] {
			judged[v.ViewOffset] = true
		}
		for _, v := range w.ledger.views[p] {
			if !judged[v.offset] {
				return fmt.Sprintf("views/%d offset %d has no verdict", p, v.offset)
			}
		}
	}
	return ""
}

// moving says what is not done yet.
func (w *world) moving() string {
	if why := w.unjudged(); why != "" {
		return why
	}
	if open := w.ledger.undecided(); len(open) > 0 {
		return fmt.Sprintf("%d views are undecided, %s first", len(open), open[0])
	}
	for _, projection := range []string{"impressions", "uniqueviews"} {
		next, viewNext := w.store.folded(projection)
		for p := range w.partitions {
			end := w.ledger.ends[logPlace{prefix + string(domain.TopicVerdicts), p}]
			if next[p] < end || viewNext[p] < int64(len(w.ledger.views[p])) {
				return fmt.Sprintf("%s stands at %d/%d of verdicts/%d, which ends at %d/%d", projection, next[p], viewNext[p], p, end, len(w.ledger.views[p]))
			}
		}
	}
	return ""
}

// folded is how far a projection has come, by partition.
func (s *memStore) folded(projection string) (next, viewNext map[int32]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, viewNext = map[int32]int64{}, map[int32]int64{}
	for k, r := range s.rows.positions {
		if k.projection == projection {
			next[k.partition], viewNext[k.partition] = r.next, r.viewNext
		}
	}
	return next, viewNext
}

func (l *ledger) summary() string {
	n := map[domain.Reason]int{}
	for _, vs := range l.verdicts {
		for _, v := range vs {
			n[v.Reason]++
		}
	}
	return fmt.Sprint(n)
}
