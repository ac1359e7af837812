package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestArchitecture(t *testing.T) {
	for _, v := range violations(list(t)) {
		t.Error(v)
	}
}

// TestAPlantedEdgeTurnsRed proves that the test can fail.
func TestAPlantedEdgeTurnsRed(t *testing.T) {
	for _, planted := range []struct {
		pkg  pkg
		want string
	}{
		{pkg{ImportPath: "seenby/domain", Imports: []string{"seenby/projections"}}, "domain imports projections, which it may not"},
		{pkg{ImportPath: "seenby/domain", Imports: []string{"math/rand/v2"}}, "domain imports math/rand/v2: it must stay pure"},
		{pkg{ImportPath: "seenby/projections/posts", Imports: []string{"seenby/projections/people"}}, "projections/posts imports projections/people"},
		{pkg{ImportPath: "seenby/internal/postgres", Imports: []string{"seenby/internal/eventlog"}}, "internal/postgres imports internal/eventlog"},
		{pkg{ImportPath: "seenby/internal/projector", Imports: []string{"github.com/twmb/franz-go/pkg/kgo"}}, "which only"},
		{pkg{ImportPath: "seenby/internal/gate", Imports: []string{"github.com/twmb/franz-go/pkg/kfake"}}, "which only"},
		{pkg{ImportPath: "seenby/internal/gate", XTestImports: []string{"seenby/internal/httpapi"}}, "tests of internal/gate import internal/httpapi"},
		{pkg{ImportPath: "seenby/internal/helper"}, "has no place"},
	} {
		if got := strings.Join(violations([]pkg{planted.pkg}), "\n"); !strings.Contains(got, planted.want) {
			t.Errorf("%+v: %q is not found among\n%s", planted.pkg, planted.want, got)
		}
	}
}

func TestDomainReadsNoClock(t *testing.T) {
	files, err := filepath.Glob("../../domain/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no files of domain", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, clock := range []string{"time.Now", "time.Since", "time.After", "time.Sleep", "time.NewTimer"} {
			if !strings.HasSuffix(f, "_test.go") && bytes.Contains(text, []byte(clock)) {
				t.Errorf("%s uses %s: pass the time as an argument", f, clock)
			}
		}
	}
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}
