package webhook

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"seenby/domain"
)

const (
	urlBytesMax = 2000
	lookUpLimit = 5 * time.Second
)

// CheckURL tells whether an endpoint may have this URL, and says what to do if not: every error is CodeInvalid of "url". It looks
// the host up, so it can block for some seconds. What a name resolves to may change; Client looks again at each connection.
func CheckURL(ctx context.Context, raw string, allowPrivate bool) error {
	return checkURL(ctx, raw, allowPrivate, net.DefaultResolver.LookupNetIP)
}

// lookUp gives the addresses of a host, which may be an address itself.
type lookUp func(ctx context.Context, network, host string) ([]netip.Addr, error)

func checkURL(ctx context.Context, raw string, allowPrivate bool, look lookUp) error {
	u, err := parseURL(raw, allowPrivate)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpLimit)
	defer cancel()
	host := u.Hostname()
	addrs, err := look(ctx, "ip", host)
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	if err != nil {
		return domain.Invalid("url", "the host %s does not resolve: check its spelling, or try again once it is known", host).Because(err)
	}
	for _, addr := range addrs {
		if err := publicOnly.SafeAddr(addr.Unmap()); err != nil && !allowPrivate {
			return domain.Invalid("url", "%s", refusal(addr.Unmap().String()))
		}
	}
	return nil
}

// refusal says why an address is not called.
func refusal(addr string) string {
	return addr + " is no public address; only an endpoint that allows private addresses may be there"
}

// parseURL checks all of a URL but its host's addresses.
func parseURL(raw string, allowPrivate bool) (*url.URL, error) {
	invalid := func(format string, args ...any) (*url.URL, error) { return nil, domain.Invalid("url", format, args...) }
	switch {
	case raw == "":
		return invalid("is required")
	case len(raw) > urlBytesMax:
		return invalid("is %d bytes long; at most %d are allowed", len(raw), urlBytesMax)
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return invalid("must be printable ASCII without spaces: a host as xn--..., everything else percent-encoded")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return invalid("is not a URL") // not the parser's words: they repeat it
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return invalid("must start with https://")
	case u.Scheme == "http" && !allowPrivate:
		return invalid("must start with https://: counts would cross a public network in clear; http is for private addresses, if they are allowed")
	case u.User != nil:
		return invalid("must hold no user and password; calls are signed instead")
	case strings.Contains(raw, "#"):
		return invalid("must have no fragment (#...), which is never sent")
	case u.Hostname() == "":
		return invalid("has no host")
	case u.Query().Has(cursorParameter):
		return invalid("must have no parameter %q, by which pages are asked for", cursorParameter)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return invalid("port %s is not from 1 to 65535", p)
		}
	}
	return u, nil
}
