package posts

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// Asked is a post, and the viewers whose right to see it is in question.
type Asked struct {
	Post    domain.PostKey
	Viewers []domain.PersonKey // looked for in the post's audience, where it has a named one
}

// LookupResult is what one statement saw, so that rows and positions belong together.
type LookupResult struct {
	// Posts that are, or were, there: Known, Deleted, Version, Author and Audience are set.
	Posts map[domain.PostKey]domain.PostAnswer
	// Members are those of the viewers asked about who are in the named audience of their post.
	Members map[Member]bool
	// Positions of the live version on the topics posts and audiences.
	Positions Positions
	// Parked are the posts that have dead letters, ParkedMembers the memberships of viewers asked about that
	// have: the log says more of them than this result.
	Parked        map[domain.PostKey]bool
	ParkedMembers map[Member]bool
}

// Positions are by topic and partition number.
type Positions map[domain.Topic]map[int32]domain.Position

// Passed tells whether everything below p is folded. A partition that was never read stands at 0, and a position
// of a topic that was made anew says nothing about another.
func (ps Positions) Passed(p domain.Position) bool {
	have, ok := ps[p.Topic][p.Partition]
	if !ok {
		return p.NextOffset == 0
	}
	return have.TopicID == p.TopicID && have.NextOffset >= p.NextOffset
}

// Set puts a position in its place.
func (ps Positions) Set(p domain.Position) {
	if ps[p.Topic] == nil {
		ps[p.Topic] = map[int32]domain.Position{}
	}
	ps[p.Topic][p.Partition] = p
}

// The kinds of rows that lookupSQL gives: k is the index of the post asked for, v that of the viewer.
const (
	lookupPost         = 0
	lookupParked       = 1
	lookupMember       = 2
	lookupParkedMember = 3
	lookupPosition     = 4
)

// A membership's record key is spelled here as domain.MemberKey spells it: which audience is meant stands in the
// row of the post.
var lookupSQL = projections.SQL("posts.lookup", `
WITH asked AS (
    SELECT a.k, a.tenant, a.post, a.record_key
    FROM unnest(@tenants::text[], @posts::text[], @record_keys::bytea[]) WITH ORDINALITY AS a (tenant, post, record_key, k)
), live AS (
    SELECT r.projection, r.live_version AS version
    FROM read_models r
    WHERE r.projection = '`+Name+`'
), found AS (
    SELECT a.k, p.tenant, p.deleted, p.version, p.author, p.audience
    FROM asked a
    JOIN posts p ON p.tenant = a.tenant AND p.post = a.post
    WHERE p.version > 0
), pairs AS (
    SELECT w.v, f.k, f.tenant, substr(f.audience, `+audienceFrom+`) AS audience, w.person
    FROM unnest(@viewer_of::bigint[], @viewers::bytea[]) WITH ORDINALITY AS w (k, person, v)
    JOIN found f ON f.k = w.k AND NOT f.deleted AND starts_with(f.audience, '`+domain.AudiencePrefix+`')
)
SELECT `+kind(lookupPost)+`::integer, f.k, f.deleted, f.version, f.author, f.audience, NULL::uuid, NULL::integer, NULL::bigint, NULL::text
FROM found f
UNION ALL
SELECT `+kind(lookupParked)+`, a.k, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM asked a, live l
WHERE EXISTS (SELECT FROM dead_letters d
              WHERE d.projection = l.projection AND d.version = l.version AND d.order_key = a.record_key AND d.order_key <> '')
UNION ALL
SELECT `+kind(lookupMember)+`, p.v, NULL, NULL, NULL, p.audience, NULL, NULL, NULL, NULL
FROM pairs p
JOIN audience_members m ON m.tenant = p.tenant AND m.audience = p.audience AND m.person = p.person
UNION ALL
SELECT `+kind(lookupParkedMember)+`, p.v, NULL, NULL, NULL, p.audience, NULL, NULL, NULL, NULL
FROM pairs p, live l
WHERE EXISTS (SELECT FROM dead_letters d
              WHERE d.projection = l.projection AND d.version = l.version AND d.order_key <> ''
                AND d.order_key = `+memberKeySQL("p.tenant", "p.audience", "p.person")+`)
UNION ALL
SELECT `+kind(lookupPosition)+`, NULL, NULL, NULL, NULL, NULL, s.topic_id, s.partition, s.next_offset, s.topic
FROM positions s
JOIN live l ON s.projection = l.projection AND s.version = l.version
WHERE s.topic IN ('`+string(domain.TopicPosts)+`', '`+string(domain.TopicAudiences)+`')`)

func kind(k int) string { return string('0' + rune(k)) }

// audienceFrom is where the name begins in the column audience, counted from 1.
var audienceFrom = strconv.Itoa(len(domain.AudiencePrefix) + 1)

func memberKeySQL(tenant, audience, person string) string {
	return `convert_to(` + tenant + `, 'UTF8') || '\x00'::bytea || convert_to(` + audience + `, 'UTF8') || '\x00'::bytea || ` + person
}

// Lookup gives what is known of posts and of their viewers' memberships, how far the live version has come, and
// which of the keys have parked events, all from one statement.
func Lookup(ctx context.Context, q projections.Querier, asked []Asked) (LookupResult, error) {
	res := LookupResult{
		Posts: make(map[domain.PostKey]domain.PostAnswer, len(asked)), Members: map[Member]bool{}, Positions: Positions{},
		Parked: map[domain.PostKey]bool{}, ParkedMembers: map[Member]bool{},
	}
	keys, recordKeys := make([]domain.PostKey, len(asked)), make([][]byte, len(asked))
	var viewerOf []int64
	var viewers [][]byte
	var memberOf []Member // by viewer; its audience is in the answer
	for i, a := range asked {
		keys[i], recordKeys[i] = a.Post, a.Post.Key()
		for _, v := range a.Viewers {
			viewerOf, viewers = append(viewerOf, int64(i+1)), append(viewers, v[:])
			memberOf = append(memberOf, Member{Tenant: a.Post.Tenant, Person: v})
		}
	}
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := q.Query(ctx, lookupSQL, pgx.NamedArgs{
		"tenants": tenants, "posts": posts, "record_keys": recordKeys, "viewer_of": viewerOf, "viewers": viewers,
	})
	if err != nil {
		return LookupResult{}, fmt.Errorf("look up posts: %w", err)
	}
	var (
		kind             int
		k, version, next *int64
		deleted          *bool
		author           []byte
		audience, topic  *string
		topicID          *[16]byte
		partition        *int32
	)
	_, err = pgx.ForEachRow(rows, []any{&kind, &k, &deleted, &version, &author, &audience, &topicID, &partition, &next, &topic}, func() error {
		switch kind {
		case lookupPost:
			res.Posts[keys[*k-1]] = domain.PostAnswer{
				Known: true, Deleted: *deleted, Version: *version,
				Author: domain.PersonKey(author), Audience: domain.Audience(*audience),
			}
		case lookupParked:
			res.Parked[keys[*k-1]] = true
		case lookupMember, lookupParkedMember:
			m := memberOf[*k-1]
			m.Audience = *audience
			if kind == lookupMember {
				res.Members[m] = true
			} else {
				res.ParkedMembers[m] = true
			}
		case lookupPosition:
			res.Positions.Set(domain.Position{Topic: domain.Topic(*topic), TopicID: *topicID, Partition: *partition, NextOffset: *next})
		}
		return nil
	})
	if err != nil {
		return LookupResult{}, fmt.Errorf("look up posts: %w", err)
	}
	return res, nil
}

// Wait is what an undecided view waits for.
type Wait struct {
	Key      domain.PostKey
	Viewer   domain.PersonKey
	WaitsFor []domain.Position
}

var settledSQL = projections.SQL("posts.settled", `
WITH live AS (
    SELECT r.projection, r.live_version AS version
    FROM read_models r
    WHERE r.projection = '`+Name+`'
)
SELECT w.k
FROM unnest(@waits::bigint[], @topic_ids::uuid[], @partitions::integer[], @next::bigint[]) AS w (k, topic_id, partition, next_offset)
WHERE NOT EXISTS (SELECT FROM positions s
                  JOIN live l ON s.projection = l.projection AND s.version = l.version
                  WHERE s.topic_id = w.topic_id AND s.partition = w.partition AND s.next_offset >= w.next_offset)
UNION
SELECT a.k
FROM unnest(@record_keys::bytea[]) WITH ORDINALITY AS a (record_key, k), live l
WHERE EXISTS (SELECT FROM dead_letters d
              WHERE d.projection = l.projection AND d.version = l.version AND d.order_key = a.record_key AND d.order_key <> '')
UNION
SELECT a.k
FROM unnest(@tenants::text[], @posts::text[], @viewers::bytea[]) WITH ORDINALITY AS a (tenant, post, viewer, k)
JOIN posts p ON p.tenant = a.tenant AND p.post = a.post AND starts_with(p.audience, '`+domain.AudiencePrefix+`'), live l
WHERE EXISTS (SELECT FROM dead_letters d
              WHERE d.projection = l.projection AND d.version = l.version AND d.order_key <> ''
                AND d.order_key = `+memberKeySQL("p.tenant", "substr(p.audience, "+audienceFrom+")", "a.viewer")+`)`)

// Settled tells for each wait whether the live version has passed all of its positions and no dead letter of
// its post, or of the viewer's membership, is parked: then the read model's word about them is the last one.
func Settled(ctx context.Context, q projections.Querier, waits []Wait) ([]bool, error) {
	settled := make([]bool, len(waits))
	keys, recordKeys, viewers := make([]domain.PostKey, len(waits)), make([][]byte, len(waits)), make([][]byte, len(waits))
	var of, next []int64
	var topicIDs [][16]byte
	var partitions []int32
	for i, w := range waits {
		settled[i], keys[i], recordKeys[i], viewers[i] = true, w.Key, w.Key.Key(), w.Viewer[:]
		for _, p := range w.WaitsFor {
			of, topicIDs, partitions, next = append(of, int64(i+1)), append(topicIDs, p.TopicID), append(partitions, p.Partition), append(next, p.NextOffset)
		}
	}
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := q.Query(ctx, settledSQL, pgx.NamedArgs{
		"waits": of, "topic_ids": topicIDs, "partitions": partitions, "next": next, "record_keys": recordKeys,
		"tenants": tenants, "posts": posts, "viewers": viewers,
	})
	if err != nil {
		return nil, fmt.Errorf("read what is settled: %w", err)
	}
	var k int64
	if _, err := pgx.ForEachRow(rows, []any{&k}, func() error {
		settled[k-1] = false
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what is settled: %w", err)
	}
	return settled, nil
}
