package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
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
