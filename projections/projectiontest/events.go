package projectiontest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"seenby/domain"
)

// fields are the key=value words of a script's line. A value is read as Go text where it is quoted; each field
// must be used.
type fields struct {
	values map[string]string
	err    error
}

func parseFields(words []string) *fields {
	f := &fields{values: map[string]string{}}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			v = "true"
		}
		if strings.HasPrefix(v, `"`) {
			if v, f.err = strconv.Unquote(v); f.err != nil {
				return f
			}
		}
		f.values[k] = v
	}
	return f
}

func (f *fields) take(key string) (string, bool) {
	v, ok := f.values[key]
	delete(f.values, key)
	return v, ok
}

func (f *fields) text(key, otherwise string) string {
	if v, ok := f.take(key); ok {
		return v
	}
	return otherwise
}

// at is the time that long after Start, e.g. viewed=5m.
func (f *fields) at(key string) time.Time {
	v, ok := f.take(key)
	if !ok {
		return time.Time{}
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		f.err = err
	}
	return Start.Add(d)
}

func (f *fields) number(key string) (n int64, given bool) {
	v, ok := f.take(key)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		f.err = err
	}
	return n, true
}

func (f *fields) done() error {
	for k := range f.values {
		if f.err == nil {
			f.err = fmt.Errorf("no use for field %q", k)
		}
	}
	return f.err
}

// appendLine appends the event of a script's line. Names of people, events and digests stand for themselves.
//
//	ViewCounted  viewer= post= [tenant=] [viewed=] [received=] [version=] [surface=] [anonymous] [imported] [offset=]
//	ViewRefused  the same and reason=; version is the post's where the gate knew it
//	PostPublished post= id= author= [audience=] [published=] [body=] [based=]
//	PostEdited    post= id= [audience=] [published=] [body=] [based=]
//	PostDeleted   post= id= [based=]        CountsImported post= id= impressions= viewers= as_of=
//	PostBodyWritten post= id= text=         PostBodyErased post= id=
//	AudienceMemberAdded audience= person=   AudienceMemberRemoved audience= person=
//	PersonNamed person= id=    PersonForgotten person=    PersonErased person= at=
//	Poison topic= key=
func appendLine(l *Log, words []string) error {
	f := parseFields(words[1:])
	tenant := domain.TenantID(f.text("tenant", "demo"))
	switch kind := words[0]; kind {
	case "ViewCounted", "ViewRefused":
		return appendVerdict(l, kind, tenant, f)
	case "PersonNamed", "PersonForgotten", "PersonErased":
		return appendPerson(l, kind, tenant, f)
	case "PostBodyWritten", "PostBodyErased":
		post, id := postAndID(tenant, f)
		var e domain.Event = domain.PostBodyErased{PostRef: post, EventID: id}
		if kind == "PostBodyWritten" {
			e = domain.PostBodyWritten{PostRef: post, EventID: id, Text: f.text("text", "")}
		}
		l.Append(domain.TopicBodies, post.BodyKey(id), e)
	case "AudienceMemberAdded", "AudienceMemberRemoved":
		audience, person := f.text("audience", ""), Person(f.text("person", ""))
		var e domain.Event = domain.AudienceMemberRemoved{Tenant: tenant, Audience: audience, Person: person}
		if kind == "AudienceMemberAdded" {
			e = domain.AudienceMemberAdded{Tenant: tenant, Audience: audience, Person: person}
		}
		l.Append(domain.TopicAudiences, domain.MemberKey(tenant, audience, person), e)
	case "Poison":
		l.AppendPoison(domain.Topic(f.text("topic", "")), append([]byte(tenant+"\x00"), f.text("key", "")...), errUnreadable)
	default:
		e, err := postEvent(kind, tenant, f)
		if err != nil {
			return err
		}
		l.Append(domain.TopicPosts, e.PostKey().Key(), e)
	}
	return f.done()
}

func appendVerdict(l *Log, kind string, tenant domain.TenantID, f *fields) error {
	v := domain.Verdict{
		Viewer: domain.PersonRef{Tenant: tenant, Person: Person(f.text("viewer", ""))},
		Post:   domain.PostID(f.text("post", "")), ViewedAt: f.at("viewed"), Received: f.at("received"), Anonymous: f.text("anonymous", "") != "",
		Imported: f.text("imported", "") != "",
	}
	v.PostVersion, _ = f.number("version")
	if surface, given := f.take("surface"); given {
		v.Context = &domain.ViewContext{Surface: surface}
	}
	if v.ViewedAt.IsZero() {
		v.ViewedAt = l.clock
	}
	if v.Received.IsZero() {
		v.Received = l.clock
	}
	if kind == "ViewRefused" {
		v.Reason = domain.Reason(f.text("reason", string(domain.ReasonDuplicate)))
	}
	if offset, given := f.number("offset"); given {
		v.ViewOffset = offset
		key := v.Viewer.Key()
		l.Append(domain.TopicVerdicts, key, &v)
	} else {
		l.AppendVerdict(v)
	}
	return f.done()
}

func appendPerson(l *Log, kind string, tenant domain.TenantID, f *fields) error {
	ref := domain.PersonRef{Tenant: tenant, Person: Person(f.text("person", ""))}
	switch kind {
	case "PersonNamed":
		l.Append(domain.TopicPeople, ref.Key(), domain.PersonNamed{Ref: ref, ID: f.text("id", "")})
	case "PersonForgotten":
		l.Append(domain.TopicPeople, ref.Key(), domain.PersonForgotten{Ref: ref})
	default:
		l.Append(domain.TopicPeople, ref.ErasedKey(), domain.PersonErased{Ref: ref, ErasedAt: f.at("at")})
	}
	return f.done()
}

func postAndID(tenant domain.TenantID, f *fields) (domain.PostKey, domain.EventID) {
	var id domain.EventID
	copy(id[:], f.text("id", ""))
	return domain.PostKey{Tenant: tenant, Post: domain.PostID(f.text("post", ""))}, id
}

func postEvent(kind string, tenant domain.TenantID, f *fields) (domain.PostEvent, error) {
	post, id := postAndID(tenant, f)
	var based *int64
	if n, given := f.number("based"); given {
		based = &n
	}
	var body *domain.Digest
	if text, given := f.take("body"); given {
		body = new(domain.Digest)
		copy(body[:], text)
	}
	switch kind {
	case "PostPublished":
		e := domain.PostPublished{
			PostRef: post, EventID: id, Author: Person(f.text("author", "ann")), PublishedAt: f.at("published"),
			Audience: domain.Audience(f.text("audience", string(domain.AudienceEveryone))), BasedOnVersion: based,
		}
		if body != nil {
			e.Body = *body
		}
		return e, nil
	case "PostEdited":
		e := domain.PostEdited{PostRef: post, EventID: id, PublishedAt: f.at("published"), Body: body, BasedOnVersion: based}
		if text, given := f.take("audience"); given {
			audience := domain.Audience(text)
			e.Audience = &audience
		}
		return e, nil
	case "PostDeleted":
		return domain.PostDeleted{PostRef: post, EventID: id, BasedOnVersion: based}, nil
	case "CountsImported":
		impressions, _ := f.number("impressions")
		viewers, _ := f.number("viewers")
		return domain.CountsImported{PostRef: post, EventID: id, Impressions: impressions, UniqueViewers: viewers, AsOf: f.at("as_of")}, nil
	}
	return nil, fmt.Errorf("no event type %q", kind)
}
