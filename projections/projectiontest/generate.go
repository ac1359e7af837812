package projectiontest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"seenby/domain"
)

// Person is the person key that a name stands for in tests.
func Person(name string) (p domain.PersonKey) {
	copy(p[:], name)
	return p
}

// Post is a post of the tenant demo.
func Post(name string) domain.PostKey {
	return domain.PostKey{Tenant: "demo", Post: domain.PostID(name)}
}

// Pick is one of the values.
func Pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// errUnreadable is the reason of poison.
var errUnreadable = domain.Errorf(domain.CodeInvalid, "the value is no event")

// Verdicts makes up verdicts: a few popular posts, known or not, viewers who come again, anonymous, imported and refused views, with
// and without a context, repeats, views that were reported late, and now and then poison.
func Verdicts(l *Log, poison bool) {
	r := l.Rand
	for i := range 200 + r.IntN(400) {
		viewer := domain.PersonRef{Tenant: Pick[domain.TenantID](r, "demo", "demo", "acme"), Person: Person(fmt.Sprintf("viewer%d", r.IntN(60)))}
		v := domain.Verdict{
			Viewer: viewer, Post: domain.PostID(fmt.Sprintf("p%d", min(r.IntN(12), r.IntN(12)))),
			Anonymous:   r.IntN(5) == 0,
			Imported:    r.IntN(6) == 0,
			ViewedAt:    l.clock.Add(-time.Duration(r.Int64N(int64(Pick(r, time.Hour, 24*time.Hour))))),
			Received:    l.clock,
			PostVersion: r.Int64N(3),
		}
		copy(v.ViewID[:], fmt.Sprintf("view%d", i))
		if r.IntN(3) > 0 {
			v.Context = &domain.ViewContext{Surface: Pick(r, "", "feed", "detail", "widget")}
		}
		if r.IntN(4) == 0 {
			v.Reason = Pick(r, domain.Reasons...)
			switch v.Reason {
			case domain.ReasonMalformed:
				v.Post, v.PostVersion, v.ViewedAt = "", 0, time.Time{}
				v.Viewer.Tenant = Pick(r, v.Viewer.Tenant, "") // its key may name nobody
			case domain.ReasonStale:
				v.ViewedAt = time.Unix(r.Int64N(l.clock.Unix()), 0)
			}
		}
		if poison && r.IntN(40) == 0 {
			if r.IntN(2) == 0 {
				l.AppendPoison(domain.TopicVerdicts, viewer.Key(), errUnreadable)
				continue
			}
			v.Reason, v.Post = domain.ReasonNone, Pick[domain.PostID](r, "nul\x00", "", "\xff")
		}
		l.AppendVerdict(v)
	}
}

// PostEvents makes up post events and texts: creations, edits based on right and wrong versions, deletions,
// events written twice, texts that come before, after or never, tombstones, and now and then poison.
func PostEvents(l *Log, poison bool) {
	r := l.Rand
	var past []domain.PostEvent
	for i := range 150 + r.IntN(250) {
		post := Post(fmt.Sprintf("p%d", r.IntN(15)))
		var id domain.EventID
		copy(id[:], fmt.Sprintf("event%d", i))
		var body domain.Digest
		if r.IntN(2) == 0 {
			copy(body[:], fmt.Sprintf("text%d", r.IntN(4)))
		}
		var based *int64
		if r.IntN(3) == 0 {
			n := r.Int64N(6)
			based = &n
		}
		var at time.Time
		if r.IntN(3) == 0 {
			at = Start.Add(time.Duration(r.IntN(2)*1000 + r.IntN(2)*300)) // nanoseconds, which PostgreSQL does not keep
		}
		audience := Pick(r, domain.AudienceEveryone, domain.AudienceAuthor, "audience:friends")
		author := Person(Pick(r, "ann", "bob"))
		var e domain.PostEvent
		switch r.IntN(12) {
		case 0:
			e = domain.PostDeleted{PostRef: post, EventID: id, BasedOnVersion: based}
		case 1:
			e = domain.CountsImported{PostRef: post, EventID: id, Impressions: r.Int64N(100), UniqueViewers: r.Int64N(50), AsOf: Start.Add(time.Duration(r.IntN(3000)))}
		case 2, 3, 4, 5:
			edited := domain.PostEdited{PostRef: post, EventID: id, PublishedAt: at, BasedOnVersion: based}
			if r.IntN(2) == 0 {
				edited.Audience = &audience
			}
			if r.IntN(2) == 0 {
				edited.Body = &body
			}
			e = edited
		default:
			e = domain.PostPublished{PostRef: post, EventID: id, Author: author, Audience: audience, PublishedAt: at, Body: body, BasedOnVersion: based}
		}
		if len(past) > 0 && r.IntN(8) == 0 { // a producer wrote twice
			e = Pick(r, past...)
			post, id = e.PostKey(), e.ID()
		}
		if poison && r.IntN(60) == 0 {
			if r.IntN(2) == 0 {
				l.AppendPoison(domain.TopicPosts, post.Key(), errUnreadable)
				continue
			}
			e = domain.PostPublished{PostRef: post, EventID: id, Author: author, Audience: Pick[domain.Audience](r, "", "friends", "audience:", "audience:\x00")}
		}
		past = append(past, e)
		write := func() {
			if r.IntN(3) > 0 {
				l.Append(domain.TopicBodies, post.BodyKey(id), domain.PostBodyWritten{PostRef: post, EventID: id, Text: fmt.Sprintf("text of %s\n", id)})
			}
			if r.IntN(6) == 0 {
				l.Append(domain.TopicBodies, post.BodyKey(id), domain.PostBodyErased{PostRef: post, EventID: id})
			}
		}
		if r.IntN(2) == 0 {
			write()
			l.Append(domain.TopicPosts, post.Key(), e)
		} else {
			l.Append(domain.TopicPosts, post.Key(), e)
			write()
		}
	}
}

// PostsAndMembers makes up what PostEvents does, and in between members who come, go and come again.
func PostsAndMembers(l *Log, poison bool) {
	PostEvents(l, poison)
	r := l.Rand
	for i := range 100 + r.IntN(200) {
		tenant, audience := Pick[domain.TenantID](r, "demo", "acme"), Pick(r, "friends", "family")
		person := Person(fmt.Sprintf("person%d", r.IntN(12)))
		var id domain.EventID
		copy(id[:], fmt.Sprintf("member%d", i))
		key := domain.MemberKey(tenant, audience, person)
		switch {
		case poison && r.IntN(40) == 0:
			l.AppendPoison(domain.TopicAudiences, key, errUnreadable)
		case r.IntN(3) == 0:
			l.Append(domain.TopicAudiences, key, domain.AudienceMemberRemoved{Tenant: tenant, Audience: audience, Person: person, EventID: id})
		default:
			l.Append(domain.TopicAudiences, key, domain.AudienceMemberAdded{Tenant: tenant, Audience: audience, Person: person, EventID: id})
		}
	}
}

// People makes up names, names again, tombstones and Erased marks in any order, and now and then poison.
func People(l *Log, poison bool) {
	r := l.Rand
	for range 100 + r.IntN(200) {
		name := fmt.Sprintf("person%d", r.IntN(30))
		ref := domain.PersonRef{Tenant: Pick[domain.TenantID](r, "demo", "acme"), Person: Person(name)}
		switch r.IntN(10) {
		case 0:
			l.Append(domain.TopicPeople, ref.ErasedKey(), domain.PersonErased{Ref: ref, ErasedAt: l.clock})
		case 1, 2:
			l.Append(domain.TopicPeople, ref.Key(), domain.PersonForgotten{Ref: ref})
		default:
			id := name + Pick(r, "", "@example.org")
			if poison && r.IntN(20) == 0 {
				id = Pick(r, "", "\x00", "\xff")
			}
			l.Append(domain.TopicPeople, ref.Key(), domain.PersonNamed{Ref: ref, ID: id})
		}
	}
}
