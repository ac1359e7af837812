package rebuild

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/projections"
)

// prove compares the new version with the live one at one vector of positions.
func (r *run) prove(ctx context.Context) error {
	if !r.row.Proven {
		r.tell(func(p *Progress) { p.Detail = "nothing to compare with" })
		return nil
	}
	if err := r.unpaused(ctx); err != nil {
		return err
	}
	// It may have come this far, or been paused here, long ago: what is left is not read while the live version is held.
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	if can, err := r.waitForLive(ctx); err != nil || !can {
		return err
	}
	r.holding.Store(true)
	defer r.holding.Store(false)
	var differences []Difference
	var err error
	if r.compacted() {
		err = r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			at, err := projections.LockPositions(ctx, tx, r.live) // its projectors wait until the comparison is through
			if err != nil {
				return err
			}
			differences, err = r.compare(ctx, tx, at)
			return err
		})
	} else {
		err = r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
			at, err := projections.PositionsOf(ctx, q, r.live)
			if err != nil {
				return err
			}
			differences, err = r.compare(ctx, q, at)
			return err
		})
	}
	if err != nil {
		return err
	}
	return r.judge(ctx, differences)
}

// judge decides what differences mean.
func (r *run) judge(ctx context.Context, differences []Difference) error {
	n := int64(0)
	for _, d := range differences {
		n += d.Rows
	}
	r.row.Differences, r.row.AcceptedBy = n, ""
	if n > 0 {
		r.row.AcceptedBy = r.opts.AcceptDifferences
	}
	args := r.args()
	args["differences"], args["accepted_by"] = n, r.row.AcceptedBy
	if err := r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return r.update(ctx, tx, judgedSQL, args) }); err != nil {
		return err
	}
	switch {
	case n == 0:
		r.tell(func(p *Progress) { p.Detail = "both versions say the same" })
	case r.row.AcceptedBy == "":
		return &Unequal{Projection: r.model.Name(), Live: r.live.Version, Version: r.model.Version, Rows: n, Differences: differences}
	}
	return nil
}

// Difference is what is not the same in a table.
type Difference struct {
	Table  string
	Rows   int64
	AtMost bool            // some of these rows may be the same: too many differ to look at each
	Some   []RowDifference // the first of them
}

// RowDifference is a row as the two versions have it; empty: that one does not.
type RowDifference struct{ Live, Made string }

// Unequal says that the proof failed. It is a domain.Error of CodeConflict.
type Unequal struct {
	Projection    string
	Live, Version int
	Rows          int64
	Differences   []Difference
}

func (u *Unequal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version %d of %s differs from the live version %d in %d rows, and nothing was swapped", u.Version, u.Projection, u.Live, u.Rows)
	for _, d := range u.Differences {
		most := ""
		if d.AtMost {
			most = "at most "
		}
		fmt.Fprintf(&b, "\n  %s: %s%d rows", d.Table, most, d.Rows)
		for _, row := range d.Some {
			fmt.Fprintf(&b, "\n    live:    %s\n    rebuilt: %s", orNone(row.Live), orNone(row.Made))
		}
		if more := d.Rows - int64(len(d.Some)); more > 0 {
			fmt.Fprintf(&b, "\n    and %d more", more)
		}
	}
	b.WriteString("\nWhere the live version is the damaged one, or the rule has changed, accept that: run the same command with --accept-differences and your name; else give the rebuild up with --cancel")
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Unwrap gives the code.
func (u *Unequal) Unwrap() error {
	return domain.Errorf(domain.CodeConflict, "the versions of %s differ", u.Projection)
}

// compacted tells whether a topic of the projection forgets: then the log between two vectors is not what it was when
// the live version read it, and both must stand where the log ends.
func (r *run) compacted() bool {
	return slices.ContainsFunc(r.model.Topics(), func(t domain.Topic) bool { return t == domain.TopicBodies || t == domain.TopicPeople })
}

// compare compares the live version, as q sees it at a vector, with the new one, which is brought exactly there.
func (r *run) compare(ctx context.Context, live projections.Querier, at []projections.PositionRow) ([]Difference, error) {
	to := make([]domain.Position, len(at))
	for i, row := range at {
		to[i] = row.Position
	}
	r.tell(func(p *Progress) { p.Detail = "checksums of both versions" })
	seed := r.row.ID<<16 + int64(r.row.Run) // no app can have made rows for it
	checks := map[string][2]map[int64]checksum{}
	for _, table := range r.model.Tables() {
		checks[table] = [2]map[int64]checksum{{}, {}}
	}
	var group errgroup.Group
	group.Go(func() error {
		for _, table := range r.model.Tables() {
			if err := checksums(ctx, live, r.live, table, seed, checks[table][0]); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		if _, err := r.follow(ctx, to); err != nil {
			return err
		}
		return r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
			for _, table := range r.model.Tables() {
				if err := checksums(ctx, q, r.model, table, seed, checks[table][1]); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var out []Difference
	for _, table := range r.model.Tables() {
		ranges := differing(checks[table][0], checks[table][1])
		if len(ranges) == 0 {
			continue
		}
		d, err := r.rows(ctx, live, table, ranges[:min(len(ranges), rangesMax)])
		for _, n := range ranges[min(len(ranges), rangesMax):] {
			d.AtMost = true
			d.Rows += max(checks[table][0][n].rows, checks[table][1][n].rows)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// checksum is of the rows whose key falls into one range.
type checksum struct{ rows, sum int64 }

// ranges is into how many parts a table is cut by the hash of its rows' keys: a difference among a hundred million rows
// is then looked for among ten thousand.
const ranges = 8192

// checksums reads a table once. The rows' hashes are joined by XOR, so that order does not matter; a key occurs once.
func checksums(ctx context.Context, q projections.Querier, m projections.ReadModel, table string, seed int64, into map[int64]checksum) error {
	key, err := keyOf(ctx, q, m, table)
	if err != nil {
		return err
	}
	rows, err := q.Query(ctx, fmt.Sprintf(`SELECT %s, count(*), bit_xor(hash_record_extended(t, $1)) FROM %s t GROUP BY 1`,
		bucket(key), qualified(m, table)), seed)
	if err != nil {
		return fmt.Errorf("checksums of %s of %s: %w", table, m, err)
	}
	var n int64
	var c checksum
	if _, err := pgx.ForEachRow(rows, []any{&n, &c.rows, &c.sum}, func() error { into[n] = c; return nil }); err != nil {
		return fmt.Errorf("checksums of %s of %s: %w", table, m, err)
	}
	return nil
}

func bucket(key []string) string {
	return fmt.Sprintf("(hash_record_extended(ROW(t.%s), 0) & %d)", strings.Join(key, ", t."), ranges-1)
}

// keyOf are the columns of a table's key, quoted.
func keyOf(ctx context.Context, q projections.Querier, m projections.ReadModel, table string) ([]string, error) {
	var key []string
	if err := q.QueryRow(ctx, keySQL, pgx.NamedArgs{"schema": m.Schema(), "table": table}).Scan(&key); err != nil {
		return nil, fmt.Errorf("read the key of %s of %s: %w", table, m, err)
	}
	return key, nil
}

var keySQL = projections.SQL("rebuild.key", `
SELECT array_agg(quote_ident(a.attname) ORDER BY array_position(i.indkey::smallint[], a.attnum))
FROM pg_index i
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (i.indkey::smallint[])
WHERE n.nspname = @schema AND t.relname = @table AND i.indisprimary`)

func differing(a, b map[int64]checksum) []int64 {
	var out []int64
	for n := range int64(ranges) {
		if a[n] != b[n] {
			out = append(out, n)
		}
	}
	return out
}

const (
	// someRows is how many rows of a table are shown.
	someRows = 20
	// rangesAtOnce bounds the rows in memory: a differing range is read whole from both versions.
	rangesAtOnce = 16
	// rangesMax bounds how often the tables are read, while the live version is held: once for each few ranges. Where more
	// differ, it is no stray row, and a fold that has changed makes all of them differ.
	rangesMax = 4 * rangesAtOnce
)

// rows finds the differing rows of ranges, the first ones with what they hold.
func (r *run) rows(ctx context.Context, live projections.Querier, table string, in []int64) (Difference, error) {
	d := Difference{Table: table}
	for some := range slices.Chunk(in, rangesAtOnce) {
		was, err := rangeRows(ctx, live, r.live, table, some)
		if err != nil {
			return d, err
		}
		var is map[string]string
		if err := r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
			is, err = rangeRows(ctx, q, r.model, table, some)
			return err
		}); err != nil {
			return d, err
		}
		keys := map[string]bool{}
		for key, row := range was {
			if is[key] != row {
				keys[key] = true
			}
		}
		for key := range is {
			if _, both := was[key]; !both {
				keys[key] = true
			}
		}
		d.Rows += int64(len(keys))
		for key := range keys {
			if len(d.Some) < someRows {
				d.Some = append(d.Some, RowDifference{shortened(was[key]), shortened(is[key])})
			}
		}
	}
	slices.SortFunc(d.Some, func(a, b RowDifference) int { return strings.Compare(a.Live+a.Made, b.Live+b.Made) })
	return d, nil
}

// rowBytesMax is how much of a row is shown: a text may be long.
const rowBytesMax = 1000

func shortened(row string) string {
	if len(row) <= rowBytesMax {
		return row
	}
	return strings.ToValidUTF8(row[:rowBytesMax], "") + "…"
}

// rangeRows are the rows of ranges, as text, by their key as text.
func rangeRows(ctx context.Context, q projections.Querier, m projections.ReadModel, table string, in []int64) (map[string]string, error) {
	key, err := keyOf(ctx, q, m, table)
	if err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, fmt.Sprintf(`SELECT ROW(t.%s)::text, row_to_json(t)::text FROM %s t WHERE %s = ANY($1::bigint[])`,
		strings.Join(key, ", t."), qualified(m, table), bucket(key)), in)
	if err != nil {
		return nil, fmt.Errorf("read differing rows of %s of %s: %w", table, m, err)
	}
	out := map[string]string{}
	var k, row string
	if _, err := pgx.ForEachRow(rows, []any{&k, &row}, func() error { out[k] = row; return nil }); err != nil {
		return nil, fmt.Errorf("read differing rows of %s of %s: %w", table, m, err)
	}
	return out, nil
}
