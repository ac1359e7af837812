package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/config"
)

var update = flag.Bool("update", false, "write the settings' table into README.md")

const (
	root       = "../.."
	readmePath = root + "/README.md"
)

// TestReadmeCommands runs what the README tells a newcomer to type, as it stands. Every block of shell in it has
// to be known here.
func TestReadmeCommands(t *testing.T) {
	text, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlocks(string(text))
	want := []string{
		"go run ./cmd/seenby dev\n",    // run below
		"go test -timeout 20m ./...\n", // is running this: .ci/run runs exactly it
		strings.NewReplacer("%ADDR%", "127.0.0.1:8080", "%KEYFILE%", ".seenby/dev.key").Replace(tour), // what dev prints, see TestDev
	}
	if len(blocks) != len(want)+2 {
		t.Fatalf("README.md has %d blocks of shell, %d are known", len(blocks), len(want)+2)
	}
	for i := range want {
		if blocks[i] != want[i] {
			t.Errorf("block %d of README.md is\n%s\nwant\n%s", i+1, blocks[i], want[i])
		}
	}
	d := startDev(t, t.TempDir(), nil, "bash", "-c", "cd ../.. && exec "+blocks[0])
	checkTour(t, d.tourOf(t))
	tellsCore(t, d, blocks[3], blocks[4])
}

// tellsCore runs the tour with a core system: one block starts it, the other has it told.
func tellsCore(t *testing.T, d *devProcess, starts, tells string) {
	t.Helper()
	addr := freeAddr(t)
	here := strings.NewReplacer(
		"API=http://127.0.0.1:8080", "API="+d.api, ".seenby", d.dir, "127.0.0.1:9090", addr, "./examples/core ", "./examples/core --addr "+addr+" ")
	core := exec.Command("bash", "-c", here.Replace(starts))
	core.Dir = root
	core.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := &syncBuffer{}
	core.Stdout, core.Stderr = out, out
	if err := core.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		syscall.Kill(-core.Process.Pid, syscall.SIGTERM) //nolint:errcheck // it may have ended
		core.Wait()                                      //nolint:errcheck // it was told to end
	}()
	eventually(t, time.Minute, "the core system to listen", func() error {
		if !strings.Contains(out.String(), "listening on") {
			return errors.New(out.String())
		}
		return nil
	})
	told := shell(t, root, here.Replace(tells))
	says(t, "the tour with a core system", told, "imported 1 baselines", "is told from now on", `"impressions":120001`)
	a, err := (&process{t: t, api: "http://" + addr}).do("GET", "/", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	says(t, "the core system's page", string(a.body), "old", "120001")
}

func shellBlocks(text string) (blocks []string) {
	for {
		_, rest, ok := strings.Cut(text, "```sh\n")
		if !ok {
			return blocks
		}
		block, rest, _ := strings.Cut(rest, "```\n")
		blocks, text = append(blocks, block), rest
	}
}

// TestReadmeVerdicts: whoever finds a verdict finds it explained.
func TestReadmeVerdicts(t *testing.T) {
	text, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| Verdict | Why |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, reason := range append(domain.Reasons, reasonCounted) {
		if !strings.Contains(table, "`"+string(reason)+"`") {
			t.Errorf("README.md does not say why a view is %s", reason)
		}
	}
}

// TestGuarantees: each test that a guarantee is said to stand on is there.
func TestGuarantees(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		tests.Write(source)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bTest[A-Z]\w*`).FindAllString(string(text), -1)
	if len(named) < 30 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, name := range named {
		if !strings.Contains(tests.String(), "func "+name+"(t *testing.T)") {
			t.Errorf("docs/guarantees.md names %s, which is not there", name)
		}
	}
}

// TestReadmeSettings keeps the README's table what the program reads.
func TestReadmeSettings(t *testing.T) {
	const from, to = "<!-- settings: generated, see cmd/seenby/readme_test.go -->\n", "<!-- /settings -->\n"
	text, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		t.Fatal("README.md has no place for the settings")
	}
	want := before + from + strings.TrimRight(config.Table(), "\n") + "\n" + to + after
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatal("the settings' table of README.md is old: go test ./cmd/seenby -run ReadmeSettings -update")
	}
	if err := os.WriteFile(readmePath, []byte(want), 0o644); err != nil { //nolint:gosec // a text for all
		t.Fatal(err)
	}
}
