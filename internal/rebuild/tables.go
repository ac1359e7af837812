package rebuild

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/projections"
)

var storageSQL = projections.SQL("rebuild.storage", `
SELECT COALESCE(array_to_string(c.reloptions, ', '), '')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = @schema AND c.relname = @table`)

// A newer program's migration may have added tables that this program does not know.
var tablesSQL = projections.SQL("rebuild.tables", `
SELECT c.relname
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = @schema AND c.relkind = 'r'
ORDER BY c.relname`)

func tablesOf(ctx context.Context, q projections.Querier, m projections.ReadModel) ([]string, error) {
	rows, err := q.Query(ctx, tablesSQL, pgx.NamedArgs{"schema": m.Schema()})
	if err != nil {
		return nil, fmt.Errorf("read the tables of %s: %w", m, err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the tables of %s: %w", m, err)
	}
	return tables, nil
}

// cloneTables makes a version's schema with the tables of another one, without rows, keys and indexes.
func cloneTables(ctx context.Context, tx projections.Tx, from, to projections.ReadModel) error {
	if _, err := tx.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{to.Schema()}.Sanitize()); err != nil {
		return fmt.Errorf("make the schema of %s: %w", to, err)
	}
	tables, err := tablesOf(ctx, tx, from)
	if err != nil {
		return err
	}
	for _, table := range tables {
		sql := fmt.Sprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES)", qualified(to, table), qualified(from, table))
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the table %s of %s: %w", table, to, err)
		}
		var storage, comment string
		args := pgx.NamedArgs{"schema": from.Schema(), "table": table}
		if err := tx.QueryRow(ctx, storageSQL, args).Scan(&storage); err != nil {
			return fmt.Errorf("read the storage of %s: %w", table, err)
		}
		if storage != "" { // LIKE does not take these along
			if _, err := tx.Exec(ctx, fmt.Sprintf("ALTER TABLE %s SET (%s)", qualified(to, table), storage)); err != nil {
				return fmt.Errorf("set the storage of %s: %w", table, err)
			}
		}
		if err := tx.QueryRow(ctx, commentSQL, args).Scan(&comment); err != nil {
			return fmt.Errorf("read the comment of %s: %w", table, err)
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf("COMMENT ON TABLE %s IS %s", qualified(to, table), literal(comment))); err != nil {
			return fmt.Errorf("comment %s: %w", table, err)
		}
	}
	return nil
}

var commentSQL = projections.SQL("rebuild.comment", `
SELECT COALESCE(obj_description(c.oid), '')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = @schema AND c.relname = @table`)

func qualified(m projections.ReadModel, table string) string {
	return pgx.Identifier{m.Schema(), table}.Sanitize()
}

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// Constraints go by the name of their index.
var indexesSQL = projections.SQL("rebuild.indexes", `
SELECT t.relname, x.relname, COALESCE(k.contype::text, ''), pg_get_indexdef(i.indexrelid),
       EXISTS (SELECT FROM pg_class m JOIN pg_namespace mn ON mn.oid = m.relnamespace WHERE mn.nspname = @made AND m.relname = x.relname),
       EXISTS (SELECT FROM pg_constraint m JOIN pg_namespace mn ON mn.oid = m.connamespace WHERE mn.nspname = @made AND m.conname = x.relname)
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
WHERE n.nspname = @schema
ORDER BY i.indisprimary DESC, t.relname, x.relname`)

// index is an index of the live version, and maybe that of a constraint of the same name.
type index struct {
	Table, Name, Constraint, Definition string
	Made, Constrains                    bool // in the new version too
}

// keys gives the new version the indexes and constraints of the live one and tells the planner what is in its tables, each
// in a transaction of its own. Where nobody waits for live read models, as many indexes are made at once as there are
// workers: to wait between two of them is the only way to spare others.
func (r *run) keys(ctx context.Context) error {
	var all []index
	if err := r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		rows, err := q.Query(ctx, indexesSQL, pgx.NamedArgs{"schema": r.live.Schema(), "made": r.model.Schema()})
		if err != nil {
			return fmt.Errorf("read the indexes of %s: %w", r.live, err)
		}
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[index])
		return err
	}); err != nil {
		return err
	}
	group, making := errgroup.WithContext(ctx)
	group.SetLimit(1)
	if r.opts.LagMax == 0 {
		group.SetLimit(max(1, r.opts.Workers))
	}
	for i, x := range all {
		if x.Made {
			continue
		}
		sql, err := x.make(r.live, r.model)
		if err != nil {
			return err
		}
		group.Go(func() error {
			r.tell(func(p *Progress) { p.Detail = fmt.Sprintf("%s, %d of %d", x.Name, i+1, len(all)) })
			if err := r.alter(making, sql); err != nil {
				return fmt.Errorf("make %s of %s: %w", x.Name, r.model, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, x := range all {
		if x.Constraint == "" || x.Constrains {
			continue
		}
		if err := r.alter(ctx, x.constrain(r.model)); err != nil {
			return fmt.Errorf("make the constraint %s of %s: %w", x.Name, r.model, err)
		}
	}
	for _, table := range r.model.Tables() {
		r.tell(func(p *Progress) { p.Detail = "ANALYZE " + table })
		if err := r.alter(ctx, "ANALYZE "+qualified(r.model, table)); err != nil {
			return fmt.Errorf("analyze %s of %s: %w", table, r.model, err)
		}
	}
	return nil
}

// constraints are those that an index that stands can be made into, as PostgreSQL names their types.
var constraints = map[string]string{"p": "PRIMARY KEY", "u": "UNIQUE"}

// make is the statement that makes the index in another version.
func (x index) make(from, to projections.ReadModel) (string, error) {
	before, after, found := strings.Cut(x.Definition, " ON "+from.Schema()+".")
	if !found || x.Constraint != "" && constraints[x.Constraint] == "" {
		return "", domain.Errorf(domain.CodeInternal, "index %s of %s is not understood: %s", x.Name, from, x.Definition)
	}
	return before + " ON " + to.Schema() + "." + after, nil
}

// constrain is the statement that makes the index, which stands, that of its constraint.
func (x index) constrain(to projections.ReadModel) string {
	name := pgx.Identifier{x.Name}.Sanitize()
	return fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s USING INDEX %s", qualified(to, x.Table), name, constraints[x.Constraint], name)
}

// alter runs a statement on the new version's tables in a transaction of its own, while the rebuild is this process's.
func (r *run) alter(ctx context.Context, sql string) error {
	if err := r.mayGoOn(ctx); err != nil {
		return err
	}
	return r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
		return r.hold(ctx, tx)
	})
}
