package tenancy

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"

	"seenby/domain"
)

// The form of an API key: seenby_<id>_<random>. The id is public (it names the key in lists and logs), the
// random part has 256 bits, so that a plain SHA-256 is as good as a slow hash.
const (
	keyMark        = "seenby_"
	keyIDChars     = 8
	keyRandomBytes = 32
	// Crockford's base 32: no i, l, o or u, since an id is spoken on the telephone.
	keyIDAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	// keyBytesMax bounds what is hashed for a caller who is not known yet.
	keyBytesMax = 128
)

// NewKey makes an API key: its plain text, which is shown once and kept nowhere, and the event that records its
// hash. The caller fills in tenant, label and time (see IssueKey).
func NewKey(rand io.Reader) (plain string, event domain.KeyIssued, err error) {
	var random [keyIDChars + keyRandomBytes]byte
	if _, err := io.ReadFull(rand, random[:]); err != nil {
		return "", domain.KeyIssued{}, fmt.Errorf("read random key: %w", err)
	}
	id := spell(random[:keyIDChars])
	prefix := keyMark + id
	plain = prefix + "_" + base64.RawURLEncoding.EncodeToString(random[keyIDChars:])
	return plain, domain.KeyIssued{KeyID: id, Prefix: prefix, SHA256: HashKey(plain)}, nil
}

// spell makes an id of random bytes: a letter of keyIDAlphabet of each.
func spell(random []byte) string {
	id := make([]byte, len(random))
	for i, b := range random {
		id[i] = keyIDAlphabet[int(b)%len(keyIDAlphabet)]
	}
	return string(id)
}

// HashKey is what the log keeps of an API key: SHA-256 over the whole plain text.
func HashKey(plain string) [32]byte { return sha256.Sum256([]byte(plain)) }
