package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"strings"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/config"
)

// TestCommandsBadInput: each mistake gets one clear answer, and nothing is changed by it.
func TestCommandsBadInput(t *testing.T) {
	in, _ := install(t)
	in.command("tenants", "create", "demo", "--if-missing")
	if code, out, says := in.try("keys", "create", "demo", "--if-none"); code != exitOK || out != "" || !strings.Contains(says, "has a key already") {
		t.Errorf("keys create --if-none: %d %q %q", code, out, says)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	var says bytes.Buffer
	if code := run(canceled, []string{"migrate"}, in.environ, io.Discard, &says); code != exitFailed || !strings.Contains(says.String(), "interrupted") {
		t.Errorf("an interrupted command: exit %d, %q", code, says.String())
	}
	bare := &installation{t: t}
	other := &installation{t: t, environ: append([]string{}, in.environ...)}
	other.environ[len(other.environ)-1] = "SEENBY_SECRET=another-secret-another-secret-another"
	empty := &installation{t: t, environ: append([]string{}, in.environ...)}
	empty.environ[1] = "SEENBY_PREFIX=" + in.prefix + "nothing-here."

	for name, c := range map[string]struct {
		in   *installation
		args []string
		code int
		want []string
	}{
		"an unknown command":        {in, []string{"srve"}, exitUsage, []string{"srve"}},
		"an unknown role":           {in, []string{"serve", "--roles", "api,cook"}, exitUsage, []string{`"cook"`, "gate"}},
		"no role":                   {in, []string{"serve", "--roles", ""}, exitUsage, []string{"--roles", "gate"}},
		"a data directory":          {bare, []string{"serve", "--data-dir", "no-such"}, exitUsage, []string{"--data-dir", "no-such"}},
		"all that is wrong":         {&installation{t: t, environ: []string{"SEENBY_BROKRS=x"}}, []string{"serve"}, exitFailed, []string{"SEENBY_BROKRS", "SEENBY_DATABASE_URL", "SEENBY_SECRET"}},
		"an unknown projection":     {in, []string{"serve", "--projections", "likes"}, exitUsage, []string{`"likes"`, "uniqueviews"}},
		"all that is missing":       {bare, []string{"serve"}, exitFailed, []string{"SEENBY_BROKERS", "SEENBY_DATABASE_URL", "SEENBY_SECRET"}},
		"no topics yet":             {empty, []string{"serve", "--allow-undurable", "--http-addr", "127.0.0.1:0"}, exitFailed, []string{"seenby topics apply"}},
		"topics that can be lost":   {in, []string{"serve", "--http-addr", "127.0.0.1:0"}, exitFailed, []string{"replication 1", "--allow-undurable"}},
		"another secret":            {other, []string{"serve", "--allow-undurable", "--http-addr", "127.0.0.1:0"}, exitFailed, []string{"fingerprint"}},
		"an address that is taken":  {in, []string{"serve", "--allow-undurable", "--http-addr", "256.0.0.1:80"}, exitFailed, []string{"256.0.0.1"}},
		"a tenant's id":             {in, []string{"tenants", "create", "No_Such"}, exitUsage, []string{"a-z"}},
		"a tenant that is there":    {in, []string{"tenants", "create", "demo"}, exitFailed, []string{"demo already"}},
		"a tenant that is not":      {in, []string{"keys", "create", "nobody"}, exitFailed, []string{"no open tenant nobody"}},
		"an unknown topic":          {in, []string{"tail", "vews"}, exitUsage, []string{`"vews"`, "verdicts"}},
		"an unknown reason":         {in, []string{"tail", "verdicts", "--reason", "dull"}, exitUsage, []string{`"dull"`, "stale"}},
		"a reason elsewhere":        {in, []string{"tail", "views", "--reason", "stale"}, exitUsage, []string{"verdicts"}},
		"a start that is no time":   {in, []string{"tail", "views", "--from", "yesterday"}, exitUsage, []string{"--from", "10m"}},
		"partitions that differ":    {in, []string{"topics", "apply", "--allow-undurable", "--partitions", "13"}, exitFailed, []string{"keys would move"}},
		"a plan that would differ":  {in, []string{"topics", "plan", "--allow-undurable", "--partitions", "13"}, exitFailed, []string{"conflict"}},
		"a replication to lose by":  {in, []string{"topics", "apply", "--replication", "1"}, exitUsage, []string{"--allow-undurable"}},
		"a letter that is none":     {in, []string{"deadletters", "show", "posts/3@1"}, exitUsage, []string{"posts:posts/3@1234"}},
		"a letter that is not":      {in, []string{"deadletters", "redrive", "posts:posts/3@1"}, exitFailed, []string{"no dead letter posts:posts/3@1"}},
		"no letter chosen":          {in, []string{"deadletters", "redrive"}, exitUsage, []string{"--all"}},
		"all, and some":             {in, []string{"deadletters", "redrive", "--all", "--tenant", "demo"}, exitUsage, []string{"not both"}},
		"a key that is none":        {in, []string{"deadletters", "list", "--key", "4711"}, exitUsage, []string{"shop/4711"}},
		"no such projection":        {in, []string{"deadletters", "list", "--projection", "likes"}, exitUsage, []string{`"likes"`, "uniqueviews"}},
		"a discard without reason":  {in, []string{"deadletters", "discard", "posts:posts/3@1", "--reason", ""}, exitUsage, []string{"--reason"}},
		"a discard of nothing":      {in, []string{"deadletters", "discard", "posts:posts/3@1", "--reason", "x"}, exitFailed, []string{"no dead letter posts:posts/3@1"}},
		"in-sync above replication": {in, []string{"topics", "apply", "--allow-undurable", "--replication", "1", "--min-insync-replicas", "2"}, exitUsage, []string{"--min-insync-replicas"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := c.in.try(c.args...)
			if code != c.code {
				t.Errorf("seenby %s: exit %d, want %d\n%s%s", strings.Join(c.args, " "), code, c.code, stdout, stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("seenby %s says nothing of %q:\n%s%s", strings.Join(c.args, " "), want, stdout, stderr)
				}
			}
		})
	}
	if out := in.command("topics", "plan", "--allow-undurable", "--partitions", "12"); strings.Contains(out, "create") || !strings.Contains(out, "ok") {
		t.Errorf("after all that, the plan is\n%s", out)
	}
}

// during does something once, while a command is being decided.
type during struct{ do func() }

func (d *during) Read(b []byte) (int, error) {
	if do := d.do; do != nil {
		d.do = nil
		do()
	}
	return rand.Read(b)
}

// A command that was overtaken by another has created nothing, and does not say that it is there.
func TestCreateIfMissingOvertaken(t *testing.T) {
	in, _ := install(t)
	var out bytes.Buffer
	env := &environment{ctx: t.Context(), environ: in.environ, stdout: &out, stderr: &out, flags: config.NewFlags(), now: time.Now}
	env.rand = &during{func() { in.command("tenants", "create", "other") }}
	c := tenantsCreateCommand{Tenant: "shop", IfMissing: true}
	if err := c.Run(env); domain.CodeOf(err) != domain.CodeConflict || out.Len() > 0 {
		t.Errorf("overtaken: %v %q", err, out.String())
	}
	for _, want := range []string{"tenant shop is created\n", "tenant shop is there\n"} {
		out.Reset()
		if err := c.Run(env); err != nil || out.String() != want {
			t.Errorf("again: %v %q, want %q", err, out.String(), want)
		}
	}
}

func TestConfigAndVersion(t *testing.T) {
	in := &installation{t: t, environ: []string{"SEENBY_SECRET=0123456789abcdef0123456789abcdef", "SEENBY_BROKERS=broker:9092"}}
	out := in.command("config", "print")
	if strings.Contains(out, "0123456789abcdef") || !strings.Contains(out, "***") || !strings.Contains(out, "broker:9092") {
		t.Errorf("config print:\n%s", out)
	}
	if code, stdout, stderr := in.try("config", "check"); code != exitFailed || !strings.Contains(stderr, "SEENBY_DATABASE_URL") {
		t.Errorf("config check: %d\n%s%s", code, stdout, stderr)
	}
	in.environ = append(in.environ, "SEENBY_DATABASE_URL=postgres://u:secret-password@localhost/d")
	in.command("config", "check")
	in.environ = append(in.environ, "SEENBY_BROKRS=x")
	if code, _, stderr := in.try("config", "check"); code != exitFailed || !strings.Contains(stderr, "SEENBY_BROKRS") || strings.Contains(stderr, "secret-password") {
		t.Errorf("a variable that is mistyped: %d\n%s", code, stderr)
	}
	if out := in.command("version"); !strings.HasPrefix(out, "seenby ") {
		t.Errorf("version: %s", out)
	}
}
