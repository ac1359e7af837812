package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/projections/uniqueviews"
)

// A cursor of viewers is the post (so that it does not open another post's list), the time in microseconds as
// the read model keeps it, and the person.
const (
	cursorPostBytes = 8
	cursorBytes     = cursorPostBytes + 8 + len(domain.PersonKey{})
)

func sealCursor(key domain.TenantKey, post domain.PostID, at uniqueviews.ViewersCursor) string {
	b := make([]byte, 0, cursorBytes)
	b = append(b, cursorPost(post)...)
	b = binary.BigEndian.AppendUint64(b, uint64(at.FirstViewedAt.UnixMicro())) //nolint:gosec // reversed by openCursor
	b = append(b, at.Person[:]...)
	return tenancy.Seal(key, tenancy.KindCursor, b)
}

// openCursor gives nil for an empty cursor: the first page.
func openCursor(key domain.TenantKey, post domain.PostID, cursor string) (*uniqueviews.ViewersCursor, error) {
	if cursor == "" {
		return nil, nil
	}
	b, err := tenancy.Open(key, tenancy.KindCursor, cursor)
	if err != nil || len(b) != cursorBytes || !bytes.Equal(b[:cursorPostBytes], cursorPost(post)) {
		return nil, errCursor
	}
	b = b[cursorPostBytes:]
	at := uniqueviews.ViewersCursor{FirstViewedAt: time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC()} //nolint:gosec // as sealed
	copy(at.Person[:], b[8:])
	return &at, nil
}

var errCursor = domain.Invalid("cursor", "is not a next_cursor of this list")

func cursorPost(post domain.PostID) []byte {
	sum := sha256.Sum256([]byte(post))
	return sum[:cursorPostBytes]
}

// A cursor of any other list is the list's name (so that it does not open another list) and its place in it.
const cursorListBytes = 8

// listOf names a list by its kind and what it is of; no part holds a NUL.
func listOf(kind string, of ...string) []byte {
	sum := sha256.Sum256([]byte(kind + "\x00" + strings.Join(of, "\x00")))
	return sum[:cursorListBytes]
}

func sealList(key domain.TenantKey, list, at []byte) string {
	return tenancy.Seal(key, tenancy.KindCursor, slices.Concat(list, at))
}

// openList gives the place that a cursor names, nil for an empty cursor: the first page.
func openList(key domain.TenantKey, list []byte, cursor string) (at []byte, err error) {
	if cursor == "" {
		return nil, nil
	}
	b, err := tenancy.Open(key, tenancy.KindCursor, cursor)
	if err != nil || len(b) < cursorListBytes || !bytes.Equal(b[:cursorListBytes], list) {
		return nil, errCursor
	}
	return b[cursorListBytes:], nil
}
