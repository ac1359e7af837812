package deadletter

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"seenby/domain"
	"seenby/projections"
)

// Name is how people call a letter: whose it is, and where its record stands. It is written posts:posts/3@1234.
type Name struct {
	Projection string
	projections.LetterPlace
}

func (n Name) String() string {
	return fmt.Sprintf("%s:%s/%d@%d", n.Projection, n.Topic, n.Partition, n.Offset)
}

var nameForm = regexp.MustCompile(`^([a-z]+):([a-z]+)/(\d{1,9})@(\d{1,18})$`)

// ParseName reads a name.
func ParseName(text string) (Name, error) {
	m := nameForm.FindStringSubmatch(text)
	if m == nil {
		return Name{}, domain.Invalid("LETTER", "%q must be projection:topic/partition@offset, such as posts:posts/3@1234; `seenby deadletters list` shows the names", text)
	}
	partition, err := strconv.ParseInt(m[3], 10, 32)
	if err != nil {
		return Name{}, domain.Invalid("LETTER", "%q has a partition that is none", text)
	}
	offset, err := strconv.ParseInt(m[4], 10, 64)
	if err != nil {
		return Name{}, domain.Invalid("LETTER", "%q has an offset that is none", text)
	}
	return Name{m[1], projections.LetterPlace{Topic: domain.Topic(m[2]), Partition: int32(partition), Offset: offset}}, nil
}

// NameOf is the name of a letter.
func NameOf(of projections.ReadModel, l projections.Letter) Name {
	return Name{of.Name(), projections.LetterPlace{Topic: l.Partition.Topic, Partition: l.Partition.Partition, Offset: l.Offset}}
}

// hexKey begins the text of a record key that has none of our forms.
const hexKey = "hex:"

// KeyText is a record key as people read it: the tenant, and, behind slashes, the rest: a post's id, with the id of the
// event behind it for a text; an audience and a person key; a person key. A key of another form is in hexadecimal.
func KeyText(topic domain.Topic, key []byte) string {
	text, ok := "", false
	switch topic {
	case domain.TopicPosts, domain.TopicImpressions:
		var k domain.PostKey
		k, ok = domain.ParsePostKey(key)
		text, ok = joined(ok, k.Tenant, string(k.Post))
	case domain.TopicBodies:
		var k domain.PostKey
		var id domain.EventID
		k, id, ok = domain.ParseBodyKey(key)
		text, ok = joined(ok, k.Tenant, string(k.Post), id.String())
	case domain.TopicAudiences:
		tenant, audience, person, is := domain.ParseMemberKey(key)
		text, ok = joined(is, tenant, audience, person.String())
	case domain.TopicViews, domain.TopicVerdicts, domain.TopicPeople:
		ref, erased, is := domain.ParsePersonKey(key)
		if text, ok = joined(is, ref.Tenant, ref.Person.String()); erased {
			text += "/" + domain.ErasedSuffix
		}
	}
	if !ok {
		return hexKey + hex.EncodeToString(key)
	}
	return text
}

// joined writes a key's parts, where they are such as we would have appended.
func joined(ok bool, tenant domain.TenantID, parts ...string) (string, bool) {
	if !ok || domain.CheckTenantID(string(tenant)) != nil || domain.CheckID("", parts[0]) != nil {
		return "", false
	}
	return string(tenant) + "/" + strings.Join(parts, "/"), true
}

// ParseKey gives every record key that has this text. One text may stand for several: an app may call a post as it
// likes, and the topic decides.
func ParseKey(text string) ([][]byte, error) {
	if digits, ok := strings.CutPrefix(text, hexKey); ok {
		key, err := hex.DecodeString(digits)
		if err != nil {
			return nil, domain.Invalid("--key", "%q is not hexadecimal", text)
		}
		return [][]byte{key}, nil
	}
	t, rest, ok := strings.Cut(text, "/")
	tenant := domain.TenantID(t)
	if !ok || rest == "" || domain.CheckTenantID(t) != nil {
		return nil, domain.Invalid("--key", "%q must be as `seenby deadletters list` prints it: the tenant, a slash and the rest, such as shop/4711", text)
	}
	keys := [][]byte{domain.PostKey{Tenant: tenant, Post: domain.PostID(rest)}.Key()}
	if person, ok := personOf(rest); ok {
		keys = append(keys, domain.PersonRef{Tenant: tenant, Person: person}.Key())
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return keys, nil
	}
	head, tail := rest[:i], rest[i+1:]
	if id, err := uuid.Parse(tail); err == nil && id.String() == tail {
		keys = append(keys, domain.PostKey{Tenant: tenant, Post: domain.PostID(head)}.BodyKey(domain.EventID(id)))
	}
	if person, ok := personOf(tail); ok {
		keys = append(keys, domain.MemberKey(tenant, head, person))
	}
	if person, ok := personOf(head); ok && tail == domain.ErasedSuffix {
		keys = append(keys, domain.PersonRef{Tenant: tenant, Person: person}.ErasedKey())
	}
	return keys, nil
}

func personOf(text string) (person domain.PersonKey, ok bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(person) || hex.EncodeToString(b) != text {
		return person, false
	}
	return domain.PersonKey(b), true
}
