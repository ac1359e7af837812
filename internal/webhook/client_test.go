package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

var (
	newSecret = secretPrefix + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	oldSecret = secretPrefix + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{2}, 32))
)

func client(t *testing.T, opts Options) *Client {
	t.Helper()
	c := New(opts)
	t.Cleanup(c.Close)
	return c
}

// serve is an endpoint on this machine.
func serve(t *testing.T, h http.HandlerFunc) Endpoint {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Endpoint{URL: s.URL + "/seenby?from=us", Secrets: []string{newSecret, oldSecret}, AllowPrivate: true}
}

func TestACallIsSignedByEachSecret(t *testing.T) {
	type call struct {
		header http.Header
		body   []byte
		url    string
		method string
	}
	calls := make(chan call, 1)
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls <- call{r.Header, body, r.URL.String(), r.Method}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, "thank you")
	})
	body := TestBody("shop", time.Now())
	a := client(t, Options{UserAgent: "Seenby/1"}).Send(t.Context(), e, "test_1", body, time.Now())
	if a.Outcome != Delivered || a.Status != 202 || a.Detail != "thank you" || a.Took <= 0 {
		t.Fatalf("%+v", a)
	}
	got := <-calls
	if got.method != "POST" || got.url != "/seenby?from=us" || !bytes.Equal(got.body, body) {
		t.Errorf("%s %s %s", got.method, got.url, got.body)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "User-Agent": "Seenby/1", "Webhook-Id": "test_1"} {
		if got.header.Get(name) != want || a.Request.Get(name) != want {
			t.Errorf("%s: %q was sent, %q is shown, not %q", name, got.header.Get(name), a.Request.Get(name), want)
		}
	}
	if _, sent := got.header["Idempotency-Key"]; sent {
		t.Error("a header that is for the transport alone was sent")
	}
	for _, secret := range e.Secrets {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(got.body, got.header); err != nil {
			t.Errorf("a receiver with one of the secrets: %v", err)
		}
		if err := verifier.Verify(append(got.body, ' '), got.header); err == nil {
			t.Error("another body has the same signature")
		}
	}
}

func TestOutcomes(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		status     int
		retryAfter string
		want       Outcome
		wait       time.Duration
	}{
		{status: 200, want: Delivered},
		{status: 204, want: Delivered},
		{status: 200, retryAfter: "7", want: Delivered},
		{status: 301, want: Failed},
		{status: 304, want: Failed},
		{status: 400, want: Refused},
		{status: 401, want: Failed},
		{status: 403, want: Failed},
		{status: 404, want: Failed},
		{status: 405, want: Failed},
		{status: 408, want: Failed},
		{status: 409, want: Refused},
		{status: 410, want: Gone},
		{status: 413, want: Refused},
		{status: 415, want: Refused},
		{status: 422, want: Refused},
		{status: 425, want: Failed},
		{status: 429, want: Limited},
		{status: 429, retryAfter: "120", want: Limited, wait: 2 * time.Minute},
		{status: 429, retryAfter: "Mon, 23 Nov 2026 12:00:30 GMT", want: Limited, wait: 30 * time.Second},
		{status: 429, retryAfter: "Mon, 23 Nov 2026 11:00:00 GMT", want: Limited},
		{status: 429, retryAfter: "soon", want: Limited},
		{status: 429, retryAfter: "-5", want: Limited},
		{status: 500, retryAfter: "7", want: Failed},
		{status: 503, want: Failed},
		{status: 503, retryAfter: "soon", want: Failed},
		{status: 503, retryAfter: "0", want: Limited},
		{status: 503, retryAfter: "9999999", want: Limited, wait: 24 * time.Hour},
		{status: 503, retryAfter: "99999999999999999999", want: Limited, wait: 24 * time.Hour},
		{status: 503, retryAfter: "Mon, 23 Nov 2099 12:00:00 GMT", want: Limited, wait: 24 * time.Hour},
		{status: 599, want: Failed},
		{status: 700, want: Failed},
	} {
		e := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if tt.retryAfter != "" {
				w.Header().Set("Retry-After", tt.retryAfter)
			}
			w.WriteHeader(tt.status)
		})
		a := client(t, Options{}).Send(t.Context(), e, "1", []byte(`{}`), now)
		if a.Outcome != tt.want || a.Status != tt.status || a.RetryAfter != tt.wait {
			t.Errorf("%d, Retry-After %q: %s, %d, %s, not %s, %s", tt.status, tt.retryAfter, a.Outcome, a.Status, a.RetryAfter, tt.want, tt.wait)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	var followed atomic.Bool
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/other" {
			followed.Store(true)
			return
		}
		http.Redirect(w, r, "/other?token=1", http.StatusTemporaryRedirect)
	})
	a := client(t, Options{}).Send(t.Context(), e, "1", []byte(`{}`), time.Now())
	if a.Outcome != Failed || a.Status != 307 || followed.Load() {
		t.Errorf("%+v, followed: %v", a, followed.Load())
	}
	if !strings.HasSuffix(a.Detail, "leads to /other") {
		t.Errorf("detail %q", a.Detail)
	}
}

func TestACallEndsInTime(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	hang := func(_ http.ResponseWriter, _ *http.Request) { <-release }
	a := client(t, Options{Timeout: 50 * time.Millisecond}).Send(t.Context(), serve(t, hang), "1", []byte(`{}`), time.Now())
	if a.Outcome != Failed || a.Status != 0 || a.Detail != "no answer within 50ms" || a.Request == nil {
		t.Errorf("no answer: %+v", a)
	}
	endless := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "beginning")
		_ = http.NewResponseController(w).Flush()
		<-release
	}
	a = client(t, Options{Timeout: time.Second}).Send(t.Context(), serve(t, endless), "1", []byte(`{}`), time.Now())
	if a.Outcome != Delivered || a.Status != 200 || a.Detail != "beginning" {
		t.Errorf("an answer without end: %+v", a)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(_ http.ResponseWriter, _ *http.Request) { cancel(); <-release }
	a = client(t, Options{}).Send(ctx, serve(t, stop), "1", []byte(`{}`), time.Now())
	if a.Outcome != Failed || a.Detail != "the call was cut short on this side" {
		t.Errorf("cut short: %+v", a)
	}
}

// broken answers with what it is given and closes the connection.
func broken(t *testing.T, answer string) Endpoint {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(conn, answer)
		_ = conn.Close()
	})
}

func TestAnAnswerThatBreaksOff(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         Outcome
		detail       string
	}{
		{"before it", "", Failed, "the connection was closed before an answer"},
		{"in the header", "HTTP/1.1 200 OK\r\n", Failed, "the connection was closed before an answer"},
		{"in the body", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthank", Delivered, "thank"},
		{"in the body of an error", "HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nsor", Failed, "sor"},
	} {
		a := client(t, Options{}).Send(t.Context(), broken(t, tt.answer), "1", []byte(`{}`), time.Now())
		if a.Outcome != tt.want || a.Detail != tt.detail {
			t.Errorf("%s: %+v", tt.name, a)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String() + "/?token=hidden"
	_ = l.Close()
	a := client(t, Options{}).Send(t.Context(), Endpoint{URL: url, Secrets: []string{newSecret}, AllowPrivate: true}, "1", nil, time.Now())
	if a.Outcome != Failed || !strings.Contains(a.Detail, "connection refused") || strings.Contains(a.Detail, "hidden") {
		t.Errorf("%+v", a)
	}
}

func TestAHugeAnswerIsNotRead(t *testing.T) {
	cut := make(chan int, 1)
	e := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		sent := 0
		for sent < 1<<30 {
			n, err := w.Write(make([]byte, 1<<16))
			sent += n
			if err != nil {
				break
			}
		}
		cut <- sent
	})
	a := client(t, Options{}).Send(t.Context(), e, "1", []byte(`{}`), time.Now())
	if sent := <-cut; a.Outcome != Delivered || sent >= 1<<30 {
		t.Errorf("%+v; %d bytes were taken", a, sent)
	}
	e = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 2*headerBytesMax))
	})
	if a := client(t, Options{}).Send(t.Context(), e, "1", []byte(`{}`), time.Now()); a.Outcome != Failed || a.Status != 0 {
		t.Errorf("a huge header: %+v", a)
	}
}

func TestADetailIsFitForPeople(t *testing.T) {
	e := Endpoint{URL: "https://core.example/?token=hidden", Secrets: []string{newSecret}}
	key := strings.TrimPrefix(newSecret, secretPrefix)
	for raw, want := range map[string]string{
		"":                                "",
		"a\x00b\r\n\t c\u202e\xff":        "a b c ?",
		"no: " + newSecret + " or " + key: "no: whsec_*** or ***",
		strings.Repeat("x", 300):          strings.Repeat("x", 253) + "...",
		strings.Repeat("\u00e4", 300):     strings.Repeat("\u00e4", 126) + "...",
	} {
		if got := e.redact(raw); got != want {
			t.Errorf("%q: %q, not %q", raw, got, want)
		}
	}
	if got := fmt.Sprintf("%v %+v", e, []Endpoint{e}); got != "https://core.example/ [https://core.example/]" {
		t.Errorf("an endpoint prints as %s", got)
	}
}

func TestAnEndpointThatCannotBeCalled(t *testing.T) {
	c := client(t, Options{})
	for _, tt := range []struct {
		e    Endpoint
		want string
	}{
		{Endpoint{URL: "http://core.example/", Secrets: []string{newSecret}}, "in clear"},
		{Endpoint{URL: "https://core.example/"}, "no secret"},
		{Endpoint{URL: "https://core.example/", Secrets: []string{newSecret, ""}}, "secret 2 of 2"},
		{Endpoint{URL: "https://core.example/", Secrets: []string{"whsec_"}}, "secret 1 of 1"},
		{Endpoint{URL: "https://core.example/", Secrets: []string{"whsec_c2hvcnQ="}}, "secret 1 of 1"},
		{Endpoint{URL: "https://core.example/", Secrets: []string{newSecret[6:]}}, "secret 1 of 1"},
	} {
		a := c.Send(t.Context(), tt.e, "1", nil, time.Now())
		if a.Outcome != Failed || a.Request != nil || !strings.Contains(a.Detail, tt.want) {
			t.Errorf("%v: %+v, not %q", tt.e, a, tt.want)
		}
	}
}

func TestConnectionsAreKeptAndBounded(t *testing.T) {
	var arrived, opened atomic.Int64
	full, release := make(chan struct{}), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if arrived.Add(1) == connsPerHostMax {
			close(full)
		}
		<-release
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := client(t, Options{Timeout: time.Minute})
	e := Endpoint{URL: s.URL, Secrets: []string{newSecret}, AllowPrivate: true}
	send := func(ctx context.Context) Answer { return c.Send(ctx, e, "1", []byte(`{}`), time.Now()) }
	answers := make(chan Answer)
	for range connsPerHostMax {
		go func() { answers <- send(t.Context()) }()
	}
	<-full
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if a := send(ctx); a.Outcome != Failed || arrived.Load() != connsPerHostMax {
		t.Errorf("one call more than there may be: %+v, %d arrived", a, arrived.Load())
	}
	close(release)
	for range connsPerHostMax {
		if a := <-answers; a.Outcome != Delivered {
			t.Errorf("%+v", a)
		}
	}
	before := opened.Load()
	for range 2 * idlePerHostMax {
		if a := send(t.Context()); a.Outcome != Delivered {
			t.Errorf("%+v", a)
		}
	}
	if opened.Load() != before {
		t.Errorf("%d more connections for calls one after another", opened.Load()-before)
	}
}

// A receiver that closes an idle connection just as a call takes it has not failed.
func TestAClosedIdleConnectionIsNoFailure(t *testing.T) {
	var calls atomic.Int64
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if calls.Add(1) == 2 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		}
	})
	c := client(t, Options{})
	for range 2 {
		if a := c.Send(t.Context(), e, "1", []byte(`{}`), time.Now()); a.Outcome != Delivered {
			t.Errorf("%+v", a)
		}
	}
	if calls.Load() != 3 {
		t.Errorf("%d calls arrived, not 3", calls.Load())
	}
}

func TestTheEnvironmentsProxyIsNotUsed(t *testing.T) {
	var asked atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	t.Cleanup(proxy.Close)
	c := client(t, Options{})
	for _, pool := range []*http.Transport{c.public, c.private} {
		if pool.Proxy != nil {
			t.Error("a pool has a proxy")
		}
	}
	t.Setenv("HTTP_PROXY", proxy.URL) // read once a process, so what counts is the check above
	e := Endpoint{URL: "http://host.invalid/", Secrets: []string{newSecret}, AllowPrivate: true}
	if a := c.Send(t.Context(), e, "1", nil, time.Now()); a.Outcome != Failed || asked.Load() {
		t.Errorf("%+v, proxy asked: %v", a, asked.Load())
	}
}

// A name that was public when it was checked, and is this machine at the call.
func TestAnAddressIsCheckedAtConnect(t *testing.T) {
	var connected atomic.Bool
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ConnState = func(net.Conn, http.ConnState) { connected.Store(true) }
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	public := func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("93.184.216.34")}, nil
	}
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "[64:ff9b::7f00:1]"} {
		e := Endpoint{URL: "https://" + host + ":" + port + "/", Secrets: []string{newSecret}}
		if err := checkURL(t.Context(), e.URL, false, public); err != nil {
			t.Fatal(err)
		}
		a := client(t, Options{}).Send(t.Context(), e, "1", []byte(`{}`), time.Now())
		if a.Outcome != Failed || !strings.Contains(a.Detail, "is no public address") {
			t.Errorf("%s: %+v", host, a)
		}
		if _, err := client(t, Options{}).Values(t.Context(), e, "", time.Now()); err == nil || !strings.Contains(err.Error(), "is no public address") {
			t.Errorf("%s: GET: %v", host, err)
		}
	}
	if connected.Load() {
		t.Error("a connection was made")
	}
	// The same server is reached where private addresses are allowed, so it was the check.
	e := Endpoint{URL: "https://127.0.0.1:" + port + "/", Secrets: []string{newSecret}, AllowPrivate: true}
	a := client(t, Options{}).Send(t.Context(), e, "1", []byte(`{}`), time.Now())
	if !connected.Load() || !strings.HasPrefix(a.Detail, "the certificate is not valid here: ") {
		t.Errorf("%+v", a)
	}
}
