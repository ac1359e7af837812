package embedded

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// helperEnv makes the test binary run one of helpers instead of the tests: the processes that tests kill.
const helperEnv = "SEENBY_EMBEDDED_TEST_HELPER"

var helpers = map[string]func() error{
	"kafka":    helperKafka,
	"lock":     helperLock,
	"postgres": helperPostgres,
}

func TestMain(m *testing.M) {
	SupervisorMain()
	if name := os.Getenv(helperEnv); name != "" {
		if err := helpers[name](); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper is a running helper process.
type helper struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string
}

// startHelper runs a helper with more environment; as says under which user id, 0 for ours.
func startHelper(t *testing.T, name string, uid uint32, env ...string) *helper {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = "helper-" + name
	cmd.Env = append(os.Environ(), append(env, helperEnv+"="+name)...)
	cmd.Stderr = os.Stderr
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{t: t, cmd: cmd, stdin: stdin, lines: make(chan string, 1<<20)}
	go func() {
		defer close(h.lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			h.lines <- s.Text()
		}
	}()
	t.Cleanup(h.kill)
	return h
}

// expect waits for a line that begins with prefix and returns what follows it.
func (h *helper) expect(prefix string) string {
	h.t.Helper()
	timeout := time.After(60 * time.Second)
	for {
		select {
		case line, ok := <-h.lines:
			if !ok {
				h.t.Fatalf("helper ended before it said %q", prefix)
			}
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(rest)
			}
			if strings.HasPrefix(line, "error:") {
				h.t.Fatalf("helper: %s", line)
			}
		case <-timeout:
			h.t.Fatalf("helper did not say %q", prefix)
		}
	}
}

// kill is kill -9, and waits for the end; what the helper said before is left in lines.
func (h *helper) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

// finish ends the helper by closing its standard input.
func (h *helper) finish() {
	h.t.Helper()
	_ = h.stdin.Close()
	for range h.lines { // until it ends
	}
	if err := h.cmd.Wait(); err != nil {
		h.t.Fatalf("helper: %v", err)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}
