package webhook

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"seenby/domain"
)

func TestCheckURLForm(t *testing.T) {
	public := func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("2606:2800:220:1::1")}, nil
	}
	for _, tt := range []struct {
		url     string
		private bool
		want    string // "": allowed
	}{
		{url: "https://core.example"},
		{url: "https://core.example:8443/seenby?a=b&c"},
		{url: "http://core.example/", private: true},
		{url: "https://core.example/", private: true},
		{url: "", want: "is required"},
		{url: "core.example/seenby", want: "must start with https://"},
		{url: "ftp://core.example/", private: true, want: "must start with https://"},
		{url: "http://core.example/", want: "in clear"},
		{url: "https://user:secret@core.example/", want: "no user and password"},
		{url: "https://core.example/#", want: "no fragment"},
		{url: "https://core.example/#part", want: "no fragment"},
		{url: "https:///seenby", want: "has no host"},
		{url: "https:core.example", want: "has no host"},
		{url: "https://:443/", want: "has no host"},
		{url: "https://core.example:0/", want: "port 0"},
		{url: "https://core.example:65536/", want: "port 65536"},
		{url: "https://core.example:x/", want: "is not a URL"},
		{url: "https://core.example/%zz?token=hidden", want: "is not a URL"},
		{url: "https://k\u00f6rn.example/", want: "printable ASCII"},
		{url: "https://core.example/a b", want: "printable ASCII"},
		{url: "https://core.example/?cursor=1", want: `no parameter "cursor"`},
		{url: "https://core.example/" + strings.Repeat("x", 1979)},
		{url: "https://core.example/" + strings.Repeat("x", 1980), want: "2001 bytes long; at most 2000"},
	} {
		wantInvalid(t, tt.url, checkURL(t.Context(), tt.url, tt.private, public), tt.want)
	}
}

func wantInvalid(t *testing.T, of string, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", of, err)
		}
		return
	}
	var e *domain.Error
	if !errors.As(err, &e) || e.Code != domain.CodeInvalid || e.Field != "url" || !strings.Contains(e.Message, want) || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%s: %v, not %q", of, err, want)
	}
}

func TestCheckURLAddresses(t *testing.T) {
	for addr, public := range map[string]bool{
		"8.8.8.8": true, "93.184.216.34": true, "2606:2800:220:1::1": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "127.8.9.1": false, "::1": false, // loopback
		"10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "fc00::1": false, "fd12::1": false, // private
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, // link-local
		"100.64.0.1": false,                                           // shared by customers of a provider
		"224.0.0.1":  false,                                           // multicast
		"ff02::1":    false,                                           //
		"0.0.0.0":    false,                                           // unspecified
		"0.1.2.3":    false,                                           //
		"::":         false,                                           //
		"198.18.0.1": false, "192.0.2.1": false, "2001:db8::1": false, // benchmarks, documentation
		"203.0.113.9": false, "198.51.100.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::7f00:1": false, // IPv4 in other dress
		"64:ff9b::7f00:1": false, "64:ff9b:1::7f00:1": false, "2002:7f00:1::": false, "2001:0:7f00:1::": false,
	} {
		// One address that is not public is enough: the call may take any.
		look := func(_ context.Context, network, host string) ([]netip.Addr, error) {
			if network != "ip" || host != "core.example" {
				t.Errorf("%s of %s was looked up", network, host)
			}
			return []netip.Addr{netip.MustParseAddr("8.8.4.4"), netip.MustParseAddr(addr)}, nil
		}
		want := ""
		if !public {
			want = netip.MustParseAddr(addr).Unmap().String() + " is no public address"
		}
		wantInvalid(t, addr, checkURL(t.Context(), "https://core.example:8443/", false, look), want)
		wantInvalid(t, addr, checkURL(t.Context(), "https://core.example:8443/", true, look), "")
	}
}

func TestCheckURLLooksUp(t *testing.T) {
	wantInvalid(t, "localhost", CheckURL(t.Context(), "https://localhost/", false), "is no public address")
	wantInvalid(t, "localhost", CheckURL(t.Context(), "http://localhost/", true), "")
	wantInvalid(t, "an address", CheckURL(t.Context(), "https://[::1]:8443/", false), "::1 is no public address")
	wantInvalid(t, "a public address", CheckURL(t.Context(), "https://8.8.8.8/", false), "")
	wantInvalid(t, "a name that is none", CheckURL(t.Context(), "https://core.invalid/", true), "core.invalid does not resolve")
	nothing := func(context.Context, string, string) ([]netip.Addr, error) { return nil, nil }
	wantInvalid(t, "no address", checkURL(t.Context(), "https://core.example/", false, nothing), "does not resolve")
	slow := func(ctx context.Context, _, host string) ([]netip.Addr, error) {
		if at, ok := ctx.Deadline(); !ok || at.IsZero() {
			t.Error("a look-up has no end")
		}
		return nil, &net.DNSError{Err: "time-out", Name: host, IsTimeout: true}
	}
	wantInvalid(t, "a resolver that is away", checkURL(t.Context(), "https://core.example/", false, slow), "does not resolve")
}
