package main

import (
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestNewProjectionGuide follows docs/new-projection.md to the letter in a copy of the tree: it writes its files, makes its
// changes, and runs its commands. Every block of the page is used.
func TestNewProjectionGuide(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "new-projection.md"))
	if err != nil {
		t.Fatal(err)
	}
	guide := &newProjection{t: t, tree: copyTree(t)}
	for i, part := range strings.Split("\n"+string(text), "\n```") {
		if i%2 == 0 {
			guide.prose(part)
			continue
		}
		kind, block, _ := strings.Cut(part, "\n")
		switch kind {
		case "go", "sql", "txtar":
			guide.write(kind, block+"\n")
		case "diff":
			guide.change(block)
		case "sh":
			guide.run(block)
		default:
			t.Fatalf("a block of %q, which nobody follows", kind)
		}
	}
	if guide.written != 4 || guide.changed != 5 || guide.ran != 1 {
		t.Errorf("%d files were written, %d changes made, %d blocks of commands run", guide.written, guide.changed, guide.ran)
	}
}

// copyTree copies what Go and its tests need of the repository.
func copyTree(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(name, ".") || name == "bin") {
				return fs.SkipDir // git's, what dev left, what was built
			}
			return os.MkdirAll(filepath.Join(tree, name), 0o755) //nolint:gosec // as the tree is
		}
		if !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tree, name), content, 0o644) //nolint:gosec // as the tree is
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// newProjection is the copy of the tree, as far as the page has come.
type newProjection struct {
	t                     *testing.T
	tree, named           string // named: the last file that the page named
	written, changed, ran int
}

var fileNames = regexp.MustCompile("`([a-z]+(?:/[a-zA-Z0-9_]+)*/[a-zA-Z0-9_]+\\.[a-z]+)`")

// prose remembers the last file that it names.
func (p *newProjection) prose(text string) {
	p.t.Helper()
	for _, found := range fileNames.FindAllStringSubmatch(text, -1) {
		p.named = found[1]
	}
}

// path is that of the named file; a migration gets the next free number.
func (p *newProjection) path() string {
	p.t.Helper()
	if rest, ok := strings.CutPrefix(p.named, "migrations/NNNNN_"); ok {
		files, err := filepath.Glob(filepath.Join(p.tree, "migrations", "*.sql"))
		if err != nil || len(files) == 0 {
			p.t.Fatalf("no migrations: %v", err)
		}
		last, err := strconv.Atoi(filepath.Base(slices.Max(files))[:5])
		if err != nil {
			p.t.Fatal(err)
		}
		return filepath.Join(p.tree, "migrations", fmt.Sprintf("%05d_%s", last+1, rest))
	}
	return filepath.Join(p.tree, p.named)
}

func (p *newProjection) write(kind, content string) {
	p.t.Helper()
	if kind == "go" {
		if tidy, err := format.Source([]byte(content)); err != nil || string(tidy) != content {
			p.t.Errorf("%s is not formatted: %v", p.named, err)
		}
	}
	path := p.path()
	if _, err := os.Stat(path); err == nil {
		p.t.Fatalf("%s is there already", p.named)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as the tree is
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil { //nolint:gosec // as the tree is
		p.t.Fatal(err)
	}
	p.written++
}

// change adds the lines that begin with + where the others stand.
func (p *newProjection) change(diff string) {
	p.t.Helper()
	var before, after strings.Builder
	for line := range strings.Lines(diff + "\n") {
		switch line[0] {
		case ' ':
			before.WriteString(line[1:])
			after.WriteString(line[1:])
		case '+':
			after.WriteString(line[1:])
		default:
			p.t.Fatalf("a line of a change that is neither there nor new: %q", line)
		}
	}
	content, err := os.ReadFile(p.path())
	if err != nil {
		p.t.Fatal(err)
	}
	if n := strings.Count(string(content), before.String()); n != 1 {
		p.t.Fatalf("%s has these lines %d times, want once:\n%s", p.named, n, before.String())
	}
	content = []byte(strings.Replace(string(content), before.String(), after.String(), 1))
	if err := os.WriteFile(p.path(), content, 0o644); err != nil { //nolint:gosec // as the tree is
		p.t.Fatal(err)
	}
	p.changed++
}

func (p *newProjection) run(commands string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "bash", "-exc", commands)
	cmd.Dir = p.tree
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
	p.t.Logf("%s", out)
	p.ran++
}
