package deadletter

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"seenby/domain"
	"seenby/projections"
)

func TestNames(t *testing.T) {
	name := Name{"posts", projections.LetterPlace{Topic: domain.TopicBodies, Partition: 3, Offset: 1 << 40}}
	if got, err := ParseName(name.String()); err != nil || got != name {
		t.Errorf("%s is read as %v, %v", name, got, err)
	}
	for _, text := range []string{"", "posts", "posts:posts/3", "posts:posts/-3@1", "posts:posts/3@x", "posts:posts/3@1 ", "posts/3@1", "posts:posts/99999999999@1", "posts:posts/3@99999999999999999999"} {
		if got, err := ParseName(text); domain.CodeOf(err) != domain.CodeInvalid {
			t.Errorf("%q is read as %v, %v", text, got, err)
		}
	}
}

// TestKeys: what is printed of a key finds it again, whatever it is.
func TestKeys(t *testing.T) {
	topics := []domain.Topic{domain.TopicPosts, domain.TopicBodies, domain.TopicAudiences, domain.TopicVerdicts, domain.TopicPeople, domain.TopicTenants}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.StringMatching(`[a-z/ü' ]{1,12}`), rapid.SampledFrom([]string{
			"0123456789abcdef0123456789abcdef", "a/0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef", "x/erased",
		})).Draw(t, "text")
		var id [16]byte
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		person := domain.PersonRef{Tenant: "shop", Person: id}
		post := domain.PostKey{Tenant: "shop", Post: domain.PostID(text)}
		key := rapid.SampledFrom([][]byte{
			post.Key(), post.BodyKey(id), domain.MemberKey("shop", text, id), person.Key(), person.ErasedKey(), []byte(text), id[:], {},
		}).Draw(t, "key")
		printed := KeyText(rapid.SampledFrom(topics).Draw(t, "topic"), key)
		keys, err := ParseKey(printed)
		if err != nil || !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			t.Fatalf("%x is printed as %q, which is read as %x, %v", key, printed, keys, err)
		}
	})
	for _, text := range []string{"", "shop", "shop/", "Shop/p", "/p", "hex:x"} {
		if keys, err := ParseKey(text); domain.CodeOf(err) != domain.CodeInvalid {
			t.Errorf("%q is read as %x, %v", text, keys, err)
		}
	}
}
