package faulttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	flagMutants = flag.Bool("mutants", false, "run TestMutants: every bug of mutant_list_test.go against the schedules")
	flagMutant  = flag.String("mutants.only", "", "only the mutants whose names match this expression")
)

// root is the repository's, from this package's folder, where tests run.
const root = "../.."

// TestMutantsApply tells that every mutant still is what it says: its lines stand in the source, once, and what it puts
// there is Go.
func TestMutantsApply(t *testing.T) {
	if len(mutants) < 10 {
		t.Errorf("only %d mutants", len(mutants))
	}
	seen := map[string]bool{}
	all := slices.Clone(mutants)
	for _, m := range rebuildMutants {
		all = append(all, m.mutant)
	}
	for _, m := range all {
		if seen[m.name] || m.why == "" {
			t.Errorf("%s is there twice, or says not why it matters", m.name)
		}
		seen[m.name] = true
		files, err := m.apply()
		if err != nil {
			t.Error(err)
		}
		for name, text := range files {
			if _, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
	}
	gone := one("gone", "It cannot be applied.", "internal/gate/gate.go", "no such line", "")
	if _, err := gone.apply(); err == nil {
		t.Error("a mutant whose lines are not there is applied")
	}
}

// apply gives the files that the mutant changes, by their path in the repository.
func (m mutant) apply() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, e := range m.edits {
		text, ok := files[e.file]
		if !ok {
			var err error
			if text, err = os.ReadFile(filepath.Join(root, e.file)); err != nil {
				return nil, fmt.Errorf("mutant %s: %w", m.name, err)
			}
		}
		if n := bytes.Count(text, []byte(e.old)); n != 1 {
			return nil, fmt.Errorf("mutant %s: its lines stand %d times in %s, not once; it must follow the source:\n%s", m.name, n, e.file, e.old)
		}
		files[e.file] = bytes.Replace(text, []byte(e.old), []byte(e.new), 1)
	}
	return files, nil
}

// mutantSeeds is within how many schedules a mutant must be caught.
const mutantSeeds = 200

// TestMutants runs the schedules against every mutant until one fails, and prints which. It takes some minutes, so it
// runs under -mutants alone (make test-mutants).
func TestMutants(t *testing.T) {
	if !*flagMutants {
		return // nothing of it belongs into a plain go test; TestMutantsApply does
	}
	only, err := regexp.Compile(*flagMutant)
	if err != nil {
		t.Fatal(err)
	}
	const row = "%-36s %-5v %-6v %-8.0f %s\n"
	fmt.Printf(strings.Replace(row, "%-8.0f", "%-8s", 1), "mutant", "seed", "again", "seconds", "caught by")
	survived := 0
	for _, m := range mutants {
		if !only.MatchString(m.name) {
			continue
		}
		begun := time.Now()
		c, err := m.hunt(t.Context(), t.TempDir())
		switch {
		case err != nil:
			t.Errorf("%s: %v", m.name, err)
		case c == nil:
			survived++
			t.Errorf("%s survives %d schedules", m.name, mutantSeeds)
			fmt.Printf(row, m.name, "-", "-", time.Since(begun).Seconds(), "nothing: it survives")
		default:
			again := "yes"
			if !c.again {
				again = "no"
				t.Errorf("%s: seed %d does not fail again", m.name, c.seed)
			}
			fmt.Printf(row, m.name, c.seed, again, time.Since(begun).Seconds(), c.by)
		}
	}
	survived += huntRebuilds(t, only, row)
	fmt.Printf("%d survived\n", survived)
}

// failure is what a schedule prints when it fails.
var failure = regexp.MustCompile(`(?m)^\s*schedule_test\.go:\d+: seed (\d+): (.*)$`)

// caught tells which schedule failed, what it said, and whether the command that it printed makes it fail again.
type caught struct {
	seed  int
	by    string
	again bool
}

// hunt builds the mutant's tests and runs schedules until one fails that also fails when it is run again: one that hung
// on how goroutines took turns need not. Else it gives the last that failed; nil: none does.
func (m mutant) hunt(ctx context.Context, dir string) (*caught, error) {
	binary, err := m.build(ctx, dir, ".")
	if err != nil {
		return nil, err
	}
	var c *caught
	const step = 4 // in a process; a mutant that hangs is stopped by its time limit
	for first := 1; first <= mutantSeeds; first += step {
		out, failed, err := run(ctx, binary, "-test.run=^TestSchedules$", "-test.timeout=10m",
			"-schedules.first="+strconv.Itoa(first), "-schedules.count="+strconv.Itoa(step))
		switch {
		case err != nil:
			return nil, err
		case !failed:
			continue
		}
		found := failure.FindSubmatch(out)
		if found == nil {
			return nil, fmt.Errorf("the schedules from %d on end without a word of their own:\n%s", first, out)
		}
		c = &caught{by: short(string(found[2]))}
		if c.seed, err = strconv.Atoi(string(found[1])); err != nil {
			return nil, err
		}
		_, c.again, err = run(ctx, binary, "-test.run=^TestSchedules$", "-test.timeout=10m", "-schedules.seed="+string(found[1]))
		if err != nil || c.again {
			return c, err
		}
	}
	return c, nil
}

// build makes the test binary of a package, by its path from this one, over the mutant's files.
func (m mutant) build(ctx context.Context, dir, of string) (string, error) {
	files, err := m.apply()
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range files {
		source, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		replace[source] = filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(replace[source], text, 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.test")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return "", err
	}
	out, failed, err := run(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlayFile, "-o", binary, of)
	if failed {
		err = fmt.Errorf("it does not compile:\n%s", out)
	}
	return binary, err
}

// run tells whether a command failed; an error is that it could not be run.
func run(ctx context.Context, name string, args ...string) (out []byte, failed bool, err error) {
	out, err = exec.CommandContext(ctx, name, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, true, nil
	}
	return out, false, err
}

func short(s string) string {
	const most = 100
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
