package relay

import (
	"context"
	"errors"
	"testing"

	"seenby/domain"
)

// stubSource notes where it reads; seeking is what it does before it has moved.
type stubSource struct {
	at      map[domain.Partition]int64
	seeking func() error
}

func (s *stubSource) Seek(_ context.Context, at []domain.Position) error {
	if s.seeking != nil {
		if err := s.seeking(); err != nil {
			return err
		}
	}
	for _, p := range at {
		s.at[p.In()] = p.NextOffset
	}
	return nil
}

func (s *stubSource) Drop(parts []domain.Partition) {
	for _, p := range parts {
		delete(s.at, p)
	}
}

func (s *stubSource) Poll(context.Context, int) (domain.Batch, error) { return domain.Batch{}, nil }
func (s *stubSource) Close()                                          {}

// Partitions come and go while the source takes its time.
func TestReadingFollowsWhatIsWantedMeanwhile(t *testing.T) {
	first, second := domain.Partition{Topic: domain.TopicVerdicts}, domain.Partition{Topic: domain.TopicVerdicts, Partition: 1}
	everything := func(domain.Partition) bool { return true }
	for _, tt := range []struct {
		what  string
		while func(r *reading)
		want  map[domain.Partition]int64
	}{
		{"dropped", func(r *reading) { r.drop(everything) }, map[domain.Partition]int64{}},
		{"one is dropped", func(r *reading) { r.drop(func(p domain.Partition) bool { return p == first }) }, map[domain.Partition]int64{second: 7}},
		{"dropped and wanted again", func(r *reading) {
			r.drop(everything)
			r.want([]domain.Position{first.At(5)})
		}, map[domain.Partition]int64{first: 5}},
		{"wanted earlier", func(r *reading) { r.want([]domain.Position{first.At(3)}) }, map[domain.Partition]int64{first: 3, second: 7}},
	} {
		for _, failure := range []error{nil, errors.New("away")} {
			s := &stubSource{at: map[domain.Partition]int64{}}
			r := &reading{source: s, marks: newMarks(), mine: func(domain.PostKey) bool { return true }}
			r.want([]domain.Position{first.At(5), second.At(7)})
			s.seeking = func() error {
				s.seeking = nil
				tt.while(r)
				return failure
			}
			if err := r.step(t.Context()); !errors.Is(err, failure) {
				t.Errorf("%s: %v", tt.what, err)
			}
			if err := r.step(t.Context()); err != nil {
				t.Errorf("%s: %v", tt.what, err)
			}
			if len(s.at) != len(tt.want) {
				t.Errorf("%s, %v: it reads %v, not %v", tt.what, failure, s.at, tt.want)
			}
			for p, offset := range tt.want {
				if s.at[p] != offset {
					t.Errorf("%s, %v: it reads %v, not %v", tt.what, failure, s.at, tt.want)
				}
			}
		}
	}
}
