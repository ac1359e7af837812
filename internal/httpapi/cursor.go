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

// A cursor of viewers has the time in microseconds, as the read model keeps it, and the person.
const cursorViewerBytes = 8 + len(domain.PersonKey{})

func sealCursor(key domain.TenantKey, post domain.PostID, at uniqueviews.ViewersCursor) string {
	b := make([]byte, 0, cursorViewerBytes)
	b = binary.BigEndian.AppendUint64(b, uint64(at.FirstViewedAt.UnixMicro())) //nolint:gosec // reversed by openCursor
	return sealList(key, listOf("viewers", string(post)), append(b, at.Person[:]...))
}

// openCursor gives nil for an empty cursor: the first page.
func openCursor(key domain.TenantKey, post domain.PostID, cursor string) (*uniqueviews.ViewersCursor, error) {
	b, err := openList(key, listOf("viewers", string(post)), cursor)
	if err != nil || b == nil {
		return nil, err
	}
	if len(b) != cursorViewerBytes {
		return nil, errCursor
	}
	at := uniqueviews.ViewersCursor{FirstViewedAt: time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC()} //nolint:gosec // as sealed
	copy(at.Person[:], b[8:])
	return &at, nil
}

var errCursor = domain.Invalid("cursor", "is not a next_cursor of this list")

// A cursor is the list's name (so that it does not open another list) and its place in it.
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
