package domain

import "encoding/hex"

// Ids print as people and other tools know them: UUIDs in their own form, keys and digests in hexadecimal.

func (k PersonKey) String() string { return hex.EncodeToString(k[:]) }
func (d Digest) String() string    { return hex.EncodeToString(d[:]) }
func (id TopicID) String() string  { return uuidText(id) }
func (id ViewID) String() string   { return uuidText(id) }
func (id EventID) String() string  { return uuidText(id) }
func (id RunID) String() string    { return uuidText(id) }

// MarshalText makes the ids readable in JSON.
func (k PersonKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
func (d Digest) MarshalText() ([]byte, error)    { return []byte(d.String()), nil }
func (id TopicID) MarshalText() ([]byte, error)  { return []byte(id.String()), nil }
func (id ViewID) MarshalText() ([]byte, error)   { return []byte(id.String()), nil }
func (id EventID) MarshalText() ([]byte, error)  { return []byte(id.String()), nil }
func (id RunID) MarshalText() ([]byte, error)    { return []byte(id.String()), nil }

func uuidText(id [16]byte) string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
