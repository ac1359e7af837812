package embedded

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	portAttemptsMax     = 20 // starts in one go: of ports that others take meanwhile, of leftovers that take their time
	leftoverInterval    = 250 * time.Millisecond
	predecessorInterval = 20 * time.Millisecond
	// stopTimeout is for a fast shutdown, which writes a checkpoint; quitTimeout for an immediate one, whose price
	// is recovery at the next start.
	stopTimeout = 30 * time.Second
	quitTimeout = 10 * time.Second
	// predecessorTimeout covers both of them in a supervisor whose parent was killed.
	predecessorTimeout = stopTimeout + quitTimeout + 5*time.Second
	dataName           = "data"
)

// serverSettings are for development: small, quick, and as durable as in production.
var serverSettings = []string{
	"listen_addresses=127.0.0.1",
	"unix_socket_directories=", // their paths are bounded to some 100 bytes, and nobody needs them
	"shared_buffers=256MB",
	"max_wal_size=2GB",
	"fsync=on",
	"synchronous_commit=on",
	"jit=off",
	"timezone=UTC",
	"log_timezone=UTC",
	"logging_collector=off", // the supervisor collects, and bounds, what comes on stderr
	"log_destination=stderr",
	"lc_messages=C", // we look for words in them
}

func ignoreSignals() {
	// A parent that is gone breaks the pipe that we write to, and that must not end us.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGINT, syscall.SIGHUP)
}

func stopOnTerminate(stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	go func() {
		<-c
		stop()
	}()
}

// supervise runs the server until ctx ends, which is how it is told to stop.
func supervise(ctx context.Context, spec supervisorSpec) error {
	s := &server{spec: spec}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dataName, "PG_VERSION")); err != nil {
		if err := s.initialise(ctx); err != nil {
			return err
		}
	}
	if err := s.awaitPredecessor(ctx); err != nil {
		return err
	}
	port := spec.Port
	for range portAttemptsMax {
		if port == 0 || !portFree(port) {
			var err error
			if port, err = freePort(); err != nil {
				return err
			}
		}
		again, err := s.run(ctx, port)
		if err == nil || ctx.Err() != nil {
			return err
		}
		switch again {
		case againNever:
			return err
		case againOtherPort:
			port = 0
		case againLater:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(leftoverInterval):
			}
		}
	}
	return fmt.Errorf("postgres does not start; %s", s.logTail())
}

// server is the supervisor's work. Its working directory is the cluster directory, which it may not be able to
// name: relative paths work, and children get path().
type server struct {
	spec supervisorSpec
	base string   // the cluster directory, for children
	dir  *os.File // the same, if base is by descriptor
	lock *os.File
	log  *serverLog
}

// prepare takes the directory, enters it, and becomes the server's user.
func (s *server) prepare(ctx context.Context) error {
	abs := clusterDir(s.spec.DataDir)
	if err := os.Mkdir(abs, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	id := s.spec.Identity
	if id.Change {
		if err := os.Chown(abs, id.UID, id.GID); err != nil {
			return fmt.Errorf("give %s to user %d: %w: %w", abs, id.UID, err, errNoChange)
		}
	}
	dir, err := os.Open(abs)
	if err != nil {
		return err
	}
	if err := dir.Chdir(); err != nil {
		return err
	}
	if id.Change {
		if err := becomeUser(id); err != nil {
			return err
		}
	}
	if s.lock, err = os.OpenFile("supervisor.lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	// The predecessor's parent is dead, or we would not have got here: it is stopping.
	err = await(ctx, predecessorTimeout, func() bool { return flock(s.lock, syscall.LOCK_EX|syscall.LOCK_NB) == nil })
	if err != nil {
		return fmt.Errorf("the supervisor of an earlier server in %s is still stopping it: %w", s.spec.DataDir, err)
	}
	if s.log, err = openServerLog(serverLogName); err != nil {
		return err
	}
	s.base = abs
	if here, err := os.Stat(abs); err == nil {
		if there, err := dir.Stat(); err == nil && os.SameFile(here, there) {
			return dir.Close()
		}
	}
	blocked := blockedAt(abs, id)
	if s.base = inheritedDirPath(); s.base == "" {
		return fmt.Errorf("user %d, who runs PostgreSQL, may not enter %s: choose another data directory, or run as an ordinary user", id.UID, blocked)
	}
	s.dir = dir
	say(event{Note: fmt.Sprintf("user %d may not enter %s; handing the data directory down as a descriptor", id.UID, blocked)})
	return nil
}

// becomeUser drops root for this whole process, for good.
func becomeUser(id identity) error {
	err := syscall.Setgroups(nil)
	if err == nil {
		err = syscall.Setgid(id.GID)
	}
	if err == nil {
		err = syscall.Setuid(id.UID)
	}
	if err != nil {
		return fmt.Errorf("become user %d: %w: %w", id.UID, err, errNoChange)
	}
	return nil
}

// command is a program of PostgreSQL; descriptor 3 is the cluster directory, if it is needed.
func (s *server) command(name string, args ...string) *exec.Cmd {
	// Not bound to a context, whose end would kill it: it is to shut down.
	cmd := exec.Command(filepath.Join(s.spec.BinDir, name), args...) //nolint:noctx // see above
	cmd.Env = serverEnv()
	cmd.Dir = "/" // before 16 they return to their working directory by its path
	if s.dir != nil {
		cmd.ExtraFiles = []*os.File{s.dir}
	}
	return cmd
}

func (s *server) path(name string) string { return s.base + "/" + name }

// initialise makes the data: beside its place and then renamed, so that it is whole or not there.
func (s *server) initialise(ctx context.Context) error {
	const making = "data.new"
	if err := os.RemoveAll(making); err != nil {
		return err
	}
	cmd := s.command("initdb", "-D", s.path(making), "--username="+postgresUser, "--pwfile=/dev/stdin",
		"--encoding=UTF8", "--locale=C", "--auth-host=scram-sha-256", "--auth-local=reject", "--no-instructions")
	if s.spec.NoSync {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	cmd.Stdin = strings.NewReader(s.spec.Password + "\n")
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	signalOnParentDeath(cmd.SysProcAttr, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("run initdb: %w\n%s", err, out.String())
		}
	case <-ctx.Done():
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended //nolint:errcheck // we killed it
		return ctx.Err()
	}
	if err := os.Rename(making, dataName); err != nil {
		return err
	}
	return syncDir(".")
}

// awaitPredecessor stops a server that runs on the data without a supervisor: that one was killed too.
func (s *server) awaitPredecessor(ctx context.Context) error {
	for _, stage := range []struct {
		signal  syscall.Signal
		timeout time.Duration
	}{{syscall.SIGINT, stopTimeout}, {syscall.SIGQUIT, quitTimeout}} {
		pid := s.predecessor()
		if pid == 0 {
			return nil
		}
		say(event{Note: fmt.Sprintf("stopping process %d, which an earlier run left", pid)})
		_ = syscall.Kill(pid, stage.signal)
		if err := await(ctx, stage.timeout, func() bool { return s.predecessor() != pid }); ctx.Err() != nil {
			return err
		}
	}
	if pid := s.predecessor(); pid != 0 {
		return fmt.Errorf("process %d, an earlier server in %s, does not end", pid, s.spec.DataDir)
	}
	return nil
}

// predecessor is the process id of a server that runs on the data, 0 if there is none. A file postmaster.pid
// alone says little: its process may be dead, and the number be another's.
func (s *server) predecessor() int {
	b, err := os.ReadFile(filepath.Join(dataName, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 || !worksIn(pid, dataName) {
		return 0
	}
	return pid
}

// again says whether another try may help.
type again int

const (
	againNever again = iota
	againOtherPort
	againLater
)

// run starts the server and stays until it ends; no error means that it was told to.
func (s *server) run(ctx context.Context, port int) (again, error) {
	args := []string{"-D", s.path(dataName), "-c", "port=" + strconv.Itoa(port)}
	for _, setting := range serverSettings {
		args = append(args, "-c", setting)
	}
	if s.spec.NoSync {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	cmd := s.command("postgres", args...)
	var out tail
	both := &teeWriter{&out, s.log}
	cmd.Stdout, cmd.Stderr = both, both // one pipe: they are equal
	cmd.WaitDelay = time.Second         // a straggler may hold the pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	signalOnParentDeath(cmd.SysProcAttr, syscall.SIGINT)
	if err := cmd.Start(); err != nil {
		return againNever, fmt.Errorf("run postgres: %w", err)
	}
	say(event{Started: &startedEvent{PID: cmd.Process.Pid, Port: port}})
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			err = errors.New("it was told to by somebody else")
		}
		said := out.String()
		err = fmt.Errorf("postgres ended: %w; %s", err, s.logTail())
		switch {
		case strings.Contains(said, "could not create any TCP/IP sockets"):
			return againOtherPort, err
		case strings.Contains(said, "pre-existing shared memory block"):
			return againLater, err
		}
		return againNever, err
	case <-ctx.Done():
	}
	for _, stage := range []struct {
		signal  syscall.Signal
		timeout time.Duration
	}{{syscall.SIGINT, stopTimeout}, {syscall.SIGQUIT, quitTimeout}, {syscall.SIGKILL, quitTimeout}} {
		_ = cmd.Process.Signal(stage.signal)
		select {
		case <-ended: //nolint:errcheck // it was told to, however it says so
			return againNever, nil
		case <-time.After(stage.timeout):
		}
	}
	return againNever, fmt.Errorf("process %d does not end", cmd.Process.Pid)
}

func (s *server) logTail() string { return logTail(serverLogName) }

// teeWriter is what postgres says, for us and for the log.
type teeWriter struct {
	tail *tail
	log  *serverLog
}

func (w *teeWriter) Write(b []byte) (int, error) {
	_, _ = w.tail.Write(b)
	return w.log.Write(b)
}

func await(ctx context.Context, timeout time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(predecessorInterval)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func portFree(port int) bool {
	_, err := tryPort(port)
	return err == nil
}

func freePort() (int, error) { return tryPort(0) }

// tryPort listens for a moment. Another process may be faster than postgres is then, which it notices.
func tryPort(port int) (int, error) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return 0, err
	}
	_, got, err := net.SplitHostPort(ln.Addr().String())
	if err := errors.Join(err, ln.Close()); err != nil {
		return 0, err
	}
	return strconv.Atoi(got)
}

// fetch has the library download and unpack. It has no call for only that, so its Start is led to an end right
// after: it clears the data directory next, and os.RemoveAll refuses a path that ends in a dot.
func fetch(spec fetchSpec) error {
	var out bytes.Buffer
	err := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(embeddedpostgres.PostgresVersion(spec.Version)).
		CachePath(spec.CacheDir).
		BinariesPath(spec.TreeDir).
		RuntimePath(filepath.Join(spec.TempDir, "runtime")).
		DataPath(filepath.Join(spec.TempDir, "data") + "/.").
		Port(0).
		Logger(&out)).Start()
	for _, name := range []string{"postgres", "initdb"} {
		if _, statErr := os.Stat(filepath.Join(spec.TreeDir, "bin", name)); statErr != nil {
			return cmp.Or(err, statErr)
		}
	}
	return nil
}
