package faulttest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seenby/internal/testenv"
)

// The installation that is broken.
const (
	prefix     = "faults-"
	partitions = 6
	tenant     = "demo"

	roleAPI       = "api"
	roleGate      = "gate"
	roleProjector = "projector"
	roleKeeper    = "keeper"
	roleRelay     = "relay"

	perRole = 2 // processes
)

var roles = []string{roleAPI, roleGate, roleProjector, roleKeeper, roleRelay}

// world is an installation as it runs in production: brokers, a database, and processes, two of each role; with a
// proxy on every way between a process and a server.
type world struct {
	t       testing.TB
	program string // its path
	seed    uint64
	cluster *testenv.KafkaCluster
	pg      *testenv.PostgresMachine

	processes []*process
	lanes     map[*process]*lane
	between   []*proxy // from the other brokers to each
	clock     string   // file that steps the clock of the first api
	environ   []string
	key       string

	ledger     *ledger
	load       *load
	watch      *watch
	core       *core
	background sync.WaitGroup
}

// lane is the way of one process to all servers.
type lane struct {
	kafka    []*proxy // by broker
	postgres *proxy
}

func (l *lane) setKafka(m mode, late time.Duration) {
	for _, p := range l.kafka {
		p.set(m, late)
	}
}

// newWorld starts everything and lets the load run.
func newWorld(t testing.TB, seed uint64, viewsPerSecond int, settings map[string]string) *world {
	t.Helper()
	w := &world{t: t, program: build(t), seed: seed, lanes: map[*process]*lane{}, ledger: newLedger(seed)}
	names := len(roles) * perRole
	lanes := make([]*lane, names)
	options := testenv.ClusterOptions{Lanes: make([][]string, names), Settings: settings}
	for i := range lanes {
		lanes[i] = &lane{postgres: newProxy(t)}
		for range testenv.Brokers {
			p := newProxy(t)
			lanes[i].kafka = append(lanes[i].kafka, p)
			options.Lanes[i] = append(options.Lanes[i], p.addr)
		}
	}
	for range testenv.Brokers {
		p := newProxy(t)
		w.between = append(w.between, p)
		options.Between = append(options.Between, p.addr)
	}
	for i := range w.between {
		t.Cleanup(func() { w.between[i].holdBack(false) })
	}
	w.pg = testenv.NewPostgresMachine(t)
	w.cluster = testenv.NewKafkaCluster(t, options)
	server := strings.TrimPrefix(w.pg.DSN[:strings.LastIndex(w.pg.DSN, "/")], "postgres://postgres:seenby@")
	for i, p := range w.between {
		p.forwardTo(w.cluster.BetweenTargets[i])
	}
	for i, l := range lanes {
		l.postgres.forwardTo(server)
		for b, p := range l.kafka {
			p.forwardTo(w.cluster.LaneTargets[i][b])
		}
	}
	w.clock = filepath.Join(t.TempDir(), "clock")
	w.environ = []string{"PATH=" + os.Getenv("PATH"), "SEENBY_PREFIX=" + prefix, "SEENBY_SECRET=0123456789abcdef0123456789abcdef",
		"SEENBY_RELAY_CALL_TIMEOUT=" + callTimeout.String()}
	w.install()
	w.launch(lanes, server)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() {
		cancel()
		if w.load != nil {
			w.load.wg.Wait()
		}
		w.background.Wait()
	})
	w.load = newLoad(ctx, w, viewsPerSecond)
	w.prepare(ctx)
	var err error
	if w.watch, err = newWatch(ctx, w); err != nil {
		t.Fatal(err)
	}
	return w
}

// install makes topics, schema, the tenant and its key by the commands that an operator types.
func (w *world) install() {
	w.t.Helper()
	direct := w.direct()
	w.command(direct, "topics", "apply", "--partitions", fmt.Sprint(partitions), "--replication", "3", "--min-insync-replicas", "2")
	w.command(direct, "migrate")
	w.command(direct, "tenants", "create", tenant)
	// No view of the load is refused for being one of many: whatever is not counted then is lost.
	w.command(direct, "tenants", "set", tenant, "intake_views_per_second=1000000", "quota_views_per_minute=6000000",
		"quota_burst_views=1000000", "post_cap_views=10000")
	w.key = strings.TrimSpace(w.command(direct, "keys", "create", tenant))
	w.tellCore()
}

// direct is the environment of a command that no fault but those of the servers touches.
func (w *world) direct() []string {
	return slices.Concat(w.environ, []string{
		"SEENBY_BROKERS=" + strings.Join(w.cluster.Direct, ","), "SEENBY_DATABASE_URL=" + w.pg.DSN,
	})
}

// launch starts the processes, each on its own lane, and waits until all are ready.
func (w *world) launch(lanes []*lane, server string) {
	w.t.Helper()
	logs := *logsFlag
	if logs == "" {
		logs = w.t.TempDir()
	}
	ports, err := testenv.FreePorts(len(lanes))
	if err != nil {
		w.t.Fatal(err)
	}
	for i, l := range lanes {
		role := roles[i/perRole]
		p := &process{program: w.program, role: role, name: fmt.Sprintf("%s-%d", role, i%perRole+1), addr: fmt.Sprintf("127.0.0.1:%d", ports[i])}
		var brokers []string
		for _, k := range l.kafka {
			brokers = append(brokers, k.addr)
		}
		p.logPath = filepath.Join(logs, p.name+".log")
		p.environ = slices.Concat(w.environ, []string{
			"SEENBY_BROKERS=" + strings.Join(brokers, ","),
			"SEENBY_DATABASE_URL=" + strings.Replace(w.pg.DSN, server, l.postgres.addr, 1),
		})
		if i == 0 {
			p.environ = append(p.environ, "FAULT_CLOCK="+w.clock)
		}
		w.processes = append(w.processes, p)
		w.lanes[p] = l
		if err := p.start(); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() {
			if err := p.kill(); err != nil {
				w.t.Error(err)
			}
			if w.t.Failed() {
				w.t.Logf("%s:\n%s", p.name, p.tail(logBytesShown))
			}
		})
	}
	for _, p := range w.processes {
		if err := p.awaitReady(w.t.Context(), processStart); err != nil {
			w.t.Fatal(err)
		}
	}
}

// logBytesShown of each process where a test fails; all of it is too much to read.
const logBytesShown = 3000

// prepare publishes the posts and fills the audience.
func (w *world) prepare(ctx context.Context) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, processStart)
	defer cancel()
	at := 0
	for i := range basePosts {
		post := map[string]any{"author": "author", "body": "text"}
		if forFriends(i) {
			post["audience"] = "audience:" + audience
		}
		w.load.insist(ctx, &at, http.MethodPut, "/v1/posts/"+basePost(i), post)
	}
	const most = 1000 // members of one request
	var add []string
	for i := range viewers {
		if isMember(i) {
			add = append(add, viewerName(i))
		}
		if len(add) == most || i == viewers-1 && len(add) > 0 {
			w.load.insist(ctx, &at, http.MethodPost, "/v1/audiences/"+audience+"/members:batch", map[string]any{"add": add})
			add = nil
		}
	}
	if ctx.Err() != nil {
		w.t.Fatal("the posts and members could not be written")
	}
}

// of are the processes of a role.
func (w *world) of(role string) (out []*process) {
	for _, p := range w.processes {
		if p.role == role {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) one(role string, random *rand.Rand) *process {
	all := w.of(role)
	return all[random.IntN(len(all))]
}

// take is one, for the caller alone to break until it unlocks breaking.
func (w *world) take(role string, random *rand.Rand) *process {
	p := w.one(role, random)
	p.breaking.Lock()
	return p
}

// silent is how long no view was acknowledged while the load wanted to.
func (w *world) silent() time.Duration {
	if w.load.paused.Load() || w.load.flying.Load() == 0 {
		return 0
	}
	last := w.ledger.lastAcknowledged()
	if last.IsZero() {
		return 0
	}
	return time.Since(later(last, w.load.resumedAt()))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
