package posts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// LookupResult is what one statement saw, so that rows and positions belong together.
type LookupResult struct {
	// Posts that are, or were, there: Known, Deleted, Version, Author and Audience are set.
	Posts map[domain.PostKey]domain.PostAnswer
	// Positions of the live version on the topic posts, by partition number.
	Positions map[int32]domain.Position
	// Parked are the keys that have dead letters: the log says more of them than Posts.
	Parked map[domain.PostKey]bool
}

// The kinds of rows that lookupSQL gives: k is the index of the key asked for.
const (
	lookupPost     = 0
	lookupParked   = 1
	lookupPosition = 2
)

var lookupSQL = projections.SQL("posts.lookup", `
WITH asked AS (
    SELECT a.k, a.tenant, a.post, a.record_key
    FROM unnest(@tenants::text[], @posts::text[], @record_keys::bytea[]) WITH ORDINALITY AS a (tenant, post, record_key, k)
), live AS (
    SELECT r.projection, r.live_version AS version
    FROM read_models r
    WHERE r.projection = '`+Name+`'
)
SELECT `+kind(lookupPost)+`::integer, a.k, p.deleted, p.version, p.author, p.audience, NULL::uuid, NULL::integer, NULL::bigint
FROM asked a
JOIN posts p ON p.tenant = a.tenant AND p.post = a.post
WHERE p.version > 0
UNION ALL
SELECT `+kind(lookupParked)+`, a.k, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM asked a, live l
WHERE EXISTS (SELECT FROM dead_letters d
              WHERE d.projection = l.projection AND d.version = l.version AND d.order_key = a.record_key AND d.order_key <> '')
UNION ALL
SELECT `+kind(lookupPosition)+`, NULL, NULL, NULL, NULL, NULL, s.topic_id, s.partition, s.next_offset
FROM positions s
JOIN live l ON s.projection = l.projection AND s.version = l.version
WHERE s.topic = '`+string(domain.TopicPosts)+`'`)

func kind(k int) string { return string('0' + rune(k)) }

// Lookup gives what is known of posts, how far the live version has come, and which of the posts have parked
// events, all from one statement.
func Lookup(ctx context.Context, q projections.Querier, keys []domain.PostKey) (LookupResult, error) {
	res := LookupResult{
		Posts:     make(map[domain.PostKey]domain.PostAnswer, len(keys)),
		Positions: map[int32]domain.Position{},
		Parked:    map[domain.PostKey]bool{},
	}
	tenants, posts := projections.PostKeyArgs(keys)
	recordKeys := make([][]byte, len(keys))
	for i, k := range keys {
		recordKeys[i] = k.Key()
	}
	rows, err := q.Query(ctx, lookupSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts, "record_keys": recordKeys})
	if err != nil {
		return LookupResult{}, fmt.Errorf("look up posts: %w", err)
	}
	var (
		kind             int
		k, version, next *int64
		deleted          *bool
		author           []byte
		audience         *string
		topicID          *[16]byte
		partition        *int32
	)
	_, err = pgx.ForEachRow(rows, []any{&kind, &k, &deleted, &version, &author, &audience, &topicID, &partition, &next}, func() error {
		switch kind {
		case lookupPost:
			res.Posts[keys[*k-1]] = domain.PostAnswer{
				Known: true, Deleted: *deleted, Version: *version,
				Author: domain.PersonKey(author), Audience: domain.Audience(*audience),
			}
		case lookupParked:
			res.Parked[keys[*k-1]] = true
		case lookupPosition:
			res.Positions[*partition] = domain.Position{Topic: domain.TopicPosts, TopicID: *topicID, Partition: *partition, NextOffset: *next}
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
              WHERE d.projection = l.projection AND d.version = l.version AND d.order_key = a.record_key AND d.order_key <> '')`)

// Settled tells for each wait whether the live version has passed all of its positions and no dead letter of
// its post is parked: then the read model's word about the post is the last one.
func Settled(ctx context.Context, q projections.Querier, waits []Wait) ([]bool, error) {
	settled := make([]bool, len(waits))
	recordKeys := make([][]byte, len(waits))
	var of, next []int64
	var topicIDs [][16]byte
	var partitions []int32
	for i, w := range waits {
		settled[i], recordKeys[i] = true, w.Key.Key()
		for _, p := range w.WaitsFor {
			of, topicIDs, partitions, next = append(of, int64(i+1)), append(topicIDs, p.TopicID), append(partitions, p.Partition), append(next, p.NextOffset)
		}
	}
	rows, err := q.Query(ctx, settledSQL, pgx.NamedArgs{
		"waits": of, "topic_ids": topicIDs, "partitions": partitions, "next": next, "record_keys": recordKeys,
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
