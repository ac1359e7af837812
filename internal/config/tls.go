package config

import (
	"crypto/tls"
	"crypto/x509"

	"seenby/domain"
)

// Config makes what a Kafka client dials with: nil where TLS is off. It reads the PEM files.
func (t TLS) Config(readFile func(string) ([]byte, error)) (*tls.Config, error) {
	if !t.On {
		return nil, nil //nolint:nilnil // nil is how a client is told to speak plain text
	}
	fail := func(setting string, err error) (*tls.Config, error) {
		return nil, domain.Errorf(domain.CodeMisconfigured, "configuration: %s: %v", setting, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := readFile(t.CAFile)
		if err != nil {
			return fail("kafka.tls.ca_file", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, domain.Errorf(domain.CodeMisconfigured, "configuration: kafka.tls.ca_file: %s holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := readFile(t.CertFile)
		if err != nil {
			return fail("kafka.tls.cert_file", err)
		}
		key, err := readFile(t.KeyFile)
		if err != nil {
			return fail("kafka.tls.key_file", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return fail("kafka.tls.cert_file and kafka.tls.key_file", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
