package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// downloadable are the versions the library's repository has, by major version.
var downloadable = map[int]embeddedpostgres.PostgresVersion{
	15: embeddedpostgres.V15,
	16: embeddedpostgres.V16,
	17: embeddedpostgres.V17,
	18: embeddedpostgres.V18,
}

const (
	downloadMajorDefault = 18
	versionTimeout       = 10 * time.Second // of a program that prints its version
	staleUnpackAge       = 24 * time.Hour
)

// programGlobs are where systems put PostgreSQL, besides PATH: Debian, Red Hat, Alpine, Homebrew.
var programGlobs = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql@*/bin",
}

// errNoChange is for a root that is root by name only, as in some containers.
var errNoChange = errors.New("PostgreSQL does not run as root, and this process may not change its user: run as an ordinary user, or name a database by SEENBY_DATABASE_URL")

// programs is a directory with postgres and initdb.
type programs struct {
	dir     string
	major   int
	version string
}

// findPrograms finds PostgreSQL of the data's major version, or for new data (0) of postgresMajorMin or later:
// on the machine, first in PATH, then the newest; else in the cache; else it downloads it there.
func findPrograms(ctx context.Context, o PostgresOptions, id identity, dataMajor int) (programs, error) {
	fits := func(p programs) bool {
		return p.major == dataMajor || dataMajor == 0 && p.major >= postgresMajorMin
	}
	var passedOver []error
	if !o.Download {
		for _, dir := range machineProgramDirs() {
			p, err := probePrograms(ctx, dir, id)
			switch {
			case errors.Is(err, errNoChange):
				return programs{}, err
			case err != nil:
				passedOver = append(passedOver, err)
			case fits(p):
				return p, nil
			default:
				passedOver = append(passedOver, fmt.Errorf("%s is PostgreSQL %s", dir, p.version))
			}
		}
	}
	major := cmp.Or(dataMajor, downloadMajorDefault)
	version, ok := downloadable[major]
	if !ok {
		return programs{}, errors.Join(append([]error{fmt.Errorf(
			"the data was made by PostgreSQL %d, which is not on this machine and cannot be downloaded: install it, or choose another data directory", major)},
			passedOver...)...)
	}
	p, err := cachedPrograms(ctx, o, id, string(version))
	if err != nil {
		return programs{}, errors.Join(append([]error{err}, passedOver...)...)
	}
	return p, nil
}

// machineProgramDirs are the directories that may have PostgreSQL, links resolved: it finds its other files from
// where it really is.
func machineProgramDirs() []string {
	var dirs []string
	add := func(postgres string) {
		resolved, err := filepath.EvalSymlinks(postgres)
		if err != nil {
			return
		}
		if dir := filepath.Dir(resolved); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) {
			add(filepath.Join(dir, "postgres"))
		}
	}
	for _, glob := range programGlobs {
		found, _ := filepath.Glob(glob)
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(lastNumber(b), lastNumber(a)) })
		for _, dir := range found {
			add(filepath.Join(dir, "postgres"))
		}
	}
	return dirs
}

var (
	numberRE  = regexp.MustCompile(`\d+`)
	versionRE = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)
)

func lastNumber(path string) int {
	all := numberRE.FindAllString(path, -1)
	if len(all) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(all[len(all)-1])
	return n
}

// probePrograms asks postgres for its version, as the user who is to run it.
func probePrograms(ctx context.Context, dir string, id identity) (programs, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return programs{}, fmt.Errorf("%s has no initdb", dir)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version")
	cmd.Dir = "/"
	cmd.Env = serverEnv()
	if cred := id.credential(); cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM) && id.Change:
		return programs{}, fmt.Errorf("become user %d: %w: %w", id.UID, err, errNoChange)
	case err != nil:
		return programs{}, fmt.Errorf("run postgres of %s as user %d: %w %s", dir, id.UID, err, strings.TrimSpace(string(out)))
	}
	m := versionRE.FindStringSubmatch(string(out))
	if m == nil {
		return programs{}, fmt.Errorf("%s: cannot read the version in %q", dir, out)
	}
	major, err := strconv.Atoi(m[2])
	if err != nil {
		return programs{}, fmt.Errorf("%s: cannot read the version in %q", dir, out)
	}
	return programs{dir: dir, major: major, version: m[1]}, nil
}

// cachedPrograms returns the downloaded version, downloading it if it is not there yet.
func cachedPrograms(ctx context.Context, o PostgresOptions, id identity, version string) (programs, error) {
	cache, err := cacheDir(o, id)
	if err != nil {
		return programs{}, err
	}
	home := filepath.Join(cache, fmt.Sprintf("postgresql-%s-%s-%s", version, runtime.GOOS, runtime.GOARCH))
	bin := filepath.Join(home, "bin")
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err == nil {
		return probePrograms(ctx, bin, id)
	}
	major, _, _ := strings.Cut(version, ".")
	o.Progress(fmt.Sprintf("downloading PostgreSQL %s for %s/%s (about 15 MB, from Maven Central: io.zonky.test.postgres) into %s; "+
		"to avoid it install PostgreSQL %s, or name a database by SEENBY_DATABASE_URL",
		version, runtime.GOOS, runtime.GOARCH, cache, major))
	if err := download(ctx, cache, home, version, o); err != nil {
		return programs{}, fmt.Errorf("download PostgreSQL %s: %w; install PostgreSQL %s, or name a database by SEENBY_DATABASE_URL", version, err, major)
	}
	return probePrograms(ctx, bin, id)
}

// download fetches and unpacks into a directory beside home and renames it, so that home is whole or not there.
func download(ctx context.Context, cache, home, version string, o PostgresOptions) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	removeStaleUnpacks(cache)
	tmp, err := os.MkdirTemp(cache, ".unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // else the next download does
	tree := filepath.Join(tmp, "tree")
	if err := runFetcher(ctx, fetchSpec{Version: version, CacheDir: cache, TreeDir: tree, TempDir: tmp}, o.Logger); err != nil {
		return err
	}
	if err := openTree(tree); err != nil {
		return err
	}
	err = os.Rename(tree, home)
	if _, statErr := os.Stat(filepath.Join(home, "bin", "postgres")); err != nil && statErr == nil {
		return nil // another process was faster
	}
	return err
}

// removeStaleUnpacks clears away what killed processes left.
func removeStaleUnpacks(cache string) {
	left, _ := filepath.Glob(filepath.Join(cache, ".unpack-*"))
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > staleUnpackAge {
			_ = os.RemoveAll(dir)
		}
	}
}

// openTree lets every user read and run what is below dir, whatever the umask was.
func openTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if d.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}

// cacheDir is where to keep downloads so that the server's user can run them.
func cacheDir(o PostgresOptions, id identity) (string, error) {
	dirs := []string{o.CacheDir}
	if o.CacheDir == "" {
		dirs = dirs[:0]
		if user, err := os.UserCacheDir(); err == nil {
			dirs = append(dirs, filepath.Join(user, "seenby"))
		}
	}
	if id.Change {
		dirs = append(dirs, "/var/cache/seenby")
	}
	// The data directory's own is the last: it is writable, and lost with the data.
	dirs = append(dirs, filepath.Join(o.DataDir, "cache"))
	var reasons []error
	for _, dir := range dirs {
		abs, err := filepath.Abs(dir)
		if err == nil {
			err = makeEnterable(abs, id)
		}
		if err == nil {
			return abs, nil
		}
		o.Logger.Debug("not for downloads", "dir", dir, "reason", err)
		reasons = append(reasons, err)
	}
	return "", fmt.Errorf("no directory for the download of PostgreSQL: %w", errors.Join(reasons...))
}

func makeEnterable(dir string, id identity) error {
	check := func() error {
		if parent := blockedAt(dir, id); id.Change && parent != "" {
			return fmt.Errorf("user %d, who runs PostgreSQL, may not enter %s", id.UID, parent)
		}
		return nil
	}
	if err := check(); err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Whatever the umask took away.
	return errors.Join(os.Chmod(dir, 0o755), check())
}

// blockedAt is the first directory on the way to dir, dir included, that the identity may not enter, by its mode;
// "" if none. What does not exist blocks nobody.
func blockedAt(dir string, id identity) string {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	var way []string
	for d := dir; ; d = filepath.Dir(d) {
		way = append(way, d)
		if d == filepath.Dir(d) {
			break
		}
	}
	slices.Reverse(way)
	for _, d := range way {
		info, err := os.Stat(d)
		if errors.Is(err, fs.ErrNotExist) {
			return ""
		}
		if err != nil {
			return d
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return ""
		}
		bit := fs.FileMode(0o001)
		switch {
		case int(st.Uid) == id.UID:
			bit = 0o100
		case int(st.Gid) == id.GID:
			bit = 0o010
		}
		if info.Mode().Perm()&bit == 0 {
			return d
		}
	}
	return ""
}
