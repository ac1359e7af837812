package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"seenby/internal/embedded"
	"seenby/internal/testenv"
)

// TestPostgresAway: views are accepted, also by an api that starts meanwhile; what was appended is never
// answered with a 5xx; reads say 503; and counting goes on by itself.
func TestPostgresAway(t *testing.T) {
	in, key := install(t)
	cable := in.throughCable()
	p := in.serve(key, "api,gate,projector,keeper")
	p.must(http.StatusCreated, "PUT", "/v1/posts/before", nil, map[string]any{"author": "anna"}, nil)

	cable.cut()
	p.must(http.StatusServiceUnavailable, "GET", "/v1/posts/before", nil, nil, nil)
	late := in.serveUnready(key, "api")
	view := viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "before", Viewer: "ben"}, {ID: uuid.NewString(), Post: "during", Viewer: "ben"}}}
	var accepted struct {
		Accepted int `json:"accepted"`
	}
	position := p.must(http.StatusAccepted, "PUT", "/v1/posts/during", nil, map[string]any{"author": "anna", "body": "Hi"}, nil)
	if position == "" {
		t.Error("a post write that was appended has no position")
	}
	p.must(http.StatusAccepted, "POST", "/v1/views", nil, view, &accepted)
	if accepted.Accepted != 2 {
		t.Errorf("accepted %d views while PostgreSQL is away", accepted.Accepted)
	}
	eventually(t, 30*time.Second, "the late api to accept views", func() error {
		a, err := late.do("POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "before", Viewer: "cleo"}}})
		if err != nil || a.status != http.StatusAccepted {
			return fmt.Errorf("%d %s %w", a.status, a.body, err)
		}
		position = a.header.Get("Seenby-Position")
		return nil
	})
	if n := strings.Count(p.out.String(), "panic"); n > 0 {
		t.Error("something panicked")
	}

	cable.mend()
	var got postAnswer
	eventually(t, time.Minute, "counting to go on", func() error {
		status, err := p.get("/v1/posts/before", waitFor(position), &got)
		if err != nil || status != http.StatusOK || got.Impressions != 2 {
			return fmt.Errorf("%d %+v %w", status, got, err)
		}
		return nil
	})
	eventually(t, time.Minute, "the view of the post of the outage to count", func() error {
		status, err := late.get("/v1/posts/during", nil, &got)
		if err != nil || status != http.StatusOK || got.Impressions != 1 || got.Body != "Hi" {
			return fmt.Errorf("%d %+v %w", status, got, err)
		}
		return nil
	})
}

// TestKafkaAway: 503 with Retry-After within the deadline, never a false 202, and on again when it is back.
func TestKafkaAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kafka")
	kafka, err := embedded.StartKafka(t.Context(), embedded.KafkaOptions{DataDir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	in := &installation{t: t, brokers: kafka.Brokers(), environ: []string{
		"SEENBY_BROKERS=" + strings.Join(kafka.Brokers(), ","), "SEENBY_DATABASE_URL=" + testenv.EmptyPostgres(t).DSN,
		"SEENBY_SECRET=0123456789abcdef0123456789abcdef",
	}}
	in.command("topics", "apply", "--allow-undurable", "--partitions", "3")
	in.command("migrate")
	in.command("tenants", "create", "demo")
	p := in.serve(strings.TrimSpace(in.command("keys", "create", "demo")), "api,gate,projector,keeper")
	p.must(http.StatusCreated, "PUT", "/v1/posts/p", nil, map[string]any{"author": "anna"}, nil)

	if err := kafka.Close(); err != nil {
		t.Fatal(err)
	}
	view := viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "p", Viewer: "ben"}}}
	for _, r := range []struct {
		method, path string
		body         any
	}{{"POST", "/v1/views", view}, {"PUT", "/v1/posts/q", map[string]any{"author": "anna"}}} {
		asked := time.Now()
		a, err := p.do(r.method, r.path, nil, r.body)
		if err != nil {
			t.Fatal(err)
		}
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || time.Since(asked) > 11*time.Second {
			t.Errorf("%s %s without Kafka: %d after %v, %v, %s", r.method, r.path, a.status, time.Since(asked), a.header, a.body)
		}
	}
	if status, err := p.get("/readyz", nil, nil); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("readyz without Kafka: %d %v", status, err)
	}
	p.must(http.StatusOK, "GET", "/v1/posts/p", nil, nil, nil)

	if kafka, err = embedded.StartKafka(t.Context(), embedded.KafkaOptions{DataDir: dir, NoSync: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(); kafka.Close() })
	var got postAnswer
	eventually(t, time.Minute, "the same request to be accepted", func() error {
		a, err := p.do("POST", "/v1/views", nil, view)
		if err != nil || a.status != http.StatusAccepted {
			return fmt.Errorf("%d %s %w", a.status, a.body, err)
		}
		status, err := p.get("/v1/posts/p", waitFor(a.header.Get("Seenby-Position")), &got)
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("%d %w", status, err)
		}
		return nil
	})
	if got.Impressions != 1 {
		t.Errorf("one view, sent until it was accepted, counts %d times", got.Impressions)
	}
}

// serveUnready starts a process that cannot become ready, and waits until it is alive.
func (in *installation) serveUnready(key, roles string) *process {
	in.t.Helper()
	addr := freeAddr(in.t)
	p := launch(in.t, addr, key, in.environ, "serve", "--roles", roles, "--allow-undurable", "--http-addr", addr)
	eventually(in.t, 30*time.Second, "the process to be alive", func() error {
		status, err := p.get("/healthz", nil, nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})
	return p
}

// throughCable lets the processes that start from now on reach PostgreSQL through a proxy that can be cut.
func (in *installation) throughCable() *cable {
	in.t.Helper()
	u, err := url.Parse(in.database)
	if err != nil {
		in.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		in.t.Fatal(err)
	}
	c := &cable{to: u.Host, conns: map[net.Conn]bool{}}
	u.Host = l.Addr().String()
	in.environ = append(in.environ, "SEENBY_DATABASE_URL="+u.String()) // of two of a name the last counts
	go c.accept(l)
	in.t.Cleanup(func() { l.Close(); c.cut() })
	return c
}

// cable passes bytes on until it is cut.
type cable struct {
	to    string
	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

func (c *cable) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go c.pass(conn)
		}
	}
}

func (c *cable) pass(conn net.Conn) {
	defer conn.Close()
	if !c.hold(conn) {
		return
	}
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	if !c.hold(server) {
		return
	}
	go func() {
		io.Copy(server, conn) //nolint:errcheck // a cut is what it is for
		server.Close()
	}()
	io.Copy(conn, server) //nolint:errcheck // as above
}

func (c *cable) hold(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = true
	return !c.down
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = true
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = false
}

// A role that stops for good says why, at once, and the others go on; and a read that waits for what will not come
// does not hold up the stop of the process.
func TestAStoppedRole(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,projector")
	p.must(http.StatusCreated, "PUT", "/v1/posts/p", nil, map[string]any{"author": "anna"}, nil)
	conn, err := pgx.Connect(t.Context(), in.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// What a database looks like that was restored beside another log.
	if _, err := conn.Exec(t.Context(), "UPDATE positions SET next_offset = next_offset + 1000 WHERE projection = 'posts'"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the projector to stop and say so", func() error {
		p.must(http.StatusAccepted, "PUT", "/v1/posts/"+uuid.NewString(), nil, map[string]any{"author": "anna"}, nil)
		var ready struct {
			Dependencies map[string]string `json:"dependencies"`
		}
		_, err := p.get("/readyz", nil, &ready)
		if err != nil || ready.Dependencies["projector posts"] == "ok" || !strings.Contains(p.out.String(), "the log ends at") {
			return fmt.Errorf("%v %w", ready, err)
		}
		return nil
	})
	position := p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "p", Viewer: "ben"}}}, nil)
	read, err := net.Dial("tcp", strings.TrimPrefix(p.api, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	fmt.Fprintf(read, "GET /v1/posts/p HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nSeenby-Wait-For: %s\r\nPrefer: wait=30\r\n\r\n", key, position)
	p.must(http.StatusOK, "GET", "/healthz", nil, nil, nil) // by when that read has arrived, too
	began := time.Now()
	if code := p.stop(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	if took := time.Since(began); took > 14*time.Second {
		t.Errorf("the stop took %v", took)
	}
	answer, err := http.ReadResponse(bufio.NewReader(read), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the read was answered with %s", answer.Status)
	}
}
