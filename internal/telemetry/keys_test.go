package telemetry

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func newSlogReader() *slogReader {
	r := &slogReader{fset: token.NewFileSet(), keys: map[string]bool{}}
	for _, k := range Keys {
		r.keys[k] = true
	}
	return r
}

// Every slog call in cmd/ and internal/ uses the keys of keys.go and no others.
func TestOnlyListedKeys(t *testing.T) {
	r := newSlogReader()
	for _, root := range []string{"../../internal", "../../cmd"} {
		dirs, err := goDirs(root)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			if err := r.readDir(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range r.found {
		t.Error(filepath.ToSlash(p))
	}
}

func TestKeysAreWellFormed(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := map[string]bool{}
	for _, k := range Keys {
		if !form.MatchString(k) || slices.Contains([]string{"time", "level", "msg", "source"}, k) {
			t.Errorf("%q: not snake_case, or slog's own", k)
		}
		if seen[k] {
			t.Errorf("%q stands twice", k)
		}
		seen[k] = true
	}
}

// The check itself: each line of the source that ends in "// bad" must be found, and no other.
func TestSlogReader(t *testing.T) {
	const source = `package p

import (
	"context"
	"log/slog"
	"net/http"
)

const keyTopic, keyWrong = "topic", "Topic"

type gate struct{ log *slog.Logger; cfg struct{ Logger *slog.Logger } }

func (g gate) run(ctx context.Context, w http.ResponseWriter, err error, args []any, attr slog.Attr, m metrics) {
	g.log.Info("fine", "topic", 1, "partition", 2)
	g.log.Info("fine")
	g.log.Info("not listed", "colour", 1) // bad
	g.log.Warn("second", "topic", 1, "colour", 2) // bad
	g.log.ErrorContext(ctx, "with context", "colour", 1) // bad
	g.log.DebugContext(ctx, "with context", "err", err)
	g.cfg.Logger.Error("a constant", keyTopic, 1)
	g.cfg.Logger.Error("a constant", keyWrong, 1) // bad
	slog.Info("of the package", "colour", 1) // bad
	slog.Default().With("colour", 1).Info("x") // bad
	log := g.log.With("role", "gate")
	log = log.With("colour", 1) // bad
	log.Log(ctx, slog.LevelInfo, "x", "topic", 1, "colour", 1) // bad
	log.LogAttrs(ctx, slog.LevelInfo, "x", slog.Int("partition", 1), slog.Any("colour", 1)) // bad
	log.Info("mixed", slog.String("topic", "t"), "offset", 1, slog.Group("client", "colour", 1)) // bad
	log.Info("mixed", slog.Group("client", args...), "offset", 1)
	log.Info("spread", args...)
	log.Info("spread", append(args, slog.Int("colour", 1))...) // bad
	log.Info("no value", "topic") // bad
	log.Info("no literal", attr) // bad
	log.Info("made", slog.Attr{Key: "colour", Value: slog.IntValue(1)}) // bad
	log.Info("made", slog.Attr{"colour", slog.IntValue(1)}) // bad
	log.Info("made", slog.Attr{Key: "topic"}, made(err))
	_ = err.Error()
	http.Error(w, "colour", 500)
	m.With("colour").Inc()
	m.Log("colour", 1)
}
`
	r := newSlogReader()
	file, err := parser.ParseFile(r.fset, "p.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	r.read([]*ast.File{file})
	got := strings.Join(r.found, "\n") + "\n"
	for i, line := range strings.Split(source, "\n") {
		at := "p.go:" + strconv.Itoa(i+1) + ":"
		if found := strings.Count(got, at); found != strings.Count(line, "// bad") {
			t.Errorf("line %d found %d times: %s", i+1, found, line)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}
