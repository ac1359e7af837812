package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"code.dny.dev/ssrf"
)

// Outcome is what an answer means for what was sent.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // 2xx: the receiver has it
	Refused   Outcome = "refused"   // 4xx: the receiver does not want this content; the same again helps nobody
	Failed    Outcome = "failed"    // no answer, or one that says nothing of the content: the same may work later
	Limited   Outcome = "limited"   // 429, or 503 with Retry-After: the same later, not before RetryAfter
	Gone      Outcome = "gone"      // 410: the receiver wants nothing at all any more
)

// Answer is what came of one call.
type Answer struct {
	Outcome    Outcome
	Status     int           // 0: no answer came
	RetryAfter time.Duration // of Limited: at most a day; 0: not said
	// Detail is the beginning of the answer, or why none came: printable, at most 256 bytes, without secrets.
	Detail string
	Took   time.Duration
	// Request holds the headers that were sent; nil where the endpoint cannot be called at all.
	Request http.Header
}

const (
	retryAfterMax  = 24 * time.Hour
	detailBytesMax = 256
)

// judge gives a status its outcome.
func judge(status int, retryAfter string, now time.Time) Answer {
	a := Answer{Status: status, Outcome: Failed}
	switch {
	case status/100 == 2:
		a.Outcome = Delivered
	case status == http.StatusGone:
		a.Outcome = Gone
	case status == http.StatusTooManyRequests:
		a.Outcome = Limited
		a.RetryAfter, _ = parseRetryAfter(retryAfter, now)
	case status == http.StatusServiceUnavailable:
		if wait, ok := parseRetryAfter(retryAfter, now); ok {
			a.Outcome, a.RetryAfter = Limited, wait
		}
	case status/100 == 4 && !aboutCaller(status):
		a.Outcome = Refused
	}
	return a
}

// aboutCaller tells whether a 4xx speaks of the endpoint's settings, of access or of the moment, not of the content.
func aboutCaller(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusLocked,
		http.StatusTooEarly, http.StatusUpgradeRequired:
		return true
	}
	return false
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110, 10.2.3).
func parseRetryAfter(s string, now time.Time) (time.Duration, bool) {
	if s != "" && strings.Trim(s, "0123456789") == "" {
		seconds, err := strconv.ParseInt(s, 10, 64)
		if err != nil || seconds > int64(retryAfterMax/time.Second) {
			return retryAfterMax, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), retryAfterMax), true
}

// reason says in words why no answer came. What the resolver or a certificate says beside it may be long, or name this
// process's own network.
func (c *Client) reason(err error) string {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP):
		if errors.As(err, &op) && op.Addr != nil {
			if addr, err := netip.ParseAddrPort(op.Addr.String()); err == nil {
				return refusal(addr.Addr().Unmap().String())
			}
		}
		return refusal("where it is")
	case errors.Is(err, context.Canceled):
		return "the call was cut short on this side"
	case errors.As(err, &dns) && !dns.IsTimeout:
		return fmt.Sprintf("the host %s does not resolve", dns.Name)
	case errors.As(err, &cert):
		return "the certificate is not valid here: " + cert.Err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %s", c.opts.Timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed before an answer"
	}
	return err.Error()
}

// redact makes a text fit for people and logs: without the endpoint's secrets, on one line, printable and bounded.
func (e Endpoint) redact(text string) string {
	for _, secret := range e.Secrets {
		if key := strings.TrimPrefix(secret, secretPrefix); key != "" {
			text = strings.ReplaceAll(text, key, "***")
		}
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsSpace(r), !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= detailBytesMax {
		return text
	}
	n := detailBytesMax - len("...")
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "..."
}
