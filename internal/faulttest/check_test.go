package faulttest_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// settleWithin bounds the wait until everything that was broken has been made up for.
const settleWithin = 3 * time.Minute

// settle stops the load and waits until every view has its final verdict, every read model has passed it, and the core system
// has what is counted.
func (w *world) settle(ctx context.Context) error {
	if err := w.load.pause(ctx); err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.Direct...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if err := until(ctx, settleWithin, "everything to settle", func() error {
		// Read models first: what is undecided is appended again, and the ends grow.
		if n := w.watch.open(); n > 0 {
			return fmt.Errorf("%d views are undecided", n)
		}
		ends, err := endsOfViews(ctx, admin, 5*time.Second)
		if err != nil {
			return err
		}
		if err := w.watch.judgedTo(ends); err != nil {
			return err
		}
		if n := w.watch.open(); n > 0 {
			return fmt.Errorf("%d views are undecided", n)
		}
		return w.passed(ctx, admin)
	}); err != nil {
		return err
	}
	return w.awaitCore(ctx)
}

// passed tells whether every projection has passed the ends of its topics.
func (w *world) passed(ctx context.Context, admin *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.pg.DSN)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT p.projection, p.topic, p.partition, p.next_offset FROM positions p")
	if err != nil {
		return err
	}
	type position struct {
		Projection, Topic string
		Partition         int32
		NextOffset        int64
	}
	at, err := pgx.CollectRows(rows, pgx.RowToStructByPos[position])
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	var topics []string
	for _, p := range at {
		if !seen[p.Topic] {
			seen[p.Topic] = true
			topics = append(topics, prefix+p.Topic)
		}
	}
	if len(topics) == 0 {
		return errors.New("no projection has a position")
	}
	ends, err := admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return err
	}
	for _, p := range at {
		end, ok := ends.Lookup(prefix+p.Topic, p.Partition)
		if !ok || end.Err != nil || p.NextOffset < end.Offset {
			return fmt.Errorf("%s has passed %d of %d of %s/%d (%w)", p.Projection, p.NextOffset, end.Offset, p.Topic, p.Partition, errors.Join(end.Err, errNoAnswer))
		}
	}
	return nil
}

// finding is what a check found.
type finding struct {
	counted, lost, doubled int
	problems               []string
}

// check holds ledger, verdicts and read models against each other. Everything has settled before.
func (w *world) check(ctx context.Context) (finding, error) {
	var f finding
	f.counted, f.lost, f.doubled, f.problems = w.ledger.compare()
	w.watch.mu.Lock()
	f.lost += w.watch.totals.missing
	f.doubled += w.watch.totals.twice
	f.problems = append(f.problems, w.watch.problems...)
	w.watch.mu.Unlock()
	for _, p := range w.processes {
		f.problems = append(f.problems, p.alarms()...)
	}
	if err := w.verify(ctx); err != nil {
		f.problems = append(f.problems, err.Error())
	}
	want := w.expectation()
	conn, err := pgx.Connect(ctx, w.pg.DSN)
	if err != nil {
		return f, err
	}
	defer conn.Close(ctx)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return f, err
	}
	defer tx.Rollback(ctx)
	for _, c := range []func(context.Context, pgx.Tx, *expectation, *finding) error{
		checkImpressions, checkPairs, checkUniqueCounts, checkTimeSeries, checkDeadLetters,
	} {
		if err := c(ctx, tx, want, &f); err != nil {
			return f, err
		}
	}
	w.core.check(want, &f)
	return f, nil
}

// verify asks the program's own checker. It recomputes from the log alone, and knows nothing of
// the ledger.
func (w *world) verify(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, w.program, "verify")
	cmd.Env = w.direct()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("seenby verify: %w\n%s", err, out)
	}
	return nil
}

// expectation is what the read models must hold.
type expectation struct {
	posts map[string]*postExpectation
	pairs map[pair]int64
}

type postExpectation struct{ impressions, anonymous, unique int64 }

type pair struct{ post, viewer string }

func (w *world) expectation() *expectation {
	e := &expectation{posts: map[string]*postExpectation{}, pairs: map[pair]int64{}}
	w.ledger.countedViews(func(v view) {
		p := e.posts[v.post]
		if p == nil {
			p = &postExpectation{}
			e.posts[v.post] = p
		}
		p.impressions++
		if v.anonymous {
			p.anonymous++
			return
		}
		key := pair{v.post, v.viewer}
		if e.pairs[key] == 0 {
			p.unique++
		}
		e.pairs[key]++
	})
	return e
}

// differ notes a read model that holds more or less than it must.
func (f *finding) differ(what string, have, want int64) {
	switch {
	case have < want:
		f.lost += int(want - have)
	case have > want:
		f.doubled += int(have - want)
	default:
		return
	}
	if len(f.problems) < 3*problemsMax {
		f.problems = append(f.problems, fmt.Sprintf("%s: %d, must be %d", what, have, want))
	}
}

func checkImpressions(ctx context.Context, tx pgx.Tx, want *expectation, f *finding) error {
	rows, err := tx.Query(ctx, `
		SELECT i.post, sum(i.impressions)::bigint, sum(i.anonymous_impressions)::bigint FROM impressions i GROUP BY i.post`)
	if err != nil {
		return err
	}
	have := map[string]postExpectation{}
	var post string
	var n, anonymous int64
	if _, err := pgx.ForEachRow(rows, []any{&post, &n, &anonymous}, func() error {
		have[post] = postExpectation{impressions: n, anonymous: anonymous}
		return nil
	}); err != nil {
		return err
	}
	for post, w := range want.posts {
		f.differ("impressions of "+post, have[post].impressions, w.impressions)
		f.differ("anonymous impressions of "+post, have[post].anonymous, w.anonymous)
	}
	for post, h := range have {
		if want.posts[post] == nil {
			f.differ("impressions of "+post, h.impressions, 0)
		}
	}
	return nil
}

// checkPairs compares every pair of post and viewer; names come from the read model of people.
func checkPairs(ctx context.Context, tx pgx.Tx, want *expectation, f *finding) error {
	rows, err := tx.Query(ctx, `
		SELECT u.post, COALESCE(p.id, encode(u.viewer, 'hex')), u.views
		FROM unique_views u LEFT JOIN people p ON p.tenant = u.tenant AND p.person = u.viewer`)
	if err != nil {
		return err
	}
	found := 0
	var key pair
	var views int64
	if _, err := pgx.ForEachRow(rows, []any{&key.post, &key.viewer, &views}, func() error {
		found++
		f.differ(fmt.Sprintf("views of %s by %s", key.post, key.viewer), views, want.pairs[key])
		return nil
	}); err != nil {
		return err
	}
	f.differ("pairs of post and viewer", int64(found), int64(len(want.pairs)))
	return nil
}

func checkUniqueCounts(ctx context.Context, tx pgx.Tx, want *expectation, f *finding) error {
	rows, err := tx.Query(ctx, "SELECT c.post, sum(c.unique_viewers)::bigint FROM unique_view_counts c GROUP BY c.post")
	if err != nil {
		return err
	}
	have := map[string]int64{}
	var post string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&post, &n}, func() error { have[post] = n; return nil }); err != nil {
		return err
	}
	for post, w := range want.posts {
		f.differ("unique viewers of "+post, have[post], w.unique)
		delete(have, post)
	}
	for post, n := range have {
		f.differ("unique viewers of "+post, n, 0)
	}
	return nil
}

// checkTimeSeries compares the counted views of each post, and of the tenant (no post), over all hours and over all days.
func checkTimeSeries(ctx context.Context, tx pgx.Tx, want *expectation, f *finding) error {
	rows, err := tx.Query(ctx, `
		SELECT t.post, t.unit, sum(t.views)::bigint FROM timeseries_posts t WHERE t.reason = '' GROUP BY t.post, t.unit
		UNION ALL
		SELECT '', t.unit, sum(t.views)::bigint FROM timeseries_tenants t WHERE t.reason = '' GROUP BY t.unit`)
	if err != nil {
		return err
	}
	type series struct{ post, unit string }
	have := map[series]int64{}
	var key series
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&key.post, &key.unit, &n}, func() error { have[key] = n; return nil }); err != nil {
		return err
	}
	wanted := map[string]int64{}
	for post, w := range want.posts {
		wanted[post] = w.impressions
		wanted[""] += w.impressions
	}
	for _, unit := range []string{"hour", "day"} {
		for post, n := range wanted {
			key := series{post, unit}
			f.differ(fmt.Sprintf("views of %q by %s", post, unit), have[key], n)
			delete(have, key)
		}
	}
	for key, n := range have {
		f.differ(fmt.Sprintf("views of %q by %s", key.post, key.unit), n, 0)
	}
	return nil
}

func checkDeadLetters(ctx context.Context, tx pgx.Tx, _ *expectation, f *finding) error {
	var n int64
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM dead_letters").Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		f.problems = append(f.problems, fmt.Sprintf("%d dead letters", n))
	}
	return nil
}
