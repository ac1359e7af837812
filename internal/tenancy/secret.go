package tenancy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"seenby/domain"
)

// secretBytesMin is what a random secret of 128 bits takes as hexadecimal text; `openssl rand -hex 32` gives 64.
const secretBytesMin = 32

// The HKDF infos: each gives an independent key of the same secret. They are part of what stands on the log.
const (
	infoWrap        = "seenby tenant key wrapping v1"
	infoFingerprint = "seenby secret fingerprint v1"
	fingerprintSize = 8 // bytes; 16 hexadecimal characters
)

// Secret is the installation's secret. It prints as ***.
type Secret struct {
	seal        cipher.AEAD
	fingerprint string
}

// NewSecret takes the text of SEENBY_SECRET; space around it is dropped, so that a file may end in a newline.
func NewSecret(text string) (*Secret, error) {
	text = strings.TrimSpace(text)
	if len(text) < secretBytesMin {
		return nil, domain.Errorf(domain.CodeMisconfigured, "SEENBY_SECRET must be at least %d bytes long; make one with: openssl rand -hex 32", secretBytesMin)
	}
	wrap, err := hkdf.Key(sha256.New, []byte(text), nil, infoWrap, 32)
	if err != nil {
		return nil, fmt.Errorf("derive wrapping key: %w", err)
	}
	mark, err := hkdf.Key(sha256.New, []byte(text), nil, infoFingerprint, fingerprintSize)
	if err != nil {
		return nil, fmt.Errorf("derive fingerprint: %w", err)
	}
	block, err := aes.NewCipher(wrap)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return &Secret{seal: seal, fingerprint: hex.EncodeToString(mark)}, nil
}

// Fingerprint names the secret without telling it: 16 hexadecimal characters.
func (s *Secret) Fingerprint() string { return s.fingerprint }

// String keeps the secret out of logs.
func (s *Secret) String() string { return "***" }

// LogValue keeps the secret out of structured logs.
func (s *Secret) LogValue() slog.Value { return slog.StringValue("***") }

// Wrap seals a tenant's key; rand gives the nonce, which stands before the sealed key.
func (s *Secret) Wrap(rand io.Reader, tenant domain.TenantID, key domain.TenantKey) ([]byte, error) {
	nonce := make([]byte, s.seal.NonceSize(), s.seal.NonceSize()+len(key)+s.seal.Overhead())
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return nil, fmt.Errorf("read random nonce: %w", err)
	}
	// The tenant's id is bound in, so that a wrapped key put under another tenant does not open.
	return s.seal.Seal(nonce, nonce, key[:], []byte(tenant)), nil
}

// Unwrap opens what Wrap sealed; CodeMisconfigured where it was sealed under another secret or for another
// tenant, or is damaged.
func (s *Secret) Unwrap(tenant domain.TenantID, wrapped []byte) (domain.TenantKey, error) {
	n := s.seal.NonceSize()
	if len(wrapped) < n {
		return domain.TenantKey{}, domain.Errorf(domain.CodeMisconfigured, "the key of tenant %s is damaged", tenant)
	}
	plain, err := s.seal.Open(nil, wrapped[:n], wrapped[n:], []byte(tenant))
	if err != nil || len(plain) != len(domain.TenantKey{}) {
		return domain.TenantKey{}, domain.Errorf(domain.CodeMisconfigured, "the key of tenant %s does not open with the secret of fingerprint %s", tenant, s.fingerprint).Because(err)
	}
	return domain.TenantKey(plain), nil
}

// check tells whether the log's fingerprint is this secret's; an empty one is any secret's.
func (s *Secret) check(onLog string) error {
	if onLog == "" || onLog == s.fingerprint {
		return nil
	}
	return domain.Errorf(domain.CodeMisconfigured, "SEENBY_SECRET is not the secret of this installation: its fingerprint is %s, the tenants' keys are sealed under %s", s.fingerprint, onLog)
}
