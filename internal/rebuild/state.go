package rebuild

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// Phase is what a rebuild does.
type Phase string

// The phases, in their order.
const (
	PhaseLoad    Phase = "load"
	PhaseKeys    Phase = "keys"
	PhaseCatchUp Phase = "catch up"
	PhaseProve   Phase = "prove"
	PhaseSwap    Phase = "swap"
	PhaseDone    Phase = "done"
)

// Row is a rebuild as the table has it.
type Row struct {
	ID                      int64
	Projection              string
	Version                 int // that is made
	FoldVersion             int
	FromVersion             int  // that was live when it began
	Proven                  bool // to be compared with that one
	Phase                   Phase
	Wanted                  Wanted
	Outcome                 string // "swapped", "cancelled"; empty: unfinished
	Run                     int
	EventsDone, EventsTotal int64
	Reason                  string // why the last process stopped
	Differences             int64
	AcceptedBy              string
	StartedAt, UpdatedAt    time.Time
	LoadedAt                *time.Time // when everything that there was at first had been read
	EndedAt                 *time.Time
}

// Wanted is what operators want of an unfinished rebuild.
type Wanted string

// What they may want.
const (
	WantedRun    Wanted = "run"
	WantedPause  Wanted = "pause"
	WantedCancel Wanted = "cancel"
)

const rowColumns = `b.id, b.projection, b.version, b.fold_version, b.from_version, b.proven, b.phase, b.wanted, b.outcome, b.run,
       b.events_done, b.events_total, b.reason, b.differences, b.accepted_by, b.started_at, b.updated_at, b.loaded_at, b.ended_at`

var (
	lockReadModelSQL = projections.SQL("rebuild.lock_read_model", `
SELECT r.live_version FROM read_models r WHERE r.projection = @projection FOR NO KEY UPDATE`)
	unfinishedSQL = projections.SQL("rebuild.unfinished", `
SELECT `+rowColumns+`
FROM rebuilds b
WHERE b.projection = @projection AND b.outcome = ''
FOR NO KEY UPDATE`)
	takeOverSQL = projections.SQL("rebuild.take_over", `
UPDATE rebuilds b
SET run = b.run + 1, wanted = 'run', reason = '', updated_at = @now
WHERE b.id = @id`)
	insertSQL = projections.SQL("rebuild.insert", `
INSERT INTO rebuilds AS b (projection, version, fold_version, from_version, proven, phase, wanted, run, started_at, updated_at)
SELECT @projection, @version, @fold_version, @from_version,
       EXISTS (SELECT FROM positions p WHERE p.projection = @projection AND p.version = @from_version AND p.next_offset > 0),
       'load', 'run', 1, @now, @now
RETURNING `+rowColumns)
	nextVersionSQL = projections.SQL("rebuild.next_version", `
SELECT 1 + GREATEST((SELECT max(v.version) FROM read_model_versions v WHERE v.projection = @projection),
                    (SELECT max(b.version) FROM rebuilds b WHERE b.projection = @projection))`)
	insertVersionSQL = projections.SQL("rebuild.insert_version", `
INSERT INTO read_model_versions (projection, version, fold_version, followed)
VALUES (@projection, @version, @fold_version, false)`)
)

// begin makes a rebuild, with its version's tables, or takes over the unfinished one.
func begin(ctx context.Context, deps Deps, p projections.Projection, opts Options) (row Row, err error) {
	args := pgx.NamedArgs{"projection": p.Name(), "fold_version": p.FoldVersion(), "now": deps.Now()}
	err = deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		var live int
		switch err := tx.QueryRow(ctx, lockReadModelSQL, args).Scan(&live); {
		case errors.Is(err, pgx.ErrNoRows):
			return domain.Errorf(domain.CodeMisconfigured, "the database has no read model called %s: run seenby migrate", p.Name())
		case err != nil:
			return fmt.Errorf("lock the read model of %s: %w", p.Name(), err)
		}
		found, unfinished, err := one(tx.Query(ctx, unfinishedSQL, args))
		if err != nil {
			return err
		}
		versions, err := projections.Versions(ctx, tx)
		if err != nil {
			return err
		}
		if err := refusal(p, opts, versions, found, unfinished); err != nil {
			return err
		}
		if unfinished {
			args["id"] = found.ID
			if _, err := tx.Exec(ctx, takeOverSQL, args); err != nil {
				return fmt.Errorf("take over a rebuild: %w", err)
			}
			row = found
			row.Run, row.Wanted = found.Run+1, WantedRun
			return nil
		}
		row, err = create(ctx, tx, p, live, args)
		return err
	})
	return row, err
}

// refusal tells why what stands keeps a rebuild from being begun or gone on with.
func refusal(p projections.Projection, opts Options, versions []projections.VersionRow, found Row, unfinished bool) error {
	var live projections.VersionRow
	kept := 0
	for _, v := range versions {
		switch {
		case v.Projection != p.Name():
		case v.Live:
			live = v
		case !unfinished || v.Version != found.Version:
			kept = v.Version
		}
	}
	switch {
	case live.FoldVersion > p.FoldVersion() && opts.AcceptDifferences == "":
		return domain.Errorf(domain.CodeConflict, "the live version %d of %s has fold version %d, and this program's is %d, an older one: use the program that has %d. To go back, use --rollback while the older version is kept, or else this command with --accept-differences and your name",
			live.Version, p.Name(), live.FoldVersion, p.FoldVersion(), live.FoldVersion)
	case unfinished && found.FoldVersion != p.FoldVersion():
		return domain.Errorf(domain.CodeConflict, "version %d of %s is being made by a program with fold version %d, and this one has %d: go on with that program, or give it up with `seenby rebuild --cancel %s`",
			found.Version, p.Name(), found.FoldVersion, p.FoldVersion(), p.Name())
	case unfinished && found.FromVersion != live.Version:
		return domain.Errorf(domain.CodeConflict, "version %d of %s was to take the place of version %d, and %d is live now: give it up with `seenby rebuild --cancel %s`",
			found.Version, p.Name(), found.FromVersion, live.Version, p.Name())
	case unfinished && found.AcceptedBy != "" && found.Phase == PhaseSwap && opts.AcceptDifferences == "":
		return domain.Errorf(domain.CodeConflict, "version %d of %s differs from the live one, which %s accepted in a run that did not come to the swap: name who accepts it now by --accept-differences, or give it up with `seenby rebuild --cancel %s`",
			found.Version, p.Name(), found.AcceptedBy, p.Name())
	case kept != 0:
		return domain.Errorf(domain.CodeConflict, "version %d of %s is still kept beside the live one: drop it first with `seenby rebuild --drop-old %s`", kept, p.Name(), p.Name())
	}
	return nil
}

func create(ctx context.Context, tx projections.Tx, p projections.Projection, live int, args pgx.NamedArgs) (Row, error) {
	var next int
	if err := tx.QueryRow(ctx, nextVersionSQL, args).Scan(&next); err != nil {
		return Row{}, fmt.Errorf("choose a version: %w", err)
	}
	args["version"], args["from_version"] = next, live
	if _, err := tx.Exec(ctx, insertVersionSQL, args); err != nil {
		return Row{}, fmt.Errorf("insert a version: %w", err)
	}
	if err := cloneTables(ctx, tx, projections.ReadModel{Projection: p, Version: live}, projections.ReadModel{Projection: p, Version: next}); err != nil {
		return Row{}, err
	}
	row, _, err := one(tx.Query(ctx, insertSQL, args))
	return row, err
}

func one(rows pgx.Rows, err error) (row Row, found bool, _ error) {
	if err != nil {
		return Row{}, false, fmt.Errorf("read a rebuild: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Row])
	if err != nil || len(all) == 0 {
		return Row{}, false, err
	}
	return all[0], true, nil
}

// A row that another process took over has another run.
var (
	phaseSQL = projections.SQL("rebuild.phase", `
UPDATE rebuilds b
SET phase = @phase, updated_at = @now, loaded_at = CASE WHEN @phase = 'prove' THEN COALESCE(b.loaded_at, @now) ELSE b.loaded_at END
WHERE b.id = @id AND b.run = @run AND b.outcome = ''`)
	progressSQL = projections.SQL("rebuild.progress", `
UPDATE rebuilds b
SET events_done = @events_done, events_total = @events_total, updated_at = @now
WHERE b.id = @id AND b.run = @run AND b.outcome = ''
RETURNING b.wanted`)
	noteSQL = projections.SQL("rebuild.note", `
UPDATE rebuilds b
SET reason = @reason, updated_at = @now
WHERE b.id = @id AND b.run = @run AND b.outcome = ''`)
	judgedSQL = projections.SQL("rebuild.judged", `
UPDATE rebuilds b
SET differences = @differences, accepted_by = @accepted_by, updated_at = @now
WHERE b.id = @id AND b.run = @run AND b.outcome = ''`)
	endSQL = projections.SQL("rebuild.end", `
UPDATE rebuilds b
SET outcome = @outcome, events_done = GREATEST(b.events_done, @events_done), events_total = GREATEST(b.events_total, @events_total), phase = CASE WHEN @outcome = 'swapped' THEN 'done' ELSE b.phase END, reason = '', updated_at = @now, ended_at = @now
WHERE b.id = @id AND b.run = @run AND b.outcome = ''`)
	holdSQL = projections.SQL("rebuild.hold", `
SELECT FROM rebuilds b WHERE b.id = @id AND b.run = @run AND b.outcome = '' FOR SHARE`)
)

func (r *run) args() pgx.NamedArgs {
	return pgx.NamedArgs{"id": r.row.ID, "run": r.row.Run, "now": r.deps.Now()}
}

// errTakenOver says that another process goes on with the rebuild.
var errTakenOver = domain.Errorf(domain.CodeConflict, "another process has taken the rebuild over, or ended it")

// update changes the rebuild's own row.
func (r *run) update(ctx context.Context, tx projections.Tx, sql string, args pgx.NamedArgs) error {
	tag, err := tx.Exec(ctx, sql, args)
	switch {
	case err != nil:
		return fmt.Errorf("write the rebuild's state: %w", err)
	case tag.RowsAffected() == 0:
		return errTakenOver
	}
	return nil
}

// endArgs are those of endSQL.
func (r *run) endArgs(outcome string) pgx.NamedArgs {
	args := r.args()
	args["outcome"] = outcome
	r.mu.Lock()
	defer r.mu.Unlock()
	args["events_done"], args["events_total"] = r.progress.Done, r.progress.Total
	return args
}

// hold keeps other processes from taking the rebuild over until tx ends. It comes last, since tx may have taken long.
func (r *run) hold(ctx context.Context, tx projections.Tx) error {
	return r.update(ctx, tx, holdSQL, r.args())
}

func (r *run) setPhase(ctx context.Context, phase Phase) error {
	args := r.args()
	args["phase"] = string(phase)
	err := r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return r.update(ctx, tx, phaseSQL, args) })
	if err == nil {
		r.row.Phase = phase
	}
	return err
}

// note writes down why this process stops, for the list. What cannot be written there the process says itself. Rows do
// not go there, which follow in further lines: the table is kept, and rows may hold what has to be erased.
func (r *run) note(ctx context.Context, why error) {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	args := r.args()
	reason, _, _ := strings.Cut(why.Error(), "\n")
	if errors.Is(why, context.Canceled) {
		reason = "interrupted"
	}
	args["reason"] = reason
	if err := r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return r.update(ctx, tx, noteSQL, args) }); err != nil {
		r.deps.Logger.DebugContext(ctx, "the reason was not written down", "err", err)
	}
}

const noteTimeout = 5 * time.Second
