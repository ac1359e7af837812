package config_test

import (
	"encoding/pem"
	"net/http/httptest"
	"strings"
	"testing"

	"seenby/internal/config"
)

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	f := files{"ca.pem": string(ca), "junk": "junk"}
	for _, test := range []struct {
		name string
		tls  config.TLS
		want string
	}{
		{"off", config.TLS{}, ""},
		{"the system's authorities", config.TLS{On: true}, ""},
		{"own authority", config.TLS{On: true, CAFile: "ca.pem", ServerName: "example.com"}, ""},
		{"no such file", config.TLS{On: true, CAFile: "none"}, "kafka.tls.ca_file: open none"},
		{"no certificate in it", config.TLS{On: true, CAFile: "junk"}, "junk holds no PEM certificate"},
		{"no pair", config.TLS{On: true, CertFile: "ca.pem", KeyFile: "junk"}, "kafka.tls.cert_file and kafka.tls.key_file"},
		{"no key", config.TLS{On: true, CertFile: "ca.pem", KeyFile: "none"}, "kafka.tls.key_file: open none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := test.tls.Config(f.read)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
				return
			}
			if err != nil || (c != nil) != test.tls.On {
				t.Fatalf("got %v, %v", c, err)
			}
			if c != nil && (c.ServerName != test.tls.ServerName || (c.RootCAs != nil) != (test.tls.CAFile != "")) {
				t.Errorf("got %+v", c)
			}
		})
	}
}
