package tenancy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"seenby/domain"
)

// Kinds of tokens: a token of one kind does not open as another.
const (
	KindPosition byte = 'P'
	KindCursor   byte = 'C'
	KindErasure  byte = 'E' // the receipt of an erasure
)

const (
	macBytes = 12 // 96 bits: nobody guesses one in the life of an installation
	// tokenCharsMax is room for the positions of three topics of 48 partitions several times over, and well
	// under the header limits of common proxies (8 KiB).
	tokenCharsMax = 6 << 10
	// tokenDomain keeps these MACs apart from person keys and digests, which use the tenant's key too.
	tokenDomain = "seenby token v1"
)

// Seal makes an opaque token of a payload: base64url, authenticated under the tenant's key and the kind. The
// payload is not hidden, only bound: it must hold nothing that its bearer may not know.
func Seal(key domain.TenantKey, kind byte, payload []byte) string {
	sum := tokenMAC(key, kind, payload)
	sealed := make([]byte, 0, len(payload)+macBytes)
	sealed = append(append(sealed, sum[:macBytes]...), payload...)
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// Open gives the payload of a token. A damaged one, one of another kind and one of another tenant are
// CodeInvalid alike.
func Open(key domain.TenantKey, kind byte, token string) ([]byte, error) {
	bad := domain.Errorf(domain.CodeInvalid, "is not a token that this api gave to this tenant")
	// A token has one spelling: the decoder is strict, but passes over line ends.
	if len(token) > tokenCharsMax || strings.ContainsAny(token, "\r\n") {
		return nil, bad
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(sealed) < macBytes {
		return nil, bad
	}
	payload := sealed[macBytes:]
	if sum := tokenMAC(key, kind, payload); !hmac.Equal(sum[:macBytes], sealed[:macBytes]) {
		return nil, bad
	}
	return payload, nil
}

func tokenMAC(key domain.TenantKey, kind byte, payload []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte(tokenDomain))
	h.Write([]byte{kind})
	h.Write(payload)
	h.Sum(sum[:0])
	return sum
}
