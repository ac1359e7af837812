package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// progress is how far a partition of impressions is, as relay_partitions has it.
type progress struct {
	told      domain.Position   // the topic is in relay_counts up to here
	callsFrom int64             // milestones on the topic below this were called from another database
	marked    []domain.Position // everything that changes counts was told up to here; none: every post is to be looked at
	live      string            // versions of the read models that were looked at
}

var progressSQL = projections.SQL("relay.progress", `
SELECT p.topic_id, p.next_offset, p.calls_from, p.marked_topics, p.marked_topic_ids, p.marked_partitions, p.marked_to, p.live_versions
FROM relay_partitions p
WHERE p.partition = @partition`)

// readProgress gives the progress of a partition; found is false where this database knows nothing of it.
func readProgress(ctx context.Context, q projections.Querier, part domain.Partition) (p progress, found bool, err error) {
	p.told = part.At(0)
	var topics []string
	var ids [][16]byte
	var partitions []int32
	var to []int64
	err = q.QueryRow(ctx, progressSQL, pgx.NamedArgs{"partition": part.Partition}).
		Scan((*[16]byte)(&p.told.TopicID), &p.told.NextOffset, &p.callsFrom, &topics, &ids, &partitions, &to, &p.live)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("read how far impressions/%d is told: %w", part.Partition, err)
	}
	for i := range to {
		p.marked = append(p.marked, domain.Position{Topic: domain.Topic(topics[i]), TopicID: ids[i], Partition: partitions[i], NextOffset: to[i]})
	}
	return p, true, nil
}

var insertProgressSQL = projections.SQL("relay.insert_progress", `
INSERT INTO relay_partitions (partition, topic_id, next_offset, calls_from, marked_topics, marked_topic_ids, marked_partitions, marked_to, live_versions)
VALUES (@partition, @topic_id, 0, @calls_from, '{}', '{}', '{}', '{}', '')
ON CONFLICT (partition) DO NOTHING`)

// insertProgress begins a partition that this database knows nothing of. What stands in it up to now is of another database.
func insertProgress(ctx context.Context, tx projections.Tx, part domain.Partition, end int64) error {
	args := pgx.NamedArgs{"partition": part.Partition, "topic_id": [16]byte(part.TopicID), "calls_from": end}
	if _, err := tx.Exec(ctx, insertProgressSQL, args); err != nil {
		return fmt.Errorf("insert the progress of impressions/%d: %w", part.Partition, err)
	}
	return nil
}

var markedSQL = projections.SQL("relay.marked", `
UPDATE relay_partitions p
SET marked_topics = @topics, marked_topic_ids = @topic_ids, marked_partitions = @partitions, marked_to = @to, live_versions = @live
WHERE p.partition = @partition AND p.topic_id = @topic_id`)

// writeMarked writes that everything below the positions was told of a partition's posts, from read models of these versions.
func writeMarked(ctx context.Context, tx projections.Tx, part domain.Partition, marked []domain.Position, live string) error {
	topics, ids, partitions, to := make([]string, len(marked)), make([][16]byte, len(marked)), make([]int32, len(marked)), make([]int64, len(marked))
	for i, p := range marked {
		topics[i], ids[i], partitions[i], to[i] = string(p.Topic), p.TopicID, p.Partition, p.NextOffset
	}
	if _, err := tx.Exec(ctx, markedSQL, pgx.NamedArgs{
		"partition": part.Partition, "topic_id": [16]byte(part.TopicID), "topics": topics, "topic_ids": ids, "partitions": partitions, "to": to, "live": live,
	}); err != nil {
		return fmt.Errorf("write what was told of impressions/%d: %w", part.Partition, err)
	}
	return nil
}

// record is what stands on the topic impressions.
type record struct {
	domain.ImpressionsChanged
	partition int32
	offset    int64
}

// move is how far records go in a partition.
type move struct {
	from domain.Position
	to   int64
}

// errMoved: another relay writes the partition's rows.
var errMoved = domain.Errorf(domain.CodePositionBehind, "the partition was moved by another relay")

var (
	advanceSQL = projections.SQL("relay.advance", `
UPDATE relay_partitions p
SET next_offset = m.to_offset
FROM unnest(@partitions::integer[], @topic_ids::uuid[], @from::bigint[], @to::bigint[]) AS m (partition, topic_id, from_offset, to_offset)
WHERE p.partition = m.partition AND p.topic_id = m.topic_id AND p.next_offset = m.from_offset`)
	foldSQL = projections.SQL("relay.fold", `
INSERT INTO relay_counts AS c (tenant, post, partition, impressions, unique_viewers, imported, revision, highest_milestone, as_of, record_offset)
SELECT * FROM unnest(@tenants::text[], @posts::text[], @partitions::integer[], @impressions::bigint[], @unique::bigint[], @imported::bigint[],
                     @revisions::bigint[], @milestones::bigint[], @as_of::timestamptz[], @offsets::bigint[])
ON CONFLICT (tenant, post) DO UPDATE
SET partition = EXCLUDED.partition, impressions = EXCLUDED.impressions, unique_viewers = EXCLUDED.unique_viewers, imported = EXCLUDED.imported,
    revision = EXCLUDED.revision, highest_milestone = EXCLUDED.highest_milestone, as_of = EXCLUDED.as_of, record_offset = EXCLUDED.record_offset
WHERE c.record_offset < EXCLUDED.record_offset`)
	resentSQL = projections.SQL("relay.resent", `
DELETE FROM relay_resends r
USING unnest(@tenants::text[], @posts::text[], @revisions::bigint[]) AS t (tenant, post, revision)
WHERE r.tenant = t.tenant AND r.post = t.post AND r.above < t.revision`)
)

// fold writes what stands on the topic into the tables, and the milestones that are to be called by it.
func fold(ctx context.Context, tx projections.Tx, moves []move, records []record, calls []milestone) error {
	n := len(moves)
	partitions, ids, from, to := make([]int32, n), make([][16]byte, n), make([]int64, n), make([]int64, n)
	for i, m := range moves {
		partitions[i], ids[i], from[i], to[i] = m.from.Partition, m.from.TopicID, m.from.NextOffset, m.to
	}
	tag, err := tx.Exec(ctx, advanceSQL, pgx.NamedArgs{"partitions": partitions, "topic_ids": ids, "from": from, "to": to})
	if err != nil {
		return fmt.Errorf("advance what was told: %w", err)
	}
	if tag.RowsAffected() != int64(n) {
		return errMoved
	}
	records = latest(records)
	n = len(records)
	if n == 0 {
		return nil
	}
	keys, partitions := make([]domain.PostKey, n), make([]int32, n)
	impressions, unique, imported := make([]int64, n), make([]int64, n), make([]int64, n)
	revisions, milestones, offsets, asOf := make([]int64, n), make([]int64, n), make([]int64, n), make([]time.Time, n)
	for i, r := range records {
		keys[i], partitions[i], impressions[i], unique[i], imported[i] = r.PostRef, r.partition, r.Impressions, r.UniqueViewers, r.Imported
		revisions[i], milestones[i], offsets[i], asOf[i] = r.Revision, r.HighestMilestone, r.offset, projections.ToEpoch(r.AsOf)
	}
	tenants, posts := projections.PostKeyArgs(keys)
	args := pgx.NamedArgs{
		"tenants": tenants, "posts": posts, "partitions": partitions, "impressions": impressions, "unique": unique, "imported": imported,
		"revisions": revisions, "milestones": milestones, "as_of": asOf, "offsets": offsets,
	}
	if _, err := tx.Exec(ctx, foldSQL, args); err != nil {
		return fmt.Errorf("fold what was told: %w", err)
	}
	if _, err := tx.Exec(ctx, resentSQL, args); err != nil {
		return fmt.Errorf("forget what was sent again: %w", err)
	}
	return insertMilestones(ctx, tx, calls)
}

// latest keeps the last record of each post, sorted by post, as every relay writes them.
func latest(records []record) []record {
	last := map[domain.PostKey]record{}
	for _, r := range records {
		if have, ok := last[r.PostRef]; !ok || have.offset < r.offset {
			last[r.PostRef] = r
		}
	}
	return slices.SortedFunc(maps.Values(last), func(a, b record) int { return comparePosts(a.PostRef, b.PostRef) })
}

var toldSQL = projections.SQL("relay.told", `
SELECT c.tenant, c.post, c.impressions, c.unique_viewers, c.imported, c.revision, c.highest_milestone, c.as_of
FROM relay_counts c
JOIN unnest(@tenants::text[], @posts::text[]) AS k (tenant, post) ON k.tenant = c.tenant AND k.post = c.post`)

// Told gives what posts were told last; one of which nothing was told is not in the map.
func Told(ctx context.Context, q projections.Querier, keys []domain.PostKey) (map[domain.PostKey]domain.ImpressionsChanged, error) {
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := q.Query(ctx, toldSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts})
	if err != nil {
		return nil, fmt.Errorf("read what was told: %w", err)
	}
	told := make(map[domain.PostKey]domain.ImpressionsChanged, len(keys))
	var t domain.ImpressionsChanged
	if _, err := pgx.ForEachRow(rows, []any{
		(*string)(&t.PostRef.Tenant), (*string)(&t.PostRef.Post), &t.Impressions, &t.UniqueViewers, &t.Imported, &t.Revision, &t.HighestMilestone, &t.AsOf,
	}, func() error {
		one := t
		one.AsOf = projections.FromEpoch(t.AsOf)
		told[t.PostRef] = one
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what was told: %w", err)
	}
	return told, nil
}

var resendsSQL = projections.SQL("relay.resends", `
SELECT r.tenant, r.post, r.above
FROM relay_resends r
WHERE r.partition = ANY(@partitions::integer[]) AND r.tenant = ANY(@tenants::text[])
LIMIT @limit`)

// readResends gives posts of open tenants that operators want told again, with the revision that the core has.
func readResends(ctx context.Context, q projections.Querier, open []domain.TenantID, partitions []int32, limit int) (map[domain.PostKey]int64, error) {
	tenants := make([]string, len(open))
	for i, tenant := range open {
		tenants[i] = string(tenant)
	}
	rows, err := q.Query(ctx, resendsSQL, pgx.NamedArgs{"partitions": partitions, "tenants": tenants, "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("read what is to be sent again: %w", err)
	}
	above := map[domain.PostKey]int64{}
	var key domain.PostKey
	var revision int64
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&key.Tenant), (*string)(&key.Post), &revision}, func() error {
		above[key] = revision
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what is to be sent again: %w", err)
	}
	return above, nil
}

var resendSQL = projections.SQL("relay.resend", `
INSERT INTO relay_resends AS r (tenant, post, partition, above)
SELECT * FROM unnest(@tenants::text[], @posts::text[], @partitions::integer[], @above::bigint[])
ON CONFLICT (tenant, post) DO UPDATE SET above = GREATEST(r.above, EXCLUDED.above)`)

// wish is that the counts of a post be told again, under a revision above the given one.
type wish struct {
	post      domain.PostKey
	partition int32 // of the post in the topic impressions
	above     int64
}

// resend asks for the counts of posts to be told again. A post may be wished for more than once.
func resend(ctx context.Context, tx projections.Tx, wishes []wish) error {
	if len(wishes) == 0 {
		return nil
	}
	wishes = slices.SortedFunc(slices.Values(wishes), func(a, b wish) int {
		return cmp.Or(comparePosts(a.post, b.post), cmp.Compare(b.above, a.above))
	})
	wishes = slices.CompactFunc(wishes, func(a, b wish) bool { return a.post == b.post })
	keys, partitions, above := make([]domain.PostKey, len(wishes)), make([]int32, len(wishes)), make([]int64, len(wishes))
	for i, w := range wishes {
		keys[i], partitions[i], above[i] = w.post, w.partition, w.above
	}
	tenants, posts := projections.PostKeyArgs(keys)
	if _, err := tx.Exec(ctx, resendSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts, "partitions": partitions, "above": above}); err != nil {
		return fmt.Errorf("ask for counts to be sent again: %w", err)
	}
	return nil
}

// comparePosts orders posts as every relay writes them, so that two cannot deadlock.
func comparePosts(a, b domain.PostKey) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Post, b.Post))
}
