package faulttest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// rebuildMutant is a bug in a rebuild. The schedules know no rebuilds: a test of internal/rebuild must catch it.
type rebuildMutant struct {
	mutant
	test string
}

// rebuildMutants are all of them.
var rebuildMutants = []rebuildMutant{
	{one("swap-without-passing",
		"The new version becomes live while it is still behind: counts go back.",
		"internal/rebuild/swap.go",
		`				if behind == 0 {
					break`,
		`				if behind >= 0 {
					break`), "TestNoCountGoesBack"},
	{one("snapshot-without-lock",
		"A swap comes between two statements of a snapshot, which then reads the new version as it was when it was behind.",
		"internal/postgres/postgres.go",
		`const beginSnapshot = "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ; LOCK TABLE read_models IN ACCESS SHARE MODE"`,
		`const beginSnapshot = "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"`), "TestNoCountGoesBack"},
	{one("swap-forgets-as-of",
		"The new version is complete to no known time until projectors have told it one: as_of goes back.",
		"internal/rebuild/swap.go",
		`			if err := asComplete(ctx, tx, to, at); err != nil {`,
		`			if err := error(nil); err != nil {`), "TestAsOfDoesNotGoBack"},
	{one("proof-of-nothing",
		"Checksums that differ are passed over.",
		"internal/rebuild/prove.go",
		`		if a[n] != b[n] {`,
		`		if a[n] != b[n] && n < 0 {`), "TestAnyRowThatDiffersIsNamed"},
	{one("proof-of-keys-alone",
		"The checksum is of a row's key: a row that was changed is not found.",
		"internal/rebuild/prove.go",
		`bit_xor(hash_record_extended(t, $1))`,
		`bit_xor($1::bigint)`), "TestAnyRowThatDiffersIsNamed"},
	{one("proof-reads-under-the-lock",
		"What has gathered since the last process came to the proof is read while the live version is held.",
		"internal/rebuild/prove.go",
		`	if err := r.catchUp(ctx); err != nil {
		return err
	}
	if can, err`,
		`	if can, err`), "TestTheLiveVersionIsHeldForLittle"},
	{one("pause-under-the-lock",
		"A pause in the middle of the proof holds the live version for as long.",
		"internal/rebuild/progress.go",
		`	if r.holding.Load() || r.handsOver.Load() {`,
		`	if r.handsOver.Load() {`), "TestTheLiveVersionIsHeldForLittle"},
	{one("zombie-of-a-rebuild-writes",
		"A process that was taken for dead folds on, past the positions at which its successor compares.",
		"internal/rebuild/follow.go",
		`	if r.row.Phase == PhaseSwap {
		return nil`,
		`	if r.row.Phase != "" {
		return nil`), "TestTakenOver"},
	{one("new-poison-is-parked",
		"What the live version has applied becomes a dead letter of the new one.",
		"internal/rebuild/follow.go",
		`	if len(places) == 0 || !r.row.Proven {`,
		`	if len(places) >= 0 || !r.row.Proven {`), "TestPoison"},
	{one("any-log-will-do",
		"The rebuild is made from a log that has lost what the live version holds.",
		"internal/rebuild/follow.go",
		`		case i >= 0 && row.NextOffset > ends[i].NextOffset:`,
		`		case i >= 0 && row.NextOffset > ends[i].NextOffset && i < 0:`), "TestALogThatIsNotWhole"},
	{one("rows-in-the-history",
		"The history keeps rows that differ, with names that were to be erased.",
		"internal/rebuild/state.go",
		`	reason, _, _ := strings.Cut(why.Error(), "\n")`,
		`	reason := strings.Clone(why.Error())`), "TestAnyRowThatDiffersIsNamed"},
	{one("cancelled-anyway",
		"A rebuild that swapped before it heard of it is said to be dropped.",
		"internal/rebuild/control.go",
		`	if outcome != "cancelled" {`,
		`	if outcome == "" {`), "TestCancelComesTooLate"},
	{one("rollback-to-what-is-being-made",
		"An unfinished rebuild is made live without its proof.",
		"internal/rebuild/control.go",
		`			case unfinished:
				return`,
		`			case unfinished && row.ID == 0:
				return`), "TestStoppedInEachPhase"},
	{one("lost-answer-to-the-swap",
		"A swap whose answer was lost is said to be another process's.",
		"internal/rebuild/swap.go",
		`	if outcome != "swapped" || by != r.row.Run {`,
		`	if outcome != "" || by != r.row.Run {`), "TestALostAnswerToTheSwap"},
}

// rebuildTestMax is far beyond what a test of rebuilds takes: a mutant may wait for ever.
const rebuildTestMax = "2m"

// huntRebuilds runs the tests against the mutants of rebuilds, and tells how many survive.
func huntRebuilds(t *testing.T, only *regexp.Regexp, row string) (survived int) {
	t.Helper()
	of := filepath.Join(root, "internal/rebuild")
	for _, m := range rebuildMutants {
		if !only.MatchString(m.name) {
			continue
		}
		begun := time.Now()
		binary, err := m.build(t.Context(), t.TempDir(), of)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		cmd := exec.CommandContext(t.Context(), binary, "-test.run=^("+m.test+")$", "-test.timeout="+rebuildTestMax)
		cmd.Dir = of
		by := m.test
		if out, err := cmd.CombinedOutput(); err == nil {
			survived++
			t.Errorf("%s survives:\n%s", m.name, out)
			by = "nothing: it survives"
		}
		fmt.Printf(row, m.name, "-", "-", time.Since(begun).Seconds(), by)
	}
	return survived
}
