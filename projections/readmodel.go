package projections

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// ReadModel is one version of a projection's tables. While a version is built, or kept for a rollback, several of a
// projection stand side by side, each in a schema of its own and with its own positions and dead letters; readers see
// the live one through views of the same names.
type ReadModel struct {
	Projection
	Version int
}

// Schema is where the version's tables are.
func (m ReadModel) Schema() string { return m.Name() + "_v" + strconv.Itoa(m.Version) }

func (m ReadModel) String() string { return m.Name() + " version " + strconv.Itoa(m.Version) }

// VersionRow is a version that stands.
type VersionRow struct {
	Projection  string
	Version     int
	FoldVersion int
	Followed    bool // projectors keep it current
	Live        bool // readers see it
}

var versionsSQL = SQL("read_models.versions", `
SELECT v.projection, v.version, v.fold_version, v.followed, v.version = r.live_version
FROM read_model_versions v
JOIN read_models r ON r.projection = v.projection
ORDER BY v.projection, v.version`)

// Versions gives all versions of all projections.
func Versions(ctx context.Context, q Querier) ([]VersionRow, error) {
	rows, err := q.Query(ctx, versionsSQL)
	if err != nil {
		return nil, fmt.Errorf("read the versions of read models: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[VersionRow])
	if err != nil {
		return nil, fmt.Errorf("read the versions of read models: %w", err)
	}
	return all, nil
}

var foldVersionSQL = SQL("read_models.fold_version", `
SELECT v.fold_version FROM read_model_versions v WHERE v.projection = @projection AND v.version = @version`)

// CheckFold refuses, with CodeConflict, a version that another program's fold fills: what this one says of it, or writes to
// it, would be by another rule.
func CheckFold(ctx context.Context, q Querier, m ReadModel) error {
	var fold int
	if err := q.QueryRow(ctx, foldVersionSQL, m.Args()).Scan(&fold); err != nil {
		return fmt.Errorf("read the fold of %s: %w", m, err)
	}
	if fold != m.FoldVersion() {
		return domain.Errorf(domain.CodeConflict, "%s has fold version %d, and this program's is %d: use the program that has %d", m, fold, m.FoldVersion(), fold)
	}
	return nil
}

var claimSQL = SQL("read_models.claim", `
UPDATE read_model_versions v
SET fold_version = @fold_version
FROM read_models r
WHERE v.projection = @projection AND v.fold_version < @fold_version AND r.projection = v.projection AND r.live_version = v.version
  AND NOT EXISTS (SELECT FROM positions p WHERE p.projection = v.projection AND p.version = v.version AND p.next_offset > 0)`)

// Claim makes a live version this program's where nothing was ever folded into it, as in a new database: the migrations,
// which are older than the fold, know its first one only. It tells whether there was such a version.
func Claim(ctx context.Context, tx Tx, p Projection) (bool, error) {
	tag, err := tx.Exec(ctx, claimSQL, pgx.NamedArgs{"projection": p.Name(), "fold_version": p.FoldVersion()})
	if err != nil {
		return false, fmt.Errorf("claim the empty read model of %s: %w", p.Name(), err)
	}
	return tag.RowsAffected() > 0, nil
}

// Live gives the live version of each of the projections, in their order.
func Live(ctx context.Context, q Querier, of []Projection) ([]ReadModel, error) {
	versions, err := Versions(ctx, q)
	if err != nil {
		return nil, err
	}
	models := make([]ReadModel, 0, len(of))
	for _, p := range of {
		for _, v := range versions {
			if v.Live && v.Projection == p.Name() {
				models = append(models, ReadModel{p, v.Version})
			}
		}
	}
	if len(models) != len(of) {
		return nil, domain.Errorf(domain.CodeMisconfigured, "not all projections of this program are in the database: run seenby migrate")
	}
	return models, nil
}
