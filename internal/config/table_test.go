package config_test

import (
	"flag"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"seenby/internal/config"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path) //nolint:gosec // a path of this package
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it):\n%s", path, got)
	}
}

func TestTable(t *testing.T) { golden(t, "testdata/table.md", config.Table()) }

func TestPrint(t *testing.T) {
	s, err := config.Load(source(map[string]string{"config": "c.yaml", "prefix": "a."},
		files{"c.yaml": "log:\n  level: debug\n", "db": "postgres://u:p@h/d\n"},
		"SEENBY_DATABASE_URL_FILE=db", "SEENBY_KAFKA_TLS=true"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/print.txt", s.String())
}

// Names are contract: each is unique, and the variable follows one form.
func TestSettingsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, st := range config.All() {
		for _, name := range []string{st.Name, st.Env, "--" + st.Flag()} {
			if seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
		}
		if !strings.HasPrefix(st.Env, "SEENBY_") || strings.ToUpper(st.Env) != st.Env || strings.ToLower(st.Name) != st.Name {
			t.Errorf("%s, %s: not the form", st.Name, st.Env)
		}
		if st.Help == "" || strings.HasSuffix(st.Help, ".") || strings.ContainsAny(st.Help, "|\n${}") {
			t.Errorf("%s: help %q", st.Name, st.Help)
		}
		if st.Secret && st.Default != "" {
			t.Errorf("%s: a secret with a default is none", st.Name)
		}
	}
}

func TestFlagsThroughKong(t *testing.T) {
	var cli struct {
		Serve struct{} `cmd:""`
	}
	flags := config.NewFlags()
	parser, err := kong.New(&cli, kong.Embed(flags.Target()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"serve", "--brokers=a:1,b:2", "--allow-undurable", "--gate-gather-for", "5ms",
		"--secret-file=s", "--database-url=postgres://h/d", "--kafka-tls=false", "--config", "c.yaml"}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"brokers": "a:1,b:2", "allow-undurable": "true", "gate-gather-for": "5ms", "secret-file": "s",
		"database-url": "postgres://h/d", "kafka-tls": "false", "config": "c.yaml"}
	if got := flags.Given(); !maps.Equal(got, want) {
		t.Errorf("given %v, want %v", got, want)
	}
	s, err := config.Load(source(flags.Given(), files{"c.yaml": "", "s": "0123456789abcdef0123456789abcdef"}))
	if err != nil || len(s.Kafka.Brokers) != 2 || !s.AllowUndurable || !s.Secret.Given() {
		t.Errorf("%v\n%v", err, s)
	}
	if _, err := parser.Parse([]string{"serve", "--secret=x"}); err == nil {
		t.Error("a secret must not be taken from the command line, where every user can read it")
	}
}
