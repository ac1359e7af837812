package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// builtBinary builds seenby once for the tests that need a process that can be killed.
var builtBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "seenby-binary-")
	if err != nil {
		return "", err
	}
	removeAtEnd = append(removeAtEnd, dir)
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // other users run it
		return "", err
	}
	path := filepath.Join(dir, "seenby")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// devProcess is a `seenby dev` of its own.
type devProcess struct {
	*process
	cmd *exec.Cmd
	dir string
}

// startDev starts `seenby dev` and waits for its greeting.
func startDev(t *testing.T, dir string, as *syscall.Credential, command ...string) *devProcess {
	t.Helper()
	if len(command) == 0 {
		path, err := builtBinary()
		if err != nil {
			t.Fatal(err)
		}
		command = []string{path, "dev"}
	}
	addr := freeAddr(t)
	d := &devProcess{dir: dir, process: &process{t: t, api: "http://" + addr, out: &syncBuffer{}, ended: make(chan struct{})}}
	d.cmd = exec.Command(command[0], command[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	d.cmd.Env = append(os.Environ(), "SEENBY_DATA_DIR="+dir, "SEENBY_HTTP_ADDR="+addr)
	if as != nil {
		d.cmd.Dir = dir
		d.cmd.Env = append(d.cmd.Env, "HOME="+dir)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.ended)
		d.cmd.Wait() //nolint:errcheck // ProcessState says it
	}()
	t.Cleanup(func() {
		d.signal(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("seenby dev\n%s", d.out)
		}
	})
	eventually(t, 2*time.Minute, "the greeting", func() error {
		select {
		case <-d.ended:
			t.Fatalf("it ended:\n%s", d.out)
		default:
		}
		if !strings.Contains(d.out.String(), "Stop with Ctrl-C") {
			return fmt.Errorf("so far:\n%s", d.out)
		}
		return nil
	})
	key, err := os.ReadFile(filepath.Join(dir, devKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	d.key = strings.TrimSpace(string(key))
	return d
}

// signal sends to the whole group, as a terminal does, and waits for the end.
func (d *devProcess) signal(s syscall.Signal) {
	syscall.Kill(-d.cmd.Process.Pid, s) //nolint:errcheck // it may have ended
	select {
	case <-d.ended:
	case <-time.After(time.Minute):
		d.t.Errorf("seenby dev does not end on %v", s)
		d.cmd.Process.Kill() //nolint:errcheck // nothing else is left
	}
}

// tourOf runs the tour as a greeting printed it, and gives what it printed.
func (d *devProcess) tourOf(t *testing.T) string {
	t.Helper()
	_, text, found := strings.Cut(d.out.String(), "Try it:\n\n")
	text, _, found2 := strings.Cut(text, "\nWatch the verdicts")
	if !found || !found2 {
		t.Fatalf("no tour in\n%s", d.out)
	}
	return shell(t, d.cmd.Dir, text) // where dev ran: the tour names files from there
}

func shell(t *testing.T, dir, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s\n%v\n%s%s", script, err, out, errs.String())
	}
	return string(out)
}

func checkTour(t *testing.T, out string) {
	t.Helper()
	for _, want := range []string{`"version":1`, `"impressions":1`, `"unique_viewers":1`, `"viewer":"ben"`} {
		if !strings.Contains(out, want) {
			t.Errorf("the tour printed no %s:\n%s", want, out)
		}
	}
}

func TestDev(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d := startDev(t, dir, nil)
	checkTour(t, d.tourOf(t))

	for _, name := range []string{"dev.key", "database.url", "brokers", "secret"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}

	// A second one on the same directory is refused, and disturbs nothing.
	path, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "dev", "--data-dir", dir, "--http-addr", freeAddr(t)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), dir) || !strings.Contains(string(out), fmt.Sprint(d.cmd.Process.Pid)) {
		t.Errorf("a second dev on the same directory: %v\n%s", err, out)
	}

	// Operational commands find it by --data-dir.
	tail := func(args ...string) string {
		out, err := exec.Command(path, append([]string{"tail", "--data-dir", dir, "--from", "start", "--once"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("tail %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := tail("verdicts"); !strings.Contains(out, "ViewCounted demo") || !strings.Contains(out, `"post":"hello"`) {
		t.Errorf("tail verdicts:\n%s", out)
	}
	if out := tail("tenants"); !strings.Contains(out, `"duplicate_window":"25h0m0s"`) || !strings.Contains(out, `"views_per_minute":600`) {
		t.Errorf("tail tenants:\n%s", out)
	}
	if out := tail("verdicts", "--reason", "stale"); out != "" {
		t.Errorf("tail of another reason:\n%s", out)
	}
	if out := tail("views", "--tenant", "another"); out != "" {
		t.Errorf("tail of another tenant:\n%s", out)
	}
	var event struct {
		Type  string
		Event struct{ Post string }
	}
	if out := tail("views", "--json", "--post", "hello"); json.Unmarshal([]byte(out), &event) != nil || event.Type != "ViewReported" || event.Event.Post != "hello" {
		t.Errorf("tail --json:\n%s", out)
	}
	if out := tail("tenants"); strings.Contains(out, "wrapped_key") || strings.Contains(out, "sha256") {
		t.Errorf("tail shows keys:\n%s", out)
	}

	// Killed between two views, it goes on where it was: nothing is lost, and the key still works.
	id := `"0190a5b6-7c1d-7e2f-8a3b-4c5d6e7f8091"`
	view := `{"views":[{"id":` + id + `,"post":"hello","viewer":"cleo"}]}`
	d.must(http.StatusAccepted, "POST", "/v1/views", nil, view, nil)
	d.signal(syscall.SIGKILL)
	again := startDev(t, dir, nil)
	if again.key != d.key {
		t.Error("the key changed over a restart")
	}
	position := again.must(http.StatusAccepted, "POST", "/v1/views", nil, view, nil)
	var got postAnswer
	again.must(http.StatusOK, "GET", "/v1/posts/hello", waitFor(position), nil, &got)
	if got.Impressions != 2 || got.UniqueViewers != 2 || got.Body != "Hello" {
		t.Errorf("after kill -9 and a repeated view: %+v", got)
	}

	// It stops cleanly.
	again.signal(syscall.SIGINT)
	if code := again.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("SIGINT: exit %d\n%s", code, again.out)
	}
}

// TestDevAsOrdinaryUser runs dev without root; the rest of the tests run it as whoever runs them.
func TestDevAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("these tests run as an ordinary user, so TestDev is this test")
		return
	}
	dir, err := os.MkdirTemp("", "seenby-user-") //nolint:usetesting // t.TempDir's parents are closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // the test is over
	const uid = 65534                       // nobody: PostgreSQL wants a user with a name
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	d := startDev(t, dir, &syscall.Credential{Uid: uid, Gid: uid})
	checkTour(t, d.tourOf(t))
	d.signal(syscall.SIGTERM)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("SIGTERM: exit %d\n%s", code, d.out)
	}
}
