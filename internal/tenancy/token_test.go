package tenancy

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

func TestTokens(t *testing.T) {
	key, other := domain.TenantKey{1}, domain.TenantKey{2}
	for _, payload := range []string{"", "x", strings.Repeat("long", 500)} {
		token := Seal(key, KindCursor, []byte(payload))
		if got, err := Open(key, KindCursor, token); err != nil || string(got) != payload {
			t.Errorf("opened %q, %v", got, err)
		}
		changed := []byte(token)
		changed[len(changed)/2] ^= 1
		for name, try := range map[string]func() ([]byte, error){
			"another tenant": func() ([]byte, error) { return Open(other, KindCursor, token) },
			"another kind":   func() ([]byte, error) { return Open(key, KindPosition, token) },
			"changed":        func() ([]byte, error) { return Open(key, KindCursor, string(changed)) },
			"cut":            func() ([]byte, error) { return Open(key, KindCursor, token[:len(token)-2]) },
			"longer":         func() ([]byte, error) { return Open(key, KindCursor, token+"AA") },
			"a newline":      func() ([]byte, error) { return Open(key, KindCursor, token+"\n") },
			"empty":          func() ([]byte, error) { return Open(key, KindCursor, "") },
			"no base64":      func() ([]byte, error) { return Open(key, KindCursor, "***") },
			"too long":       func() ([]byte, error) { return Open(key, KindCursor, strings.Repeat("A", tokenCharsMax+1)) },
		} {
			if got, err := try(); domain.CodeOf(err) != domain.CodeInvalid {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	// Golden: an old token must be read by a later version.
	if got := SealPositions(key, []domain.Position{{Topic: domain.TopicViews, TopicID: domain.TopicID{9}, Partition: 3, NextOffset: 300}}); got != "8-yi0PlURqOnwhTrAgkAAAAAAAAAAAAAAAAAAAABA6wC" {
		t.Errorf("token %s", got)
	}
}

func TestPositions(t *testing.T) {
	var many []domain.Position
	for _, topic := range []domain.Topic{domain.TopicPosts, domain.TopicViews, domain.TopicPeople} {
		for p := range int32(48) {
			many = append(many, domain.Position{Topic: topic, TopicID: domain.TopicID{topic[0], 0xff}, Partition: p, NextOffset: 1e9 + int64(p)})
		}
	}
	one := domain.Position{Topic: domain.TopicPosts, TopicID: domain.TopicID{1}, Partition: 4, NextOffset: 5}
	more, anew := one, one
	more.NextOffset, anew.TopicID = 9, domain.TopicID{2}
	last := domain.Position{Topic: domain.TopicImpressions, Partition: partitionsMax, NextOffset: math.MaxInt64}
	for _, c := range []struct {
		name     string
		in, want []domain.Position
	}{
		{"none", nil, nil},
		{"one", []domain.Position{one}, []domain.Position{one}},
		{"repeated: the greatest", []domain.Position{one, more, one}, []domain.Position{more}},
		{"a topic made anew", []domain.Position{anew, one}, []domain.Position{one, anew}},
		{"the largest", []domain.Position{last}, []domain.Position{last}},
		{"many", many, many},
	} {
		b := EncodePositions(append([]domain.Position(nil), c.in...))
		got, err := DecodePositions(b)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", c.name, err, diff)
		}
		for n := 1; n < len(b); n++ {
			if got, err := DecodePositions(b[:n]); err == nil && len(got) >= len(c.want) {
				t.Errorf("%s: %d of %d bytes decode to %v", c.name, n, len(b), got)
			}
		}
	}
	if n := len(SealPositions(domain.TenantKey{}, many)); n > 1400 {
		t.Errorf("three topics of 48 partitions take %d characters", n)
	}
	for name, b := range map[string][]byte{
		"a topic without a name": {200},
		"no partitions":          append(make([]byte, 17), 0),
		"more than stand there":  append(make([]byte, 17), 5, 1, 1),
		"a partition too high":   append(make([]byte, 17), 1, 0x81, 0x80, 0x04, 0),
		"partitions too high":    append(make([]byte, 17), 2, 0x80, 0x80, 0x04, 0, 0, 0),
		"a negative offset":      append(make([]byte, 17), 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
	} {
		if got, err := DecodePositions(b); domain.CodeOf(err) != domain.CodeInvalid {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// Whatever is decoded is encoded to something that decodes to the same.
func FuzzDecodePositions(f *testing.F) {
	f.Add([]byte{})
	f.Add(EncodePositions([]domain.Position{{Topic: domain.TopicViews, Partition: 3, NextOffset: 7}, {Topic: domain.TopicPosts, NextOffset: 1 << 40}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodePositions(b)
		if err != nil {
			if domain.CodeOf(err) != domain.CodeInvalid {
				t.Error(err)
			}
			return
		}
		canonical := EncodePositions(got)
		again, err := DecodePositions(canonical)
		if err != nil || !bytes.Equal(EncodePositions(again), canonical) {
			t.Errorf("%v: %v", again, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	f.Add("", byte('P'))
	f.Add(Seal(domain.TenantKey{2}, KindPosition, []byte("x")), KindPosition)
	f.Fuzz(func(t *testing.T, token string, kind byte) {
		if got, err := Open(domain.TenantKey{1}, kind, token); err == nil {
			t.Errorf("opened %q: %q", token, got)
		}
	})
}
