package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestRebuildKilled: kill -9 of the process at the end of each phase, with all its work done and not yet written down;
// the same command then finishes, and what it made is right.
func TestRebuildKilled(t *testing.T) {
	t.Parallel()
	in, key := install(t)
	in.setLimits(unlimited)
	in.verifiableTraffic(key)
	api := in.serve(key, "api,gate,projector,keeper")
	conn, err := pgx.Connect(t.Context(), in.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	stop := in.readsAndViews(api)
	for _, c := range []struct{ projection, phase string }{
		{"uniqueviews", "load"}, {"uniqueviews", "keys"}, {"posts", "catch up"}, {"posts", "prove"}, {"uniqueviews", "swap"},
	} {
		in.killedRebuild(conn, c.projection, c.phase)
		out := in.command("rebuild", c.projection)
		if !strings.Contains(out, "of "+c.projection+" is live") || !strings.Contains(out, "both versions said the same") && c.phase != "swap" {
			t.Errorf("after a kill in %s of %s:\n%s", c.phase, c.projection, out)
		}
		in.verify(exitOK)
		in.command("rebuild", "--drop-old", c.projection)
	}
	in.killedRebuild(conn, "people", "prove")
	eventually(t, 30*time.Second, "the list to miss the process", func() error {
		for _, text := range []string{"being made", "stopped: prove", "its process has ended"} {
			if out := in.command("rebuild", "--list"); !strings.Contains(out, text) {
				return fmt.Errorf("it says nothing of %q:\n%s", text, out)
			}
		}
		return nil
	})
	in.says(exitOK, []string{"is given up"}, "rebuild", "--cancel", "people")
	if out := in.command("rebuild", "--list"); strings.Contains(out, "being made") {
		t.Errorf("it is left:\n%s", out)
	}
	stop()
	in.settle(t)
	in.verify(exitOK)
}

// rebuildGate is the advisory lock at which a rebuild waits.
const rebuildGate = 4711

// killedRebuild runs a rebuild as a process of its own, and kills it as it leaves a phase.
func (in *installation) killedRebuild(conn *pgx.Conn, projection, phase string) {
	in.t.Helper()
	path, err := builtBinary()
	if err != nil {
		in.t.Fatal(err)
	}
	in.mustChange(conn, fmt.Sprintf(`
		SELECT pg_advisory_lock(%[1]d);
		CREATE FUNCTION at_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(%[1]d); RETURN NEW; END $$;
		CREATE TRIGGER at_the_gate BEFORE UPDATE ON rebuilds FOR EACH ROW WHEN (OLD.phase = '%[2]s' AND NEW.phase <> OLD.phase) EXECUTE FUNCTION at_the_gate()`,
		rebuildGate, phase))
	out := &syncBuffer{}
	cmd := exec.Command(path, "rebuild", projection)
	cmd.Env, cmd.Stdout, cmd.Stderr = in.environ, out, out
	if err := cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(in.t, 2*time.Minute, "the rebuild to be through with "+phase, func() error {
		select {
		case err := <-ended:
			in.t.Fatalf("it ended: %v\n%s", err, out)
		default:
		}
		var waiting bool
		if err := conn.QueryRow(in.t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted)`, rebuildGate).Scan(&waiting); err != nil {
			return err
		}
		if !waiting {
			return errors.New("it is not at the gate")
		}
		return nil
	})
	if err := cmd.Process.Kill(); err != nil {
		in.t.Fatal(err)
	}
	if err := <-ended; err == nil {
		in.t.Error("it ended before it was killed")
	}
	// Its backend waits for the lock, and finds out by itself that nobody waits for its answer.
	eventually(in.t, 20*time.Second, "what it held to be free", func() error {
		var waiting int
		if err := conn.QueryRow(in.t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted`, rebuildGate).Scan(&waiting); err != nil {
			return err
		}
		if waiting > 0 {
			return errors.New("a backend of the dead process still waits")
		}
		return nil
	})
	in.mustChange(conn, fmt.Sprintf(`DROP TRIGGER at_the_gate ON rebuilds; DROP FUNCTION at_the_gate; SELECT pg_advisory_unlock(%d)`, rebuildGate))
}
