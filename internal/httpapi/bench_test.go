package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"seenby/domain"
)

// BenchmarkIntake compares a request of 100 views, up to and without Kafka, with a bare handler that decodes the
// same body with the same library into the same events and answers the same bytes. The bound: at least 60 % of
// its throughput. "known" is the steady state, "new" a viewer per view that this process never met.
func BenchmarkIntake(b *testing.B) {
	known, fresh := intakeBodies()
	w := newWorld()
	w.limits.IntakeViewsPerSecond = 10_000_000
	deps := w.deps()
	deps.Now = time.Now // the clock that fills the tenant's bucket
	deps.Log = sink{}
	deps.Logger = slog.New(slog.DiscardHandler)
	h, err := build(Config{}.withDefaults(), deps, w)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bare", func(b *testing.B) { benchIntake(b, http.HandlerFunc(bareIntake), known) })
	b.Run("known", func(b *testing.B) { benchIntake(b, h, known) })
	b.Run("new", func(b *testing.B) { benchIntake(b, h, fresh) })
}

const benchViews = 100

func intakeBodies() (known func() []byte, fresh func() []byte) {
	body := func(first int) []byte {
		var b bytes.Buffer
		b.WriteString(`{"sent_at":"2026-11-23T12:00:00Z","views":[`)
		for i := range benchViews {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"id":"01939a2b-7c3d-7e4f-8a5b-%012x","post":"post-%d","viewer":"user-%d","viewed_at":"2026-11-23T11:59:%02d.123Z","context":{"app":"web","surface":"feed"}}`,
				i, i%7, first+i, i%60)
		}
		b.WriteString(`]}`)
		return b.Bytes()
	}
	same, n := body(0), 0
	return func() []byte { return same }, func() []byte { n += benchViews; return body(n) }
}

func benchIntake(b *testing.B, h http.Handler, body func() []byte) {
	b.ReportAllocs()
	do := func(raw []byte) {
		r := httptest.NewRequest(http.MethodPost, "/v1/views", bytes.NewReader(raw))
		r.Header.Set("Authorization", "Bearer "+acmeKey)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != 202 {
			b.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
	do(body())
	for b.Loop() {
		b.StopTimer()
		raw := body()
		b.StartTimer()
		do(raw)
	}
	b.ReportMetric(float64(b.N*benchViews)/b.Elapsed().Seconds(), "views/s")
}

// sink acknowledges everything.
type sink struct{}

func (sink) Append(_ context.Context, _ ...domain.Event) ([]domain.Position, error) {
	positions := make([]domain.Position, 12)
	for i := range positions {
		positions[i] = domain.Position{Topic: domain.TopicViews, TopicID: domain.TopicID{7}, Partition: int32(i), NextOffset: 1 << 30} //nolint:gosec // small
	}
	return positions, nil
}

// bareIntake is what the api is measured against.
func bareIntake(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var in struct {
		SentAt time.Time `json:"sent_at"`
		Views  []struct {
			ID       string    `json:"id"`
			Post     string    `json:"post"`
			Viewer   string    `json:"viewer"`
			ViewedAt time.Time `json:"viewed_at"`
			Context  *struct {
				App     string `json:"app"`
				Surface string `json:"surface"`
			} `json:"context"`
		} `json:"views"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	events := make([]domain.Event, 0, len(in.Views))
	for i := range in.Views {
		v := &in.Views[i]
		id, err := domain.ParseViewID(v.ID)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		e := domain.ViewReported{Viewer: domain.PersonRef{Tenant: acme.ID}, ViewID: id, Post: domain.PostID(v.Post), ViewedAt: v.ViewedAt, SentAt: in.SentAt}
		if v.Context != nil {
			e.Context = &domain.ViewContext{App: v.Context.App, Surface: v.Context.Surface}
		}
		events = append(events, e)
	}
	if _, err := (sink{}).Append(r.Context(), events...); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(answerViews(len(in.Views), nil, nil))
}
