package faulttest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// build makes the real program, for the test, and gives its path.
func build(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seenby")
	// The tag adds the clock that can be stepped, see cmd/seenby/clock_fault.go, and nothing else.
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "faultclock", "-o", path, "seenby/cmd/seenby")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build seenby: %v\n%s", err, out)
	}
	return path
}

// process is a `seenby serve` of one role, which can be killed, frozen and started again.
type process struct {
	program    string // its path
	name, role string
	addr       string // of its api, health and metrics; the same after each start
	environ    []string
	logPath    string

	breaking sync.Mutex // held by whoever breaks it

	mu    sync.Mutex // guards what follows
	cmd   *exec.Cmd
	ended chan struct{}
}

const (
	processStart = 3 * time.Minute  // ten at once, beside brokers, on two cores
	processStop  = 30 * time.Second // over the shutdown timeout
)

func (p *process) start() error {
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "=== start of %s\n", p.name)
	cmd := exec.Command(p.program, "serve", "--roles", p.role, "--http-addr", p.addr)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.environ, log, log
	cmd.SysProcAttr = dieWithUs()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // how it ended is seen in its log
		close(ended)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.ended = cmd, ended
	return nil
}

// run is the present run of the process; nil: none.
func (p *process) run() (*exec.Cmd, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.ended
}

// kill is kill -9; it works on a frozen process too.
func (p *process) kill() error { return p.end(syscall.SIGKILL) }

// stop asks the process to end.
func (p *process) stop() error { return p.end(syscall.SIGTERM) }

func (p *process) end(s syscall.Signal) error {
	cmd, ended := p.run()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	select {
	case <-ended:
		return nil
	case <-time.After(processStop):
		return fmt.Errorf("%s does not end", p.name)
	}
}

func (p *process) freeze() error { return p.signal(syscall.SIGSTOP) }
func (p *process) thaw() error   { return p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) error {
	cmd, _ := p.run()
	return cmd.Process.Signal(s)
}

// ready asks /readyz.
func (p *process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"ready"`)) {
		return fmt.Errorf("%s: %d %s %w", p.name, resp.StatusCode, body, err)
	}
	return nil
}

// awaitReady waits until the process is ready, and says what is missing where it is not in time.
func (p *process) awaitReady(ctx context.Context, within time.Duration) error {
	return until(ctx, within, p.name+" to be ready", func() error {
		_, ended := p.run()
		select {
		case <-ended:
			return fmt.Errorf("%w: %s has ended:\n%s", errFinal, p.name, p.tail(4000))
		default:
		}
		return p.ready(ctx)
	})
}

// tail is the end of what the process logged.
func (p *process) tail(bytesMost int) string {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-bytesMost):])
}

// alarms are lines of the log that no fault excuses.
func (p *process) alarms() (lines []string) {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "stopped for good") || strings.Contains(line, "partition stopped") ||
			strings.Contains(line, "dead letter") || strings.HasPrefix(line, "panic:") || strings.Contains(line, "panicked") {
			lines = append(lines, p.name+": "+strings.TrimSpace(line))
		}
	}
	return lines
}

// opened is the longest that a gate took to open a partition, as it has logged since an offset of the log.
func (p *process) opened(from int) (longest time.Duration) {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text[min(from, len(text)):])) {
		_, took, ok := strings.Cut(line, "took=")
		if !ok || !strings.Contains(line, "partition opened") {
			continue
		}
		if d, err := time.ParseDuration(strings.TrimSpace(took)); err == nil {
			longest = max(longest, d)
		}
	}
	return longest
}

// logged is how much the process has logged.
func (p *process) logged() int {
	info, err := os.Stat(p.logPath)
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// errFinal ends a wait early.
var errFinal = errors.New("in vain")

// until waits for a condition; the error is the last reason why it does not hold.
func until(ctx context.Context, within time.Duration, what string, holds func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil || errors.Is(err, errFinal) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v for %s: %w", within, what, err)
		case <-tick.C:
		}
	}
}

// command runs a command of the program to its end and gives what it printed.
func (w *world) command(environ []string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), w.program, args...)
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = environ, &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("seenby %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}
