package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"seenby/internal/testenv"
)

// installation is a Kafka and a PostgreSQL of a test's own, and the environment that names them.
type installation struct {
	t        testing.TB
	environ  []string
	brokers  []string
	prefix   string
	database string // its URL, without what stands between
}

// install makes topics, schema, a tenant and a key by the commands that an operator types.
func install(t testing.TB, kinds ...testenv.Kind) (*installation, string) {
	t.Helper()
	kafka, pg := testenv.Kafka(t, kinds...), testenv.EmptyPostgres(t, kinds...)
	in := &installation{t: t, brokers: kafka.Brokers, prefix: kafka.Prefix, database: pg.DSN, environ: []string{
		"SEENBY_BROKERS=" + strings.Join(kafka.Brokers, ","),
		"SEENBY_PREFIX=" + kafka.Prefix,
		"SEENBY_DATABASE_URL=" + pg.DSN,
		"SEENBY_SECRET=0123456789abcdef0123456789abcdef",
	}}
	in.command("topics", "apply", "--allow-undurable", "--partitions", "12")
	in.command("migrate")
	in.command("tenants", "create", "demo")
	return in, strings.TrimSpace(in.command("keys", "create", "demo"))
}

// command runs the real main path to its end and gives what it printed.
func (in *installation) command(args ...string) string {
	in.t.Helper()
	code, stdout, stderr := in.try(args...)
	if code != exitOK {
		in.t.Fatalf("seenby %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

func (in *installation) try(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(in.t.Context(), args, in.environ, &out, &errs)
	return code, out.String(), errs.String()
}

// process is a `seenby serve` or `seenby dev` that runs within the test.
type process struct {
	t     testing.TB
	api   string // http://host:port
	key   string
	out   *syncBuffer
	ended chan struct{}
	stop  func() int // ends it cleanly and gives its exit code
}

// freeAddr is an address that was free a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serve runs roles and waits until they are ready. What it logs is shown where the test fails.
func (in *installation) serve(key string, roles string) *process {
	in.t.Helper()
	addr := freeAddr(in.t)
	return start(in.t, addr, key, in.environ, "serve", "--roles", roles, "--allow-undurable", "--http-addr", addr)
}

// start launches a process within the test and waits until it is ready.
func start(t testing.TB, addr, key string, environ []string, args ...string) *process {
	t.Helper()
	p := launch(t, addr, key, environ, args...)
	eventually(t, time.Minute, "the process to be ready", func() error {
		select {
		case <-p.ended:
			t.Fatalf("it ended:\n%s", p.out)
		default:
		}
		var ready struct {
			Status       string            `json:"status"`
			Dependencies map[string]string `json:"dependencies"`
		}
		if status, err := p.get("/readyz", nil, &ready); err != nil || status != http.StatusOK || ready.Status != "ready" {
			return fmt.Errorf("status %d, %w, %+v", status, err, ready)
		}
		return nil
	})
	return p
}

// launch runs a command within the test until the test ends. What it printed is shown where the test fails.
func launch(t testing.TB, addr, key string, environ []string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &process{t: t, api: "http://" + addr, key: key, out: &syncBuffer{}, ended: make(chan struct{})}
	code := -1
	go func() {
		defer close(p.ended)
		code = run(ctx, args, environ, p.out, p.out)
	}()
	p.stop = sync.OnceValue(func() int {
		cancel()
		select {
		case <-p.ended:
			return code
		case <-time.After(time.Minute):
			t.Error("the process does not stop")
			return -1
		}
	})
	t.Cleanup(func() {
		if code := p.stop(); code != exitOK {
			t.Errorf("seenby %s: exit %d", strings.Join(args, " "), code)
		}
		if t.Failed() {
			t.Logf("seenby %s\n%s", strings.Join(args, " "), p.out)
		}
	})
	return p
}

// answer is an HTTP answer with its body read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (p *process) do(method, path string, header http.Header, body any) (answer, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.api+path, reader)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+p.key)
	for k, v := range header {
		req.Header[k] = v
	}
	return send(req)
}

func send(req *http.Request) (answer, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text}, err
}

// must is do for requests that have to be answered with a status; it gives the answer's position, if any.
func (p *process) must(status int, method, path string, header http.Header, body, into any) (position string) {
	p.t.Helper()
	a, err := p.do(method, path, header, body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.status != status {
		p.t.Fatalf("%s %s: %d, want %d\n%s", method, path, a.status, status, a.body)
	}
	if into != nil {
		if err := json.Unmarshal(a.body, into); err != nil {
			p.t.Fatalf("%s %s: %v\n%s", method, path, err, a.body)
		}
	}
	return a.header.Get("Seenby-Position")
}

func (p *process) get(path string, header http.Header, into any) (int, error) {
	a, err := p.do(http.MethodGet, path, header, nil)
	if err == nil && into != nil {
		err = json.Unmarshal(a.body, into)
	}
	return a.status, err
}

func waitFor(position string) http.Header {
	return http.Header{"Seenby-Wait-For": {position}, "Prefer": {"wait=30"}}
}

func escape(id string) string { return url.PathEscape(id) }

type viewItem struct {
	ID       string     `json:"id,omitempty"`
	Post     string     `json:"post"`
	Viewer   string     `json:"viewer,omitempty"`
	ViewedAt *time.Time `json:"viewed_at,omitempty"`

	Anonymous string `json:"anonymous,omitempty"`
}

type viewsBody struct {
	SentAt *time.Time `json:"sent_at,omitempty"`
	Views  []viewItem `json:"views"`
}

type postAnswer struct {
	ID            string    `json:"id"`
	Author        string    `json:"author"`
	Body          string    `json:"body"`
	Version       int64     `json:"version"`
	Impressions   int64     `json:"impressions"`
	UniqueViewers int64     `json:"unique_viewers"`
	AsOf          time.Time `json:"as_of"`

	AnonymousImpressions int64 `json:"anonymous_impressions"`
}

// eventually waits for a condition; the last reason why it does not hold is shown when time is up.
func eventually(t testing.TB, within time.Duration, what string, holds func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v for %s: %v", within, what, err)
		case <-ticker.C:
		}
	}
}

// syncBuffer is a buffer that several goroutines may write and read.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
