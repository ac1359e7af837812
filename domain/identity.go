package domain

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"
	"unicode"
	"unicode/utf8"
)

// TenantKey is a tenant's own random key. People, texts and tokens of the tenant are keyed with it; once it is
// destroyed, what stands in immutable topics can no longer be traced.
type TenantKey [32]byte

// PersonKind separates the id spaces, so that equal strings of different kinds are different people.
type PersonKind byte

// The kinds of people. The values are part of every person key: never change them.
const (
	PersonKnown     PersonKind = 'k'
	PersonAnonymous PersonKind = 'a'
)

// Sizes of ids and texts, in bytes.
const (
	IDBytesMax       = 255
	TenantBytesMax   = 63
	BodyBytesMax     = 64 << 10 // a post's text; well under Kafka's 1 MiB record
	ContextBytesMax  = 64       // of context.app and context.surface
	bodyDigestDomain = 'b'
)

// NewPersonKey derives the person key of the app's id under the tenant's key.
func NewPersonKey(key TenantKey, kind PersonKind, id string) PersonKey {
	return PersonKey(mac(key, byte(kind), id))
}

// NewDigest derives the keyed digest of a text. The zero digest stands for no text; NewDigest never returns it.
func NewDigest(key TenantKey, text string) Digest {
	d := Digest(mac(key, bodyDigestDomain, text))
	if d == (Digest{}) {
		d[0] = 1
	}
	return d
}

func mac(key TenantKey, kind byte, s string) (out [16]byte) {
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte{kind})
	h.Write([]byte(s))
	copy(out[:], h.Sum(nil))
	return out
}

// DeriveViewID gives the id of a view that came without one: the same viewer, post and claimed time give the
// same id. The result is a UUID of version 8.
func DeriveViewID(viewer PersonKey, post PostID, viewedAt time.Time) (id ViewID) {
	h := sha256.New()
	h.Write(viewer[:])
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(viewedAt.UnixMicro()))
	h.Write(at[:])
	h.Write([]byte(post))
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// CheckID tells whether an id from an app is 1 to 255 bytes of printable UTF-8.
func CheckID(field, id string) error {
	switch {
	case id == "":
		return Invalid(field, "is required")
	case len(id) > IDBytesMax:
		return Invalid(field, "is %d bytes long; at most %d are allowed", len(id), IDBytesMax)
	case !printable(id):
		return Invalid(field, "must be printable UTF-8")
	}
	return nil
}

func printable(s string) bool {
	ascii := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			ascii = false
			break
		}
	}
	if ascii {
		return true
	}
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r != ' ' && !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// CheckTenantID tells whether a tenant id has its form.
func CheckTenantID(id string) error {
	const form = "must be 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit"
	if id == "" || len(id) > TenantBytesMax || id[0] == '-' || id[len(id)-1] == '-' {
		return Invalid("tenant", form)
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return Invalid("tenant", form)
		}
	}
	return nil
}
