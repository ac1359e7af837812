package embedded

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// supervisorEnv makes this binary a child of ours: what it says is what to be.
const (
	supervisorEnv  = "SEENBY_EMBEDDED_CHILD"
	roleSupervisor = "postgres-supervisor"
	roleFetcher    = "postgres-fetcher"
)

// SupervisorMain does nothing in an ordinary process. In one that this package started it is the program, and
// does not return. Call it first in main, and in TestMain of every package whose tests call StartPostgres.
func SupervisorMain() {
	var run func() error
	switch os.Getenv(supervisorEnv) {
	case "":
		return
	case roleSupervisor:
		run = superviseMain
	case roleFetcher:
		run = fetchMain
	default:
		run = func() error { return errors.New("unknown role") }
	}
	if err := run(); err != nil {
		say(event{Failed: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

// event is a line from a child to its parent.
type event struct {
	Started *startedEvent `json:",omitempty"`
	Note    string        `json:",omitempty"`
	Failed  string        `json:",omitempty"`
}

type startedEvent struct{ PID, Port int }

// say may find nobody listening: the parent is dead, and there is work left to do.
func say(e event) {
	b, _ := json.Marshal(e)
	_, _ = os.Stdout.Write(append(b, '\n'))
}

// supervisorSpec is the first line on the supervisor's standard input; the rest is silence, and its end the order
// to stop.
type supervisorSpec struct {
	DataDir  string
	BinDir   string
	Identity identity
	Password string
	Port     int // to try first
	NoSync   bool
}

// fetchSpec tells the fetcher what to unpack where.
type fetchSpec struct {
	Version, CacheDir, TreeDir, TempDir string
}

// supervisor is the parent's side of a child.
type supervisor struct {
	stdin   io.Closer
	started chan startedEvent
	done    chan struct{}

	mu       sync.Mutex
	stopping bool
	err      error // why it ended by itself; to be read after done
}

func startSupervisor(spec supervisorSpec, log *slog.Logger) (*supervisor, error) {
	cmd, err := childCommand(roleSupervisor)
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// The port is given at most once for each time it tries.
	s := &supervisor{stdin: stdin, started: make(chan startedEvent, portAttemptsMax), done: make(chan struct{})}
	ended, err := runChild(cmd, log, func(e event) {
		if e.Started != nil {
			s.started <- *e.Started
		}
	})
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(spec)
	if err == nil {
		_, err = stdin.Write(append(line, '\n'))
	}
	if err != nil {
		_ = stdin.Close()
		return nil, errors.Join(fmt.Errorf("instruct the supervisor: %w", err), <-ended)
	}
	go func() {
		err := <-ended
		s.mu.Lock()
		if err == nil && !s.stopping {
			err = errors.New("postgres ended")
		}
		s.err = err
		s.mu.Unlock()
		close(s.done)
	}()
	return s, nil
}

// stop tells the supervisor to end, and waits for it.
func (s *supervisor) stop(ctx context.Context) error {
	select {
	case <-s.done: // by itself, which is told by its error
		return nil
	default:
	}
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	_ = s.stdin.Close()
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("postgres is still stopping: %w", ctx.Err())
	}
}

func runFetcher(ctx context.Context, spec fetchSpec, log *slog.Logger) error {
	cmd, err := childCommand(roleFetcher)
	if err != nil {
		return err
	}
	// The library leaves a log in the temporary directory.
	cmd.Env = append(cmd.Env, "TMPDIR="+spec.TempDir)
	line, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	cmd.Stdin = bytes.NewReader(line)
	ended, err := runChild(cmd, log, func(event) {})
	if err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-ended //nolint:errcheck // we killed it
		return ctx.Err()
	}
}

// childCommand is this binary once more, in a role. It keeps the environment, as proxies are named there.
func childCommand(role string) (*exec.Cmd, error) {
	if os.Getenv(supervisorEnv) != "" {
		return nil, errors.New("this process is itself a child of the embedded package: SupervisorMain must come first in main")
	}
	// Not bound to a context, whose end would kill it: it has a server to stop.
	cmd := exec.Command(selfExecutable()) //nolint:noctx // see above
	cmd.Args[0] = "seenby-" + role
	cmd.Env = append(os.Environ(), supervisorEnv+"="+role)
	// Not in our session: an interrupt typed at the terminal is for us, and we stop it in our own time.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// runChild starts the child; its end comes on the channel, as nil or as what it said was wrong.
func runChild(cmd *exec.Cmd, log *slog.Logger, on func(event)) (<-chan error, error) {
	var stderr tail
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Args[0], err)
	}
	ended := make(chan error, 1)
	go func() {
		var failed, noise string
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				// It does not run SupervisorMain but the caller's main, which is not to go on.
				noise = lines.Text()
				_ = cmd.Process.Kill()
				continue
			}
			if e.Note != "" {
				log.Info("postgres: " + e.Note) //nolint:sloglint // what it says, it says in its message
			}
			if e.Failed != "" {
				failed = e.Failed
			}
			on(e)
		}
		err := cmd.Wait()
		switch {
		case failed != "":
			err = errors.New(failed)
		case noise != "":
			err = fmt.Errorf("%s is not ours (it said %q): SupervisorMain must come first in main", cmd.Args[0], noise)
		case err != nil:
			err = fmt.Errorf("%s: %w %s", cmd.Args[0], err, strings.TrimSpace(stderr.String()))
		}
		ended <- err
	}()
	return ended, nil
}

// fetchMain unpacks PostgreSQL with the library, which ends the process at some errors: one more reason for a
// process of its own, besides that it cannot be cancelled.
func fetchMain() error {
	var spec fetchSpec
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		return err
	}
	return fetch(spec)
}

// superviseMain is the supervisor process.
func superviseMain() error {
	// The kernel signals postgres when the thread that started it ends; the main thread ends last.
	runtime.LockOSThread()
	ignoreSignals()
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read instructions: %w", err)
	}
	var spec supervisorSpec
	if err := json.Unmarshal(line, &spec); err != nil {
		return fmt.Errorf("read instructions: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	stopOnTerminate(cancel)
	return supervise(ctx, spec)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytesMax = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailBytesMax; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// serverLog is a file that is put aside, over its predecessor, when it is full.
type serverLog struct {
	path string
	file *os.File
	size int64
}

const (
	serverLogName     = "postgres.log"
	serverLogBytesMax = 8 << 20
)

func openServerLog(path string) (*serverLog, error) {
	l := &serverLog{path: path}
	return l, l.open()
}

func (l *serverLog) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write never fails: postgres must not wait, or die, for its log (a full disk).
func (l *serverLog) Write(b []byte) (int, error) {
	if l.size >= serverLogBytesMax {
		_ = l.file.Close()
		_ = os.Rename(l.path, l.path+".1")
		if err := l.open(); err != nil {
			l.file, l.size = nil, 0
		}
	}
	if l.file != nil {
		n, _ := l.file.Write(b)
		l.size += int64(n)
	}
	return len(b), nil
}

// serverEnv is what postgres and initdb see: no settings for them, no secrets of ours.
func serverEnv() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func clusterDir(dataDir string) string { return filepath.Join(dataDir, clusterName) }
