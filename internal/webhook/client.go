package webhook

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// Endpoint is where a tenant's core system is called.
type Endpoint struct {
	URL          string
	Secrets      []string // whsec_ and 24 to 64 bytes in base64, newest first; each signs
	AllowPrivate bool     // the address may be private or loopback, and the URL http
}

// String leaves the secrets out, and the query, which may hold one too.
func (e Endpoint) String() string { return withoutQuery(e.URL) }

const (
	timeoutDefault = 10 * time.Second
	// connsPerHostMax bounds the calls under way to one host; tenants may have endpoints at the same one.
	connsPerHostMax   = 16
	idlePerHostMax    = 4
	idleMax           = 256
	idleTimeout       = 90 * time.Second
	headerBytesMax    = 64 << 10
	answerBytesMax    = 4 << 10 // read, so that the connection can be used again; more than that and it is closed
	tlsHandshakeLimit = 5 * time.Second
)

// Options are a Client's settings; the zero value is good.
type Options struct {
	Timeout   time.Duration // of a whole call, from look-up to answer; 0: 10 s
	UserAgent string        // "": Seenby
}

// Client calls endpoints. It is safe for concurrent use.
type Client struct {
	opts Options
	// Two pools: a connection that was made to a private address is never used by an endpoint that allows none.
	public, private *http.Transport
}

// New makes a Client; Close it to end its idle connections.
func New(opts Options) *Client {
	opts.Timeout = cmp.Or(opts.Timeout, timeoutDefault)
	opts.UserAgent = cmp.Or(opts.UserAgent, "Seenby")
	return &Client{opts: opts, public: transport(publicOnly.Safe), private: transport(nil)}
}

// publicOnly refuses every address of the IANA registries of special purpose, and what IPv6 sets aside outside the unicast
// that is routed (so IPv4 in any dress: mapped, NAT64, 6to4, Teredo). The port is the endpoint's business.
var publicOnly = ssrf.New(ssrf.WithAnyPort())

// transport makes a pool whose connections control was asked about, with the address that was resolved. HTTP/1.1 only: a
// broken connection of HTTP/2 would hold up every call to its host.
func transport(control func(network, address string, c syscall.RawConn) error) *http.Transport {
	dialer := &net.Dialer{Control: control}
	return &http.Transport{
		Proxy:                  nil, // a proxy would connect where this process may not
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    tlsHandshakeLimit,
		DisableCompression:     true, // what is read is bounded as it is sent
		MaxIdleConns:           idleMax,
		MaxIdleConnsPerHost:    idlePerHostMax,
		MaxConnsPerHost:        connsPerHostMax,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: headerBytesMax,
	}
}

// Close ends idle connections; calls under way go on.
func (c *Client) Close() {
	c.public.CloseIdleConnections()
	c.private.CloseIdleConnections()
}

// Send posts a body once. The id names what is sent, not the call: sending the same again has the same id. A call that ctx cuts
// short is Failed.
func (c *Client) Send(ctx context.Context, e Endpoint, id string, body []byte, now time.Time) Answer {
	start := time.Now()
	a := c.send(ctx, e, id, body, now)
	a.Took = time.Since(start)
	return a
}

func (c *Client) send(ctx context.Context, e Endpoint, id string, body []byte, now time.Time) Answer {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	req, err := c.request(ctx, e, http.MethodPost, "", id, body, now)
	if err != nil {
		return Answer{Outcome: Failed, Detail: e.redact(err.Error())}
	}
	resp, err := c.roundTrip(e, req)
	if err != nil {
		return Answer{Outcome: Failed, Detail: e.redact(c.reason(err)), Request: req.Header}
	}
	defer func() { _ = resp.Body.Close() }()
	a := judge(resp.StatusCode, resp.Header.Get("Retry-After"), now)
	a.Request = req.Header
	// The status is the answer. A body that breaks off, or never ends, does not change what it said.
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	a.Detail = e.redact(string(raw))
	if to := resp.Header.Get("Location"); to != "" && resp.StatusCode/100 == 3 {
		a.Detail = e.redact("redirects are not followed; set the endpoint to its final URL. This one leads to " + withoutQuery(to))
	}
	return a
}

// request makes a signed request; its errors are the endpoint's.
func (c *Client) request(ctx context.Context, e Endpoint, method, cursor, id string, body []byte, now time.Time) (*http.Request, error) {
	u, err := parseURL(e.URL, e.AllowPrivate)
	if err != nil {
		return nil, err
	}
	if cursor != "" {
		addCursor(u, cursor)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if err := sign(req.Header, e.Secrets, id, body, now); err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// roundTrip makes the call by the transport itself: a client would follow redirects, and put the URL into its errors.
func (c *Client) roundTrip(e Endpoint, req *http.Request) (*http.Response, error) {
	pool := c.public
	if e.AllowPrivate {
		pool = c.private
	}
	// Empty, so it is not sent, but the transport learns that the request may be sent again when the other side closes a
	// connection that had been idle: that is no failure of the endpoint.
	again := req.Clone(req.Context())
	again.Header["Idempotency-Key"] = nil
	return pool.RoundTrip(again)
}

// withoutQuery leaves out what may hold a secret.
func withoutQuery(url string) string {
	url, _, _ = strings.Cut(url, "?")
	return url
}
