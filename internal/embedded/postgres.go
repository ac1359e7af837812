package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	postgresMajorMin     = 15 // the SQL of this project uses nothing newer
	postgresUser         = "seenby"
	postgresDatabase     = "seenby"
	postgresUIDDefault   = 65534 // nobody: what to run as when this process is root and the data is new
	startTimeoutDefault  = 60 * time.Second
	readyPollInterval    = 20 * time.Millisecond
	readyAttemptTimeout  = 2 * time.Second
	passwordName         = "password"
	clusterName          = "cluster" // below DataDir; what the server's user owns
	abandonedWaitTimeout = 5 * time.Second
)

// PostgresOptions says where the server lives and where its programs come from.
type PostgresOptions struct {
	// DataDir is where the data is kept; made if need be, held by one process.
	DataDir string
	// CacheDir is where downloaded programs are kept; default: "seenby" in the user's cache directory. As root,
	// one that the server's user cannot reach is replaced by one that it can, and Progress says so.
	CacheDir string
	// Logger gets what the supervisor has to say; default: none. The server's own log is a file in DataDir.
	Logger *slog.Logger
	// Progress gets what a person who waits should read: a download, the first set-up. Default: none.
	Progress func(string)
	// StartTimeout bounds the start, downloads apart; default one minute, for a recovery after a crash.
	StartTimeout time.Duration
	// NoSync leaves out every fsync: for tests. Commits then still survive the end of the processes, but not of
	// the machine.
	NoSync bool
	// Download leaves PostgreSQL on the machine aside, for tests of the download.
	Download bool
}

// Postgres is a running server, held up by a supervisor process.
type Postgres struct {
	url     string
	pid     int
	log     string
	sup     *supervisor
	lock    *Lock
	release sync.Once
}

// StartPostgres starts a server and returns when it accepts connections. Its database, user and password are made
// by the first start. ctx bounds the start only. A directory in use is a *LockedError.
func StartPostgres(ctx context.Context, o PostgresOptions) (_ *Postgres, err error) {
	if o.DataDir == "" {
		return nil, errors.New("start postgres: no data directory")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.StartTimeout <= 0 {
		o.StartTimeout = startTimeoutDefault
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start postgres: %w", err)
		}
	}()
	if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return nil, err
	}

	lock, err := LockDir(o.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Unlock()
		}
	}()
	id, err := serverIdentity(filepath.Join(o.DataDir, clusterName))
	if err != nil {
		return nil, err
	}
	password, err := loadPassword(filepath.Join(o.DataDir, passwordName))
	if err != nil {
		return nil, err
	}
	major, err := dataMajor(filepath.Join(o.DataDir, clusterName, "data"))
	if err != nil {
		return nil, err
	}
	programs, err := findPrograms(ctx, o, id, major)
	if err != nil {
		return nil, err
	}
	o.Logger.Debug("postgres programs", "dir", programs.dir, "version", programs.version)
	if major == 0 {
		o.Progress(fmt.Sprintf("setting up PostgreSQL %s in %s", programs.version, o.DataDir))
	}

	ctx, cancel := context.WithTimeout(ctx, o.StartTimeout)
	defer cancel()
	portPath := filepath.Join(o.DataDir, portName)
	sup, err := startSupervisor(supervisorSpec{
		DataDir:  o.DataDir,
		BinDir:   programs.dir,
		Identity: id,
		Password: password,
		Port:     readPort(portPath),
		NoSync:   o.NoSync,
	}, o.Logger)
	if err != nil {
		return nil, err
	}
	p := &Postgres{sup: sup, lock: lock, log: filepath.Join(o.DataDir, clusterName, serverLogName)}
	port, err := p.ready(ctx, password)
	if err == nil {
		err = writePort(portPath, port)
	}
	if err == nil {
		p.url = postgresURL(password, port, postgresDatabase)
		return p, nil
	}
	// The caller waits for no more than is usual; the supervisor ends by itself.
	abandon, cancelAbandon := context.WithTimeout(context.WithoutCancel(ctx), abandonedWaitTimeout)
	defer cancelAbandon()
	return nil, errors.Join(err, sup.stop(abandon))
}

// URL is a connection string for pgx, password included.
func (p *Postgres) URL() string { return p.url }

// PID is the process id of the server.
func (p *Postgres) PID() int { return p.pid }

// LogPath is the server's log, of bounded size; its predecessor has ".1" appended.
func (p *Postgres) LogPath() string { return p.log }

// Done is closed when the server has ended, through Close or by itself.
func (p *Postgres) Done() <-chan struct{} { return p.sup.done }

// Err says why the server ended by itself. It is nil while it runs and after a Close.
func (p *Postgres) Err() error {
	select {
	case <-p.sup.done:
		return p.sup.err
	default:
		return nil
	}
}

// Close stops the server, open connections and all, and gives the directory back. When ctx ends first the server
// still comes to its end, by itself, and the directory is free then.
func (p *Postgres) Close(ctx context.Context) error {
	err := p.sup.stop(ctx)
	p.release.Do(func() {
		// The supervisor has its own lock, so a successor waits for it.
		err = errors.Join(err, p.lock.Unlock())
	})
	if err != nil {
		return fmt.Errorf("close postgres: %w", err)
	}
	return nil
}

// ready waits until the server answers, and makes the database. It returns the port.
func (p *Postgres) ready(ctx context.Context, password string) (port int, err error) {
	var last error
	poll := time.NewTicker(readyPollInterval)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			if last == nil {
				last = ctx.Err()
			}
			return 0, fmt.Errorf("not ready in time: %w; %s", last, logTail(p.log))
		case <-p.sup.done:
			if err := p.sup.err; err != nil {
				return 0, err
			}
			return 0, errors.New("the supervisor ended")
		case s := <-p.sup.started: // again, if it had to take another port
			p.pid, port = s.PID, s.Port
		case <-poll.C:
			if port == 0 {
				continue
			}
			if last = makeDatabase(ctx, postgresURL(password, port, "postgres")); last == nil {
				return port, nil
			}
		}
	}
}

func makeDatabase(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, readyAttemptTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing was written that its answer would confirm
	var exists bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = @name)`,
		pgx.NamedArgs{"name": postgresDatabase}).Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, `CREATE DATABASE `+postgresDatabase)
	return err
}

func postgresURL(password string, port int, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(postgresUser, password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// loadPassword reads the password, or makes it. The file is there whole or not at all, as the password is in the
// cluster from the first set-up on.
func loadPassword(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if s := strings.TrimSpace(string(b)); s != "" {
			return s, nil
		}
		return "", fmt.Errorf("password file %s is empty", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	password := rand.Text()
	f, err := os.CreateTemp(filepath.Dir(path), passwordName+"-*") // mode 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it fails once renamed
	_, err = f.WriteString(password + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("write password: %w", err)
	}
	return password, os.Rename(f.Name(), path)
}

// dataMajor is the major version that made the data, 0 where there is none yet.
func dataMajor(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the data's version: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read the data's version: %w", err)
	}
	return major, nil
}

// identity is the user the server runs as; the zero value is the user we are.
type identity struct {
	Change   bool
	UID, GID int
}

// serverIdentity is who owns the data, when we are root, or is to own it.
func serverIdentity(dir string) (identity, error) {
	var owner *syscall.Stat_t
	if info, err := os.Stat(dir); err == nil {
		owner, _ = info.Sys().(*syscall.Stat_t)
	} else if !errors.Is(err, os.ErrNotExist) {
		return identity{}, err
	}
	switch uid := os.Geteuid(); {
	case uid != 0 && owner != nil && int(owner.Uid) != uid:
		return identity{}, fmt.Errorf("the data in %s belongs to user %d, and this is user %d: run as that user or as root, or choose another directory", dir, owner.Uid, uid)
	case uid != 0:
		return identity{}, nil
	case owner != nil && owner.Uid != 0: // made by an ordinary user, who shall be able to go on with it
		return identity{true, int(owner.Uid), int(owner.Gid)}, nil
	default:
		return identity{true, postgresUIDDefault, postgresUIDDefault}, nil
	}
}

func (id identity) credential() *syscall.Credential {
	if !id.Change {
		return nil
	}
	return &syscall.Credential{Uid: uint32(id.UID), Gid: uint32(id.GID)}
}

// logTail is the end of a log for an error message.
func logTail(path string) string {
	const tailBytes = 2 << 10
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "its log is empty"
	}
	if len(b) > tailBytes {
		b = b[len(b)-tailBytes:]
	}
	return fmt.Sprintf("the end of its log %s:\n%s", path, strings.TrimSpace(string(b)))
}
