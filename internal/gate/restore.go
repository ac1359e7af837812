package gate

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// restore rebuilds the memory from the partition's committed verdicts and sets where views are read on. It
// returns how many verdicts it read.
func (s *session) restore(ctx context.Context) (n int64, err error) {
	limits := domain.Limits{DuplicateWindow: s.windows.duplicates, PostCap: domain.PostCap{Window: s.windows.postCap}}
	s.memory = domain.NewMemory(limits)
	verdicts, p := s.topic(domain.TopicVerdicts), s.w.part.Partition
	start, err := s.offset(ctx, verdicts, offsetStart)
	if err != nil {
		return 0, err
	}
	end, err := s.offset(ctx, verdicts, offsetEnd)
	if err != nil {
		return 0, err
	}
	last, err := s.lastVerdict(ctx, start, end)
	if err != nil {
		return 0, err
	}
	if last == nil {
		if start > 0 {
			return 0, domain.Errorf(domain.CodeDataLoss, "%s/%d starts at %d and holds no verdict: where the views were read up to is lost", verdicts, p, start)
		}
		return 0, nil
	}
	from, err := s.offset(ctx, verdicts, last.Timestamp.Add(-s.windows.duplicates).UnixMilli())
	if err != nil {
		return 0, err
	}
	if from < 0 || from > last.Offset {
		from = last.Offset
	}
	if start > 0 && from <= start {
		return 0, domain.Errorf(domain.CodeDataLoss, "%s/%d starts at %d, within the last %v: the counted views below it would be counted again", verdicts, p, start, s.windows.duplicates)
	}
	s.memory = domain.RestoreMemory(limits, last.Timestamp)
	var d decoder
	err = s.readVerdicts(ctx, from, end, func(r *kgo.Record) error {
		v, err := d.decode(r)
		if err != nil {
			return err
		}
		n++
		s.memory.Remember(v, r.Timestamp)
		s.next, s.epoch = v.ViewOffset+1, v.ViewEpoch
		return nil
	})
	return n, err
}

// Steps back from the end of the verdicts: the first finds the last transaction, unless that was aborted.
const (
	stepBackFirst  = 64
	stepBackFactor = 16
)

// lastVerdict finds the last committed verdict in [start, end), or nil.
func (s *session) lastVerdict(ctx context.Context, start, end int64) (last *kgo.Record, err error) {
	for until, step := end, int64(stepBackFirst); until > start && last == nil; step *= stepBackFactor {
		from := max(until-step, start)
		err := s.readVerdicts(ctx, from, until, func(r *kgo.Record) error {
			last = r
			return nil
		})
		if err != nil {
			return nil, err
		}
		until = from
	}
	return last, nil
}

// readBytesMax is how much one fetch of a restore asks for.
const readBytesMax = 16 << 20

// readVerdicts reads the committed verdicts in [from, until) in order. It returns once it has passed until,
// which control records tell too: the offset before a high watermark is a transaction's marker.
func (s *session) readVerdicts(ctx context.Context, from, until int64, f func(*kgo.Record) error) error {
	verdicts, p := s.topic(domain.TopicVerdicts), s.w.part.Partition
	client, err := kgo.NewClient(append(s.w.g.cfg.Kafka.ClientOpts(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{verdicts: {p: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(readBytesMax),
		kgo.FetchMaxPartitionBytes(readBytesMax),
		kgo.DisableFetchSessions(), // to end one takes another connection, and the partition stands still
	)...)
	if err != nil {
		return domain.Errorf(domain.CodeMisconfigured, "kafka settings: %v", err)
	}
	defer client.Close()
	for at := from; at < until; {
		poll, cancel := context.WithTimeout(ctx, restoreStall)
		fetches := client.PollFetches(poll)
		stalled := poll.Err() != nil && fetches.NumRecords() == 0
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case stalled:
			return domain.Errorf(domain.CodeUnavailable, "%s/%d cannot be read past %d of %d: is a transaction open on it?", verdicts, p, at, until)
		}
		for r := range fetches.RecordsAll() {
			if r.Offset < until && !r.Attrs.IsControl() {
				if err := f(r); err != nil {
					return err
				}
			}
			at = r.Offset + 1
		}
		if err := fetchError(fetches, verdicts, at); err != nil {
			return err
		}
	}
	return nil
}

// fetchError is what went wrong in a poll that handed out the records below next: CodeDataLoss, CodeUnavailable or nil.
// The end of a poll's own time is no error.
func fetchError(fetches kgo.Fetches, topic string, next int64) (err error) {
	fetches.EachError(func(_ string, p int32, e error) {
		switch {
		case errors.Is(e, context.DeadlineExceeded), errors.Is(e, context.Canceled), eventlog.NothingLost(e, next):
		case errors.As(e, new(*kgo.ErrDataLoss)):
			// Opening anew would not notice that the log was cut and has grown past us again.
			err = domain.Errorf(domain.CodeDataLoss, "%s/%d lost records that were acknowledged", topic, p).Because(e)
		case err == nil:
			// An offset out of range too: opening anew asks for the log's bounds and says what is lost.
			err = unavailable("read "+topic, e)
		}
	})
	return err
}
