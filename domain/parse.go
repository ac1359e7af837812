package domain

import (
	"encoding/hex"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// strictTime is RFC 3339 to the letter: Go also reads a comma for the point, hours of one digit, and zones that
// are a day away.
var strictTime = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// ParseTime reads a time that an app gave, RFC 3339; the zero time would read as "not given" further on.
func ParseTime(field, text string) (time.Time, error) {
	var t time.Time
	if err := t.UnmarshalText([]byte(text)); err != nil || !strictTime.MatchString(text) {
		return t, Invalid(field, "must be a time of RFC 3339, e.g. 2026-11-23T12:00:00Z")
	}
	t = t.UTC().Truncate(time.Microsecond) // what the log and the read models keep
	if t.IsZero() {
		return t, Invalid(field, "must lie between the years 1970 and 3000")
	}
	return t, CheckTime(field, t)
}

// ParseViewID reads the id of a view as apps write it: a UUID in its own form.
func ParseViewID(text string) (id ViewID, err error) {
	bad := len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-'
	if !bad {
		var digits [32]byte
		n := copy(digits[:], text[:8])
		n += copy(digits[n:], text[9:13])
		n += copy(digits[n:], text[14:18])
		n += copy(digits[n:], text[19:23])
		copy(digits[n:], text[24:])
		_, err := hex.Decode(id[:], digits[:])
		bad = err != nil
	}
	if bad {
		return id, Invalid("id", "must be a UUID, e.g. 01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b")
	}
	return id, nil
}

// CheckBody tells whether a text can be kept.
func CheckBody(text string) error {
	switch {
	case len(text) > BodyBytesMax:
		return Invalid("body", "is %d bytes long; at most %d are allowed", len(text), BodyBytesMax)
	case !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0:
		return Invalid("body", "must be UTF-8 without NUL")
	}
	return nil
}
