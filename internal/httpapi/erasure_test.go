package httpapi

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/internal/tenancy"
)

// worldErasures is what an api knows of the world's erasures: all of them, unless it is behind or has not read them.
type worldErasures struct {
	w      *world
	unread bool
	behind bool
	noted  map[domain.PersonRef]time.Time
}

func (e *worldErasures) Check(context.Context) error {
	if e.unread {
		return domain.Errorf(domain.CodeUnavailable, "not read yet")
	}
	return nil
}

func (e *worldErasures) ErasedAt(person domain.PersonRef) (time.Time, bool) {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if at, ok := e.noted[person]; ok {
		return at, true
	}
	at, ok := e.w.erased[person]
	return at, ok && !e.behind && !e.unread
}

func (e *worldErasures) Note(mark domain.PersonErased) {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.noted == nil {
		e.noted = map[domain.PersonRef]time.Time{}
	}
	e.noted[mark.Ref] = mark.ErasedAt
}

func TestErasePerson(t *testing.T) {
	w := newWorld()
	deps := w.deps()
	now := noon
	deps.Now = func() time.Time { return now }
	h, err := build(Config{}.withDefaults(), deps, w)
	if err != nil {
		t.Fatal(err)
	}
	do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
	do(h, "POST", "/v1/views", twoViews)
	w.appends = nil
	rec := do(h, "DELETE", "/v1/people/ann", "")
	got := decode[Erasure](t, rec.Body.Bytes())
	want := Erasure{Receipt: got.Receipt, ErasedAt: noon, NameRemoved: true, CompactedBy: noon.Add(48 * time.Hour), Detail: erasureDone}
	if diff := cmp.Diff(want, got); diff != "" || rec.Code != 200 || got.Receipt == "" {
		t.Errorf("%d %s", rec.Code, diff)
	}
	positions, err := tenancy.OpenPositions(acme.Key, rec.Header().Get("Seenby-Position"))
	if err != nil || len(positions) != 1 || positions[0].Topic != domain.TopicPeople || positions[0].NextOffset != w.ends[domain.TopicPeople] {
		t.Errorf("positions %v, %v", positions, err)
	}
	ann := person("ann")
	mark, tombstone := domain.PersonErased{Ref: ann, ErasedAt: noon}, domain.PersonForgotten{Ref: ann}
	if diff := cmp.Diff([][]domain.Event{{mark, tombstone}}, w.appends); diff != "" {
		t.Error(diff)
	}
	if body := do(h, "GET", "/v1/posts/p", "").Body.String(); !strings.Contains(body, `"author":null`) || !strings.Contains(body, `"impressions":2`) {
		t.Error(body)
	}
	// A repeat answers the first date, and says again that the name goes.
	now, w.appends = noon.Add(time.Hour), nil
	if again := decode[Erasure](t, do(h, "DELETE", "/v1/people/ann", "").Body.Bytes()); !cmp.Equal(want, again) {
		t.Error(cmp.Diff(want, again))
	}
	if diff := cmp.Diff([][]domain.Event{{tombstone}}, w.appends); diff != "" {
		t.Error(diff)
	}
	// The receipt tells the same, later also that compaction is over.
	path := "/v1/erasures/" + got.Receipt
	for after, compacted := range map[time.Duration]bool{time.Hour: false, 48*time.Hour - time.Microsecond: false, 48 * time.Hour: true} {
		now, want.Compacted = noon.Add(after), compacted
		rec := do(h, "GET", path, "")
		if told := decode[Erasure](t, rec.Body.Bytes()); rec.Code != 200 || !cmp.Equal(want, told) {
			t.Errorf("after %v: %d %s", after, rec.Code, cmp.Diff(want, told))
		}
	}
	for _, id := range []string{strings.Repeat("a", 256), "%00", "%ff"} {
		wantProblem(t, do(h, "DELETE", "/v1/people/"+id, ""), 422, "invalid")
	}
}

// Nobody can find out by erasing whether a person was known.
func TestErasingAStranger(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "POST", "/v1/views", twoViews)
	known, unknown := do(h, "DELETE", "/v1/people/ann", ""), do(h, "DELETE", "/v1/people/nobody", "")
	blank := func(rec *httptest.ResponseRecorder) Erasure {
		e := decode[Erasure](t, rec.Body.Bytes())
		e.Receipt = fmt.Sprint(len(e.Receipt))
		return e
	}
	if known.Code != 200 || unknown.Code != 200 {
		t.Errorf("%d and %d", known.Code, unknown.Code)
	}
	if diff := cmp.Diff(blank(known), blank(unknown)); diff != "" {
		t.Error(diff)
	}
	if w.erased[person("nobody")].IsZero() {
		t.Error("the stranger is not erased")
	}
	// Of the tenant that asked, and of no other.
	if len(w.erased) != 2 {
		t.Errorf("erased %v", w.erased)
	}
}

// No write names an erased person; the views count under the same person as before.
func TestErasedPeopleAreNotNamed(t *testing.T) {
	w := newWorld()
	first, second := w.api(t, Config{}), w.api(t, Config{})
	do(second, "POST", "/v1/views", strings.ReplaceAll(twoViews, "ann", "cid")) // the second api knows bob
	do(first, "DELETE", "/v1/people/ann", "")
	do(first, "DELETE", "/v1/people/bob", "")
	w.appends, w.log = nil, nil
	for i, h := range []func(string, string, string) int{
		func(m, p, b string) int { return do(first, m, p, b).Code },
		func(m, p, b string) int { return do(second, m, p, b).Code },
	} {
		for range 2 { // also where the api thinks to have named them
			if code := h("POST", "/v1/views", twoViews); code != 202 {
				t.Errorf("api %d, views: %d", i, code)
			}
			if code := h("PUT", "/v1/posts/p", `{"author":"ann"}`); code > 201 {
				t.Errorf("api %d, post: %d", i, code)
			}
		}
	}
	viewers := map[domain.PersonRef]int{}
	for _, e := range w.log {
		switch e := e.(type) {
		case domain.PersonNamed:
			t.Errorf("%s is named", e.ID)
		case domain.ViewReported:
			viewers[e.Viewer]++
		}
	}
	if diff := cmp.Diff(map[domain.PersonRef]int{person("ann"): 4, person("bob"): 4}, viewers); diff != "" {
		t.Error(diff)
	}
	// The other tenant's ann is somebody else.
	do(first, "POST", "/v1/views", twoViews, "Authorization", "Bearer "+otherKey)
	if len(w.names) != 3 { // cid, and the other tenant's two
		t.Errorf("names %v", w.names)
	}
}

// While an api does not know who was erased it names nobody, and appends nothing of such a request.
func TestNobodyIsNamedBeforeErasuresAreRead(t *testing.T) {
	w := newWorld()
	erasures := &worldErasures{w: w}
	deps := w.deps()
	deps.Erasures = erasures
	h, err := build(Config{}.withDefaults(), deps, w)
	if err != nil {
		t.Fatal(err)
	}
	erasures.unread = true
	for _, r := range [][3]string{
		{"POST", "/v1/views", twoViews}, {"PUT", "/v1/posts/p", `{"author":"ann","body":"x"}`}, {"POST", "/v1/posts", `{"author":"ann"}`},
		{"DELETE", "/v1/people/ann", ""},
	} {
		wantProblem(t, do(h, r[0], r[1], r[2]), 503, "unavailable")
		if len(w.log) > 0 {
			t.Errorf("%s %s appended %v", r[0], r[1], w.log)
		}
	}
	erasures.unread = false
	if rec := do(h, "POST", "/v1/views", twoViews); rec.Code != 202 || len(w.names) != 2 {
		t.Errorf("%d, names %v", rec.Code, w.names)
	}
}

// An api that erased somebody does not name them, though it has not read its mark back yet.
func TestOwnErasureCountsAtOnce(t *testing.T) {
	w := newWorld()
	deps := w.deps()
	deps.Erasures = &worldErasures{w: w, behind: true}
	h, err := build(Config{}.withDefaults(), deps, w)
	if err != nil {
		t.Fatal(err)
	}
	do(h, "DELETE", "/v1/people/ann", "")
	do(h, "POST", "/v1/views", twoViews)
	if _, named := w.names[person("ann")]; named || len(w.names) != 1 {
		t.Errorf("names %v", w.names)
	}
}

func TestErasureAcceptedWhereItCannotBeReadBack(t *testing.T) {
	for name, harm := range map[string]func(*world){
		"people stand still": func(w *world) { w.hold(projectionPeople) },
		"PostgreSQL is away": func(w *world) { w.modelsErr = domain.Errorf(domain.CodeUnavailable, "PostgreSQL is away") },
		"made anew":          func(w *world) { w.staleTopicID = true },
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				w := newWorld()
				h := w.api(t, Config{})
				do(h, "POST", "/v1/views", twoViews)
				harm(w)
				began := time.Now()
				rec := do(h, "DELETE", "/v1/people/ann", "")
				got := decode[Erasure](t, rec.Body.Bytes())
				if rec.Code != 202 || got.NameRemoved || got.Receipt == "" || time.Since(began) > 3*time.Second {
					t.Fatalf("%d %+v after %v", rec.Code, got, time.Since(began))
				}
				w.modelsErr, w.staleTopicID = nil, false
				token, path := rec.Header().Get("Seenby-Position"), "/v1/erasures/"+got.Receipt
				if w.held[projectionPeople] {
					if now := decode[Erasure](t, do(h, "GET", path, "").Body.Bytes()); now.NameRemoved || now.Detail != erasureAccepted {
						t.Errorf("%+v", now)
					}
					wantProblem(t, do(h, "GET", path, "", "Seenby-Wait-For", token, "Prefer", "wait=1"), 504, "not_yet_applied")
				}
				w.release()
				rec = do(h, "GET", path, "", "Seenby-Wait-For", token)
				if now := decode[Erasure](t, rec.Body.Bytes()); rec.Code != 200 || !now.NameRemoved || !now.ErasedAt.Equal(got.ErasedAt) {
					t.Errorf("%d %+v", rec.Code, now)
				}
			})
		})
	}
}

// An erasure that Kafka did not acknowledge is not claimed.
func TestErasureThatIsNotAcknowledged(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	w.appendErr = func([]domain.Event) error { return domain.Errorf(domain.CodeUnavailable, "Kafka is away") }
	if rec := do(h, "DELETE", "/v1/people/ann", ""); rec.Header().Get("Seenby-Position") != "" {
		t.Error("a position")
	} else {
		wantProblem(t, rec, 503, "unavailable")
	}
	w.appendErr = nil
	do(h, "POST", "/v1/views", twoViews)
	if len(w.names) != 2 {
		t.Errorf("names %v", w.names)
	}
}

// A receipt opens for the tenant that was given it; all others are told alike.
func TestReceiptsOfOthers(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	receipt := decode[Erasure](t, do(h, "DELETE", "/v1/people/ann", "").Body.Bytes()).Receipt
	want := do(h, "GET", "/v1/erasures/none", "")
	for name, rec := range map[string]*httptest.ResponseRecorder{
		"another tenant's": do(h, "GET", "/v1/erasures/"+receipt, "", "Authorization", "Bearer "+otherKey),
		"cut":              do(h, "GET", "/v1/erasures/"+receipt[:len(receipt)-2], ""),
		"changed":          do(h, "GET", "/v1/erasures/"+strings.ToUpper(receipt), ""),
		"long":             do(h, "GET", "/v1/erasures/"+strings.Repeat("A", 10_000), ""),
		"another kind":     do(h, "GET", "/v1/erasures/"+tenancy.Seal(acme.Key, tenancy.KindCursor, make([]byte, receiptBytes)), ""),
		"another length":   do(h, "GET", "/v1/erasures/"+tenancy.Seal(acme.Key, tenancy.KindErasure, make([]byte, receiptBytes+1)), ""),
	} {
		if rec.Code != 404 || rec.Body.String() != want.Body.String() || !cmp.Equal(rec.Header(), want.Header()) {
			t.Errorf("%s: %d %s %v", name, rec.Code, rec.Body, rec.Header())
		}
	}
	wantProblem(t, want, 404, "not_found")
}

// The 202 of a view waits for the record of its person, too: without it a list would never name the viewer.
func TestViewsWaitForTheirPeople(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		deps := w.deps()
		held := &heldPeople{world: w, release: make(chan struct{})}
		deps.Log = held
		h, err := build(Config{}.withDefaults(), deps, w)
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan *httptest.ResponseRecorder, 2)
		// The second meets the same people before they are acknowledged, so it may not rely on the first.
		for range 2 {
			go func() { answers <- do(h, "POST", "/v1/views", twoViews) }()
			synctest.Wait()
		}
		select {
		case rec := <-answers:
			t.Fatalf("answered before the people stood in the log: %d %s", rec.Code, rec.Body)
		default:
		}
		close(held.release)
		for range 2 {
			rec := <-answers
			positions, err := tenancy.OpenPositions(acme.Key, rec.Header().Get("Seenby-Position"))
			if rec.Code != 202 || err != nil || len(positions) != 2 {
				t.Errorf("%d, positions %v, %v", rec.Code, positions, err)
			}
		}
	})
}

// heldPeople acknowledges nothing that names a person before it is released; views alone it acknowledges at once.
type heldPeople struct {
	*world
	release chan struct{}
}

func (l *heldPeople) Append(ctx context.Context, events ...domain.Event) ([]domain.Position, error) {
	for _, e := range events {
		if _, named := e.(domain.PersonNamed); named {
			<-l.release
		}
	}
	return l.world.Append(ctx, events...)
}
