package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"seenby/domain"
	"seenby/internal/testenv"
)

// installKafka gives an installation of topics and the tenant demo, with no database at all.
func installKafka(t testing.TB) *installation {
	t.Helper()
	kafka := testenv.Kafka(t)
	in := &installation{t: t, brokers: kafka.Brokers, prefix: kafka.Prefix, environ: []string{
		"SEENBY_BROKERS=" + strings.Join(kafka.Brokers, ","),
		"SEENBY_PREFIX=" + kafka.Prefix,
		"SEENBY_SECRET=0123456789abcdef0123456789abcdef",
	}}
	in.command("topics", "apply", "--allow-undurable", "--partitions", "12")
	in.command("tenants", "create", "demo")
	return in
}

// both runs a command that succeeds, and gives what it prints and what it says beside.
func (in *installation) both(args ...string) (stdout, stderr string) {
	in.t.Helper()
	code, stdout, stderr := in.try(args...)
	if code != exitOK {
		in.t.Fatalf("seenby %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout, stderr
}

func says(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s says nothing of %q:\n%s", what, want, text)
		}
	}
}

// coreOfDemo is an address that no test calls.
const coreOfDemo = "https://127.0.0.1:9/seenby"

// TestRelayEndpoints: an endpoint from its creation to its end, with its secrets.
func TestRelayEndpoints(t *testing.T) {
	in := installKafka(t)
	out, hints := in.both("relay", "endpoints", "create", "demo", coreOfDemo, "--allow-private")
	parts := regexp.MustCompile(`^(ep_[0-9a-z]{12})\n(whsec_[A-Za-z0-9+/]{43}=)\n$`).FindStringSubmatch(out)
	if parts == nil {
		t.Fatalf("endpoints create prints\n%s", out)
	}
	id, first := parts[1], parts[2]
	says(t, "endpoints create", hints, "relay endpoints secret demo "+id, "relay enable demo")
	if strings.Contains(hints, first) {
		t.Errorf("the secret stands among the hints:\n%s", hints)
	}
	if out, hints := in.both("relay", "endpoints", "secret", "demo", id); out != first+"\n" || hints != "" {
		t.Errorf("secret: %q %q", out, hints)
	}

	// A second one, by JSON. It is of another tenant where its id is asked for there.
	var created struct {
		ID, URL, Status, Secret string
		Private                 bool `json:"allow_private"`
	}
	out, _ = in.both("relay", "endpoints", "create", "demo", coreOfDemo+"/2", "--allow-private", "--json")
	if err := json.Unmarshal([]byte(out), &created); err != nil || created.ID == id || created.Secret == first || created.URL != coreOfDemo+"/2" || created.Status != "enabled" || !created.Private {
		t.Errorf("endpoints create --json: %v\n%s", err, out)
	}
	if got := in.command("relay", "endpoints", "secret", "demo", created.ID); got != created.Secret+"\n" {
		t.Errorf("its secret is %s, after\n%s", got, out)
	}
	in.command("tenants", "create", "shop")
	if code, out, why := in.try("relay", "endpoints", "secret", "shop", id); code != exitFailed || out != "" || !strings.Contains(why, "no endpoint of this id") {
		t.Errorf("the secret of another tenant's endpoint: %d %s%s", code, out, why)
	}

	// A rotation, and one more by force.
	rotate := func(args ...string) string {
		t.Helper()
		out, hints := in.both(append([]string{"relay", "endpoints", "rotate", "demo", id}, args...)...)
		says(t, "rotate", hints, "the secret before signs too until 20")
		return strings.TrimSuffix(out, "\n")
	}
	second := rotate()
	out, hints = in.both("relay", "endpoints", "secret", "demo", id)
	if out != second+"\n"+first+"\n" {
		t.Errorf("two secrets are\n%s\nwant %s and %s", out, second, first)
	}
	says(t, "secret", hints, "signs until 20")
	if code, out, why := in.try("relay", "endpoints", "rotate", "demo", id); code != exitFailed || out != "" || !strings.Contains(why, "--force") || !strings.Contains(why, "until 20") {
		t.Errorf("a rotation in a rotation: %d %s%s", code, out, why)
	}
	third := rotate("--force")
	if out := in.command("relay", "endpoints", "secret", "demo", id); out != third+"\n"+second+"\n" || third == second || second == first || third == first {
		t.Errorf("after a forced rotation:\n%s", out)
	}

	// Off, and on again.
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"disable", "demo", id, "--reason", "it moves"}, "endpoint " + id + " is disabled; "},
		{[]string{"disable", "demo", id, "--reason", "again"}, "disabled already, since 20"},
		{[]string{"list", "demo"}, "it moves"},
		{[]string{"enable", "demo", id}, "endpoint " + id + " is enabled; "},
		{[]string{"enable", "demo", id}, "enabled already"},
		{[]string{"disable", "demo", created.ID}, "is disabled; "},
	} {
		args := append([]string{"relay", "endpoints"}, c.args...)
		says(t, strings.Join(args, " "), in.command(args...), c.want)
	}
	list := in.command("relay", "endpoints", "list", "demo")
	says(t, "endpoints list", list, id, created.ID, coreOfDemo+"/2", "enabled", "disabled")
	if strings.Contains(list, "whsec_") || strings.Contains(list, "it moves") {
		t.Errorf("endpoints list shows a secret, or a reason that is no more:\n%s", list)
	}
	var listed struct {
		Endpoints []struct {
			ID, URL, Status string
			DisabledAt      string `json:"disabled_at"`
			RotatedAt       string `json:"rotated_at"`
		}
	}
	out = in.command("relay", "endpoints", "list", "demo", "--json")
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed.Endpoints) != 2 || listed.Endpoints[0].ID > listed.Endpoints[1].ID {
		t.Fatalf("endpoints list --json: %v\n%s", err, out)
	}
	for _, e := range listed.Endpoints {
		enabled := e.ID == id
		if (e.Status == "enabled") != enabled || (e.DisabledAt == "") != enabled || (e.RotatedAt != "") != enabled {
			t.Errorf("listed: %+v", e)
		}
	}
	if out := in.command("relay", "endpoints", "list", "shop", "--json"); !strings.Contains(out, `"endpoints": []`) {
		t.Errorf("a tenant without any:\n%s", out)
	}

	// A rotation of the installation's secret leaves receivers alone.
	file := filepath.Join(t.TempDir(), "secret")
	const next = "a-new-secret-that-has-32-bytes-and-more"
	if err := os.WriteFile(file, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	in.command("secret", "rotate", "--new-secret-file", file)
	rotated := &installation{t: t, environ: append(slices.Clone(in.environ), "SEENBY_SECRET="+next)}
	if out := rotated.command("relay", "endpoints", "secret", "demo", id); out != third+"\n"+second+"\n" {
		t.Errorf("after the installation's secret was rotated:\n%s", out)
	}
	// And the old one makes nothing, so no receiver is given a secret that signs nothing.
	if code, out, why := in.try("relay", "endpoints", "create", "demo", coreOfDemo+"/3", "--allow-private"); code != exitFailed || out != "" || !strings.Contains(why, "fingerprint") {
		t.Errorf("with the old secret: %d %s%s", code, out, why)
	}
	if out := in.command("relay", "endpoints", "list", "demo"); strings.Contains(out, coreOfDemo+"/3") {
		t.Errorf("with the old secret, the list is\n%s", out)
	}

	in.command("tenants", "close", "demo", "--yes")
	for _, args := range [][]string{{"list", "demo"}, {"secret", "demo", id}, {"enable", "demo", created.ID}} {
		if code, out, why := rotated.try(append([]string{"relay", "endpoints"}, args...)...); code != exitFailed || out != "" || !strings.Contains(why, "no open tenant demo") {
			t.Errorf("%v of a closed tenant: %d %s%s", args, code, out, why)
		}
	}
}

// TestRelayMilestones: what is printed can be given again.
func TestRelayMilestones(t *testing.T) {
	in := installKafka(t)
	for _, c := range []struct {
		args   []string
		prints string
	}{
		{[]string{"milestones", "demo"}, "none\n"},
		{[]string{"milestones", "demo", "10000, 100,1000"}, "tenant demo: milestones are 100,1000,10000\n"},
		{[]string{"milestones", "demo"}, "100,1000,10000\n"},
		{[]string{"milestones", "demo", "100,1000,10000"}, "tenant demo has these milestones already: 100,1000,10000\n"},
		{[]string{"milestones", "demo", "none"}, "tenant demo: milestones are none\n"},
		{[]string{"milestones", "demo"}, "none\n"},
		{[]string{"disable", "demo"}, "tenant demo: its core system is told nothing already\n"},
	} {
		if out := in.command(append([]string{"relay"}, c.args...)...); out != c.prints {
			t.Errorf("relay %v prints %q, want %q", c.args, out, c.prints)
		}
	}
	// One that is on goes off, and keeps its milestones.
	err := in.sharedLog().ChangeTenants(t.Context(), func(*domain.Installation) ([]domain.Event, error) {
		return []domain.Event{domain.RelaySet{Tenant: "demo", Enabled: true, Milestones: []int64{7}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, hints := in.both("relay", "endpoints", "create", "demo", coreOfDemo, "--allow-private"); strings.Contains(hints, "relay enable") {
		t.Errorf("of a tenant whose relay is on:\n%s", hints)
	}
	says(t, "relay disable", in.command("relay", "disable", "demo"), "nothing any more")
	says(t, "relay disable, again", in.command("relay", "disable", "demo"), "nothing already")
	if out := in.command("relay", "milestones", "demo"); out != "7\n" {
		t.Errorf("its milestones are %s", out)
	}
}

// TestRelayCommandsBadInput: one clear answer each, and nothing stands that did not before.
func TestRelayCommandsBadInput(t *testing.T) {
	in := installKafka(t)
	id, _, _ := strings.Cut(in.command("relay", "endpoints", "create", "demo", coreOfDemo, "--allow-private"), "\n")
	noSecret := &installation{t: t, environ: in.environ[:2]}
	log := in.sharedLog()
	before, err := log.Ends(t.Context(), domain.TopicTenants)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		in   *installation
		args []string
		code int
		want []string
	}{
		"create: no URL":               {in, []string{"endpoints", "create", "demo"}, exitUsage, []string{"<url>"}},
		"create: another scheme":       {in, []string{"endpoints", "create", "demo", "ftp://127.0.0.1/"}, exitUsage, []string{"http"}},
		"create: a URL that is there":  {in, []string{"endpoints", "create", "demo", coreOfDemo, "--allow-private"}, exitFailed, []string{id, "has this URL"}},
		"create: no such tenant":       {in, []string{"endpoints", "create", "nobody", coreOfDemo, "--allow-private"}, exitFailed, []string{"no open tenant nobody"}},
		"create: no secret":            {noSecret, []string{"endpoints", "create", "demo", coreOfDemo + "/2", "--allow-private"}, exitFailed, []string{"SEENBY_SECRET"}},
		"secret: no secret":            {noSecret, []string{"endpoints", "secret", "demo", id}, exitFailed, []string{"SEENBY_SECRET"}},
		"rotate: no secret":            {noSecret, []string{"endpoints", "rotate", "demo", id}, exitFailed, []string{"SEENBY_SECRET"}},
		"secret: no such endpoint":     {in, []string{"endpoints", "secret", "demo", "ep_0"}, exitFailed, []string{"relay endpoints list demo"}},
		"rotate: no such endpoint":     {in, []string{"endpoints", "rotate", "demo", "ep_0"}, exitFailed, []string{"relay endpoints list demo"}},
		"enable: no such endpoint":     {in, []string{"endpoints", "enable", "demo", "ep_0"}, exitFailed, []string{"relay endpoints list demo"}},
		"disable: no such endpoint":    {in, []string{"endpoints", "disable", "demo", "ep_0"}, exitFailed, []string{"relay endpoints list demo"}},
		"disable: no endpoint":         {in, []string{"endpoints", "disable", "demo"}, exitUsage, []string{"<id>"}},
		"disable: a reason":            {in, []string{"endpoints", "disable", "demo", id, "--reason", strings.Repeat("x", 300)}, exitUsage, []string{"reason"}},
		"list: no such tenant":         {in, []string{"endpoints", "list", "nobody"}, exitFailed, []string{"no open tenant nobody"}},
		"milestones: no number":        {in, []string{"milestones", "demo", "100,many"}, exitUsage, []string{`"many"`, "100,1000,10000"}},
		"milestones: an empty one":     {in, []string{"milestones", "demo", "100,"}, exitUsage, []string{"milestones"}},
		"milestones: twice":            {in, []string{"milestones", "demo", "100,5,100"}, exitUsage, []string{"100 is given twice"}},
		"milestones: zero":             {in, []string{"milestones", "demo", "0"}, exitUsage, []string{"milestones"}},
		"milestones: no such tenant":   {in, []string{"milestones", "nobody"}, exitFailed, []string{"no open tenant nobody"}},
		"milestones: set, no such one": {in, []string{"milestones", "nobody", "100"}, exitFailed, []string{"no open tenant nobody"}},
		"disable: no such tenant":      {in, []string{"disable", "nobody"}, exitFailed, []string{"no open tenant nobody"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := c.in.try(append([]string{"relay"}, c.args...)...)
			if code != c.code || strings.Contains(stdout, "whsec_") {
				t.Errorf("exit %d, want %d\n%s%s", code, c.code, stdout, stderr)
			}
			says(t, name, stdout+stderr, c.want...)
		})
	}
	if after, err := log.Ends(t.Context(), domain.TopicTenants); err != nil || !slices.Equal(after, before) {
		t.Errorf("the topic ended at %v and ends at %v, %v", before, after, err)
	}
}
