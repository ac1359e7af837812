package projectiontest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"seenby/domain"
	"seenby/projections"
)

// Database is a migrated database of a test's own.
type Database struct {
	Pool *pgxpool.Pool
}

// Open connects to a migrated database.
func Open(t testing.TB, dsn string) *Database {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.RuntimeParams["synchronous_commit"] = "off" // a crash of the server is no subject here
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return &Database{pool}
}

// ParkedAt is when every dead letter of a test is parked.
var ParkedAt = time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)

// lettersMax is beyond what any test parks.
const lettersMax = 1 << 20

// First is the version of a projection's read model that the migrations make. The tests work on it.
func First(p projections.Projection) projections.ReadModel {
	return projections.ReadModel{Projection: p, Version: 1}
}

// Positions gives the positions of the projection in parts, making those that are missing.
func (d *Database) Positions(ctx context.Context, p projections.Projection, parts []domain.Partition) (map[domain.Partition]projections.PositionRow, error) {
	rows := map[domain.Partition]projections.PositionRow{}
	err := pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error {
		if err := projections.InsertMissing(ctx, tx, First(p), parts); err != nil {
			return err
		}
		all, err := projections.PositionsOf(ctx, tx, First(p))
		for _, row := range all {
			if slices.Contains(parts, row.In()) {
				rows[row.In()] = row
			}
		}
		return err
	})
	return rows, err
}

// Deliver folds a batch from where the positions stand, as the projector does. It does not try again: a deadlock
// is an error here, since every projection promises that there is none.
func (d *Database) Deliver(ctx context.Context, p projections.Projection, b domain.Batch) error {
	parts := make([]domain.Partition, len(b.Next))
	for i, n := range b.Next {
		parts[i] = n.In()
	}
	rows, err := d.Positions(ctx, p, parts)
	if err != nil {
		return err
	}
	return d.Write(ctx, p, projections.Cut(rows, b), nil)
}

// Write does a work in a transaction, which fails with before, where that is given, instead of committing.
func (d *Database) Write(ctx context.Context, p projections.Projection, w projections.Work, before error) error {
	w.ParkedAt, w.LettersMax = ParkedAt, lettersMax
	return pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error {
		if _, err := projections.Write(ctx, tx, First(p), w); err != nil {
			return err
		}
		return before
	})
}

// Reset forgets all that the projection wrote.
func (d *Database) Reset(ctx context.Context, p projections.Projection) error {
	for _, table := range p.Tables() {
		if _, err := d.Pool.Exec(ctx, "TRUNCATE "+First(p).Schema()+"."+table); err != nil {
			return err
		}
	}
	for _, table := range []string{"positions", "dead_letters"} {
		if _, err := d.Pool.Exec(ctx, "DELETE FROM "+table+" WHERE projection = $1", p.Name()); err != nil {
			return err
		}
	}
	return nil
}

// Dump is all that the projection wrote, for people and for comparison: a line per row, sorted.
func (d *Database) Dump(ctx context.Context, p projections.Projection) (string, error) {
	var out strings.Builder
	for _, table := range append(p.Tables(), "dead_letters", "positions") {
		query := "SELECT * FROM " + table
		switch table {
		case "dead_letters", "positions":
			query += " WHERE projection = '" + p.Name() + "'"
		}
		lines, err := d.lines(ctx, query)
		if err != nil {
			return "", fmt.Errorf("dump %s: %w", table, err)
		}
		fmt.Fprintf(&out, "%s\n", table)
		for _, line := range lines {
			fmt.Fprintf(&out, "  %s\n", line)
		}
	}
	return out.String(), nil
}

// hidden are columns that say in a dump nothing that matters.
var hidden = map[string]bool{"projection": true, "parked_at": true, "topic_id": true, "discarding": true}

func (d *Database) lines(ctx context.Context, query string) ([]string, error) {
	rows, err := d.Pool.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return nil, err
		}
		var line []string
		for i, f := range rows.FieldDescriptions() {
			if !hidden[f.Name] {
				line = append(line, f.Name+"="+show(values[i]))
			}
		}
		lines = append(lines, strings.Join(line, " "))
	}
	slices.Sort(lines)
	return lines, rows.Err()
}

// show writes person keys, digests and ids of tests as the text that they were made from.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case time.Time:
		if v.Unix() == 0 {
			return "-"
		}
		return v.UTC().Format(time.RFC3339Nano)
	case [16]byte:
		return text(v[:])
	case []byte:
		return text(v)
	case string:
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprint(v)
}

func text(b []byte) string { return fmt.Sprintf("%q", strings.TrimRight(string(b), "\x00")) }
