package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// helperPostgres runs a server until its standard input ends.
func helperPostgres() error {
	ctx := context.Background()
	p, err := StartPostgres(ctx, PostgresOptions{
		DataDir: os.Getenv("DIR"), NoSync: true, Download: os.Getenv("DOWNLOAD") != "",
		Progress: func(s string) { fmt.Println("progress", s) },
	})
	if err != nil {
		return err
	}
	fmt.Println("pid", p.PID())
	fmt.Println("url", p.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return p.Close(ctx)
}

func startPostgres(t *testing.T, o PostgresOptions) *Postgres {
	t.Helper()
	o.Logger = testLogger(t)
	p, err := StartPostgres(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closePostgres(t, p) })
	return p
}

func closePostgres(t *testing.T, p *Postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}

func execSQL(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// workingIn says whether the process lives on the data; one that has ended and is not collected yet does not.
func workingIn(t *testing.T, pid int, dir string) bool {
	t.Helper()
	return worksIn(pid, filepath.Join(dir, clusterName, dataName))
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// openDir is a directory that every user may enter, which t.TempDir is not.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "seenby-embedded-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPostgresKeepsDataAndAddress(t *testing.T) {
	dir := filepath.Join(openDir(t), "postgres")
	p := startPostgres(t, PostgresOptions{DataDir: dir})
	u := p.URL()
	execSQL(t, u, `CREATE TABLE t (s text); INSERT INTO t VALUES ('kept')`)
	for setting, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "server_encoding": "UTF8", "TimeZone": "UTC",
		"unix_socket_directories": "", "listen_addresses": "127.0.0.1", "password_encryption": "scram-sha-256",
	} {
		if got := query(t, u, `SELECT current_setting('`+setting+`')`); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, passwordName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("password file: %v, %v", info.Mode(), err)
	}
	wrong, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword(postgresUser, "guess")
	if conn, err := pgx.Connect(t.Context(), wrong.String()); err == nil {
		t.Error("a wrong password is accepted")
		_ = conn.Close(t.Context())
	}

	_, err = StartPostgres(t.Context(), PostgresOptions{DataDir: dir})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second start: %v, want a LockedError", err)
	}

	pid := p.PID()
	closePostgres(t, p)
	if alive(pid) { // its supervisor has collected it
		t.Error("the server is alive after Close")
	}
	if p.Err() != nil {
		t.Errorf("after Close: %v", p.Err())
	}

	// Warm, and then once more with its port taken.
	start := time.Now()
	p = startPostgres(t, PostgresOptions{DataDir: dir})
	t.Logf("warm start took %v", time.Since(start).Round(time.Millisecond))
	if p.URL() != u {
		t.Errorf("after a restart the URL is %s, was %s", p.URL(), u)
	}
	if got := query(t, p.URL(), `SELECT s FROM t`); got != "kept" {
		t.Errorf("read %q", got)
	}
	closePostgres(t, p)
	ln, err := net.Listen("tcp", wrong.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p = startPostgres(t, PostgresOptions{DataDir: dir})
	if p.URL() == u {
		t.Error("it took a port that is taken")
	}
	if got := query(t, p.URL(), `SELECT s FROM t`); got != "kept" {
		t.Errorf("read %q", got)
	}
}

// Nothing is left behind by a kill, whichever of the three processes it hits, and nothing is lost.
func TestPostgresSurvivesKill(t *testing.T) {
	dir := filepath.Join(openDir(t), "postgres")
	h := startHelper(t, "postgres", 0, "DIR="+dir)
	pid, u := atoi(t, h.expect("pid ")), h.expect("url ")
	execSQL(t, u, `CREATE TABLE t (n int); INSERT INTO t VALUES (1)`)

	h.kill()
	// At once, while it is still stopping: the successor waits.
	h = startHelper(t, "postgres", 0, "DIR="+dir)
	next := atoi(t, h.expect("pid "))
	if next == pid || workingIn(t, pid, dir) {
		t.Errorf("the server %d is alive beside its successor %d", pid, next)
	}
	if got := h.expect("url "); got != u {
		t.Errorf("URL is %s, was %s", got, u)
	}
	execSQL(t, u, `INSERT INTO t VALUES (2)`)

	h.kill()
	eventually(t, 10*time.Second, "the server ends after its parent", func() bool { return !alive(next) })

	h = startHelper(t, "postgres", 0, "DIR="+dir)
	pid = atoi(t, h.expect("pid "))
	h.expect("url ")
	execSQL(t, u, `INSERT INTO t VALUES (3)`)
	if err := syscall.Kill(parentOf(t, pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the server ends after its supervisor", func() bool { return !alive(pid) })
	h.kill()

	p := startPostgres(t, PostgresOptions{DataDir: dir})
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
		if p.Err() == nil || !strings.Contains(p.Err().Error(), "killed") {
			t.Errorf("the error of a killed server is %v", p.Err())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the end of a killed server goes unnoticed")
	}
	closePostgres(t, p)

	p = startPostgres(t, PostgresOptions{DataDir: dir})
	if got := query(t, p.URL(), `SELECT string_agg(n::text, ' ' ORDER BY n) FROM t`); got != "1 2 3" {
		t.Errorf("after all kills: %q", got)
	}
}

// A server without a supervisor, which only a double kill leaves, and not always.
func TestPostgresTakesOver(t *testing.T) {
	dir := filepath.Join(openDir(t), "postgres")
	h := startHelper(t, "postgres", 0, "DIR="+dir)
	pid := atoi(t, h.expect("pid "))
	u := h.expect("url ")
	execSQL(t, u, `CREATE TABLE t (s text); INSERT INTO t VALUES ('kept')`)
	// Stopped, it cannot obey the signal for its supervisor's death before the successor comes.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(parentOf(t, pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.kill()
	// Until the successor has met it.
	resume := writerFunc(func(b []byte) (int, error) {
		if strings.Contains(string(b), "stopping process "+strconv.Itoa(pid)) {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		return t.Output().Write(b)
	})
	p, err := StartPostgres(t.Context(), PostgresOptions{DataDir: dir, Logger: slog.New(slog.NewTextHandler(resume, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer closePostgres(t, p)
	eventually(t, 5*time.Second, "the predecessor's end is collected", func() bool { return !alive(pid) })
	if got := query(t, p.URL(), `SELECT s FROM t`); got != "kept" {
		t.Errorf("read %q", got)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return atoi(t, fields[1])
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
}

// What an ordinary user made, root can go on with, and then again the user.
func TestPostgresAsOrdinaryUser(t *testing.T) {
	needRoot(t)
	const uid = 1000
	home := openDir(t)
	if err := os.Chown(home, uid, uid); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, "postgres")
	h := startHelper(t, "postgres", uid, "DIR="+dir, "HOME="+home)
	pid := atoi(t, h.expect("pid "))
	execSQL(t, h.expect("url "), `CREATE TABLE t (s text); INSERT INTO t VALUES ('kept')`)
	if got := ownerOf(t, "/proc/"+strconv.Itoa(pid)); got != uid {
		t.Errorf("the server runs as user %d", got)
	}
	h.finish()

	p := startPostgres(t, PostgresOptions{DataDir: dir})
	if got := query(t, p.URL(), `SELECT s FROM t`); got != "kept" {
		t.Errorf("read %q", got)
	}
	if got := ownerOf(t, "/proc/"+strconv.Itoa(p.PID())); got != uid {
		t.Errorf("root's server runs as user %d", got)
	}
	closePostgres(t, p)

	h = startHelper(t, "postgres", uid, "DIR="+dir, "HOME="+home)
	if got := query(t, h.expect("url "), `SELECT s FROM t`); got != "kept" {
		t.Errorf("read %q", got)
	}
	h.finish()
}

// Root's own directories are often closed to others; the data has its place there all the same.
func TestPostgresBelowPrivateDirectory(t *testing.T) {
	needRoot(t)
	private := openDir(t)
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(private, "below", "postgres")
	for _, want := range []string{"1", "2"} {
		p := startPostgres(t, PostgresOptions{DataDir: dir, NoSync: true})
		execSQL(t, p.URL(), `CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (0)`)
		if got := query(t, p.URL(), `SELECT count(*)::text FROM t`); got != want {
			t.Errorf("%s rows, want %s", got, want)
		}
		if got := ownerOf(t, "/proc/"+strconv.Itoa(p.PID())); got != postgresUIDDefault {
			t.Errorf("the server runs as user %d", got)
		}
		closePostgres(t, p)
	}
	if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the private directory: %v, %v", info.Mode(), err)
	}
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner")
	}
	return int(st.Uid)
}

// The one test that uses the network.
func TestPostgresDownload(t *testing.T) {
	root := openDir(t)
	cache := filepath.Join(root, "cache")
	dir := filepath.Join(root, "postgres")
	var said []string
	o := PostgresOptions{DataDir: dir, CacheDir: cache, Download: true, NoSync: true, Progress: func(s string) { said = append(said, s) }}
	p := startPostgres(t, o)
	if got := query(t, p.URL(), `SELECT current_setting('server_version')`); !strings.HasPrefix(got, "18.") {
		t.Errorf("version %s", got)
	}
	closePostgres(t, p)
	if all := strings.Join(said, "\n"); !strings.Contains(all, "downloading PostgreSQL 18") || !strings.Contains(all, cache) ||
		!strings.Contains(all, "SEENBY_DATABASE_URL") {
		t.Errorf("it said %q", said)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, ".unpack-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}

	// The data keeps its version, whatever the machine has; from the cache, so it says nothing.
	said = nil
	o.Download = false
	p = startPostgres(t, o)
	if got := query(t, p.URL(), `SELECT current_setting('server_version')`); !strings.HasPrefix(got, "18.") {
		t.Errorf("version %s", got)
	}
	if len(said) > 0 {
		t.Errorf("it said %q", said)
	}
}

func TestPostgresUnknownVersion(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, clusterName, dataName)
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := StartPostgres(t.Context(), PostgresOptions{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "was made by PostgreSQL 9") {
		t.Errorf("error %v", err)
	}
}

func TestPostgresFailureShowsLog(t *testing.T) {
	dir := filepath.Join(openDir(t), "postgres")
	p := startPostgres(t, PostgresOptions{DataDir: dir, NoSync: true})
	closePostgres(t, p)
	if err := os.Remove(filepath.Join(dir, clusterName, dataName, "global", "pg_control")); err != nil {
		t.Fatal(err)
	}
	_, err := StartPostgres(t.Context(), PostgresOptions{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "pg_control") {
		t.Errorf("error %v, want one with the end of the log", err)
	}
	if l, err := LockDir(dir); err != nil {
		t.Errorf("after a failed start: %v", err)
	} else {
		_ = l.Unlock()
	}
}

func TestServerLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), serverLogName)
	l, err := openServerLog(path)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 1<<20)
	for range 40 {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 2*(serverLogBytesMax+1<<20) {
		t.Errorf("%d bytes in %d files", total, len(entries))
	}
}
