package relay

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// item is one thing that an endpoint is sent: a post's counts or, where milestone is positive, that.
type item struct {
	post          domain.PostID
	partition     int32
	offset        int64 // of the record that told the counts
	impressions   int64
	uniqueViewers int64
	revision      int64
	asOf          time.Time
	milestone     int64
}

func (i item) change(tenant domain.TenantID) domain.ImpressionsChanged {
	return domain.ImpressionsChanged{
		PostRef: domain.PostKey{Tenant: tenant, Post: i.post}, Impressions: i.impressions, UniqueViewers: i.uniqueViewers, Revision: i.revision, AsOf: i.asOf,
	}
}

func compareItems(a, b item) int {
	return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
}

// hashID names counts, in order, by where they stand on the topic.
func hashID(key endpointKey, items []item) string {
	h := sha256.New()
	h.Write([]byte(string(key.tenant) + "\x00" + key.endpoint + "\x00"))
	for _, i := range items {
		var b [12]byte
		binary.BigEndian.PutUint32(b[:], uint32(i.partition)) //nolint:gosec // not negative
		binary.BigEndian.PutUint64(b[4:], uint64(i.offset))   //nolint:gosec // not negative
		h.Write(b[:])
	}
	return "counts_" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// milestone is a call that one endpoint is to get.
type milestone struct {
	item
	tenant   domain.TenantID
	endpoint string
}

// health is how the calls of an endpoint go.
type health struct {
	failingSince time.Time // zero: the last call worked
	attempts     int       // since then
	nextAttempt  time.Time
}

// work is what an endpoint is to be sent.
type work struct {
	health     health
	milestones []item
	counts     []item
}

var (
	healthSQL = projections.SQL("relay.health", `
SELECT COALESCE(e.failing_since, 'epoch'), e.attempts, COALESCE(e.next_attempt_at, 'epoch')
FROM relay_endpoints e
WHERE e.tenant = @tenant AND e.endpoint = @endpoint`)
	milestonesSQL = projections.SQL("relay.milestones", `
SELECT m.post, m.partition, m.impressions, m.revision, m.milestone
FROM relay_milestones m
WHERE m.tenant = @tenant AND m.endpoint = @endpoint AND m.partition = ANY(@partitions::integer[])
ORDER BY m.post, m.milestone
LIMIT @limit`)
	// Each partition, in the order given, gives its next posts in that of the topic, so that one offset says what was taken.
	countsSQL = projections.SQL("relay.counts", `
SELECT c.post, c.partition, c.record_offset, c.impressions, c.unique_viewers, c.revision, c.as_of
FROM unnest(@partitions::integer[]) WITH ORDINALITY AS p (partition, turn)
LEFT JOIN relay_cursors u ON u.tenant = @tenant AND u.endpoint = @endpoint AND u.partition = p.partition
CROSS JOIN LATERAL (
    SELECT c.post, c.partition, c.record_offset, c.impressions, c.unique_viewers, c.revision, c.as_of
    FROM relay_counts c
    WHERE c.tenant = @tenant AND c.partition = p.partition AND c.record_offset >= COALESCE(u.next_offset, 0)
    ORDER BY c.record_offset
    LIMIT @share) c
ORDER BY p.turn, c.record_offset
LIMIT @limit`)
)

// readWork reads what is next for an endpoint, of posts in some partitions, at most limit of them.
func readWork(ctx context.Context, q projections.Querier, key endpointKey, partitions []int32, limit int) (w work, err error) {
	args := pgx.NamedArgs{
		"tenant": string(key.tenant), "endpoint": key.endpoint, "partitions": partitions, "limit": milestonesMax,
		"share": (limit + len(partitions) - 1) / len(partitions),
	}
	err = q.QueryRow(ctx, healthSQL, args).Scan(&w.health.failingSince, &w.health.attempts, &w.health.nextAttempt)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return w, fmt.Errorf("read how an endpoint does: %w", err)
	}
	w.health.failingSince, w.health.nextAttempt = projections.FromEpoch(w.health.failingSince), projections.FromEpoch(w.health.nextAttempt)
	rows, err := q.Query(ctx, milestonesSQL, args)
	if err != nil {
		return w, fmt.Errorf("read milestones: %w", err)
	}
	var i item
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&i.post), &i.partition, &i.impressions, &i.revision, &i.milestone}, func() error {
		w.milestones = append(w.milestones, i)
		return nil
	}); err != nil {
		return w, fmt.Errorf("read milestones: %w", err)
	}
	args["limit"] = limit
	rows, err = q.Query(ctx, countsSQL, args)
	if err != nil {
		return w, fmt.Errorf("read counts to be sent: %w", err)
	}
	i = item{}
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&i.post), &i.partition, &i.offset, &i.impressions, &i.uniqueViewers, &i.revision, &i.asOf}, func() error {
		one := i
		one.asOf = projections.FromEpoch(i.asOf)
		w.counts = append(w.counts, one)
		return nil
	}); err != nil {
		return w, fmt.Errorf("read counts to be sent: %w", err)
	}
	return w, nil
}

var (
	cursorSQL = projections.SQL("relay.cursor", `
INSERT INTO relay_cursors AS u (tenant, endpoint, partition, next_offset)
SELECT @tenant, @endpoint, t.partition, max(t.record_offset) + 1
FROM unnest(@partitions::integer[], @offsets::bigint[]) AS t (partition, record_offset)
GROUP BY t.partition
ORDER BY t.partition
ON CONFLICT (tenant, endpoint, partition) DO UPDATE SET next_offset = GREATEST(u.next_offset, EXCLUDED.next_offset)`)
	unparkSQL = projections.SQL("relay.unpark", `
DELETE FROM relay_parked p
WHERE p.tenant = @tenant AND p.endpoint = @endpoint AND p.milestone = 0 AND p.post = ANY(@posts::text[])`)
	calledSQL = projections.SQL("relay.called", `
DELETE FROM relay_milestones m
WHERE m.tenant = @tenant AND m.endpoint = @endpoint AND m.post = @post AND m.milestone = @milestone`)
	successSQL = projections.SQL("relay.success", `
INSERT INTO relay_endpoints AS e (tenant, endpoint, last_success_at) VALUES (@tenant, @endpoint, @now)
ON CONFLICT (tenant, endpoint) DO UPDATE
SET failing_since = NULL, attempts = 0, next_attempt_at = NULL, last_error = '', last_success_at = GREATEST(e.last_success_at, EXCLUDED.last_success_at)`)
	// Each relay calls the endpoint for its own posts. What several of them meet at once is one failure: with ten relays a
	// moment's failure would else be ten, and the endpoint left alone for a quarter of an hour.
	failureSQL = projections.SQL("relay.failure", `
INSERT INTO relay_endpoints AS e (tenant, endpoint, failing_since, attempts, next_attempt_at, last_error) VALUES (@tenant, @endpoint, @now, 1, @next, @error)
ON CONFLICT (tenant, endpoint) DO UPDATE
SET failing_since = COALESCE(e.failing_since, EXCLUDED.failing_since), attempts = GREATEST(e.attempts, LEAST(e.attempts, @known) + 1),
    next_attempt_at = EXCLUDED.next_attempt_at, last_error = EXCLUDED.last_error`)
	forgetSQL = projections.SQL("relay.forget", `
UPDATE relay_endpoints e
SET failing_since = NULL, attempts = 0, next_attempt_at = NULL
WHERE e.tenant = @tenant AND e.endpoint = @endpoint`)
	parkSQL = projections.SQL("relay.park", `
INSERT INTO relay_parked AS p (tenant, endpoint, post, milestone, revision, impressions, partition, reason, parked_at)
VALUES (@tenant, @endpoint, @post, @milestone, @revision, @impressions, @partition, @reason, @now)
ON CONFLICT (tenant, endpoint, post, milestone) DO UPDATE
SET revision = EXCLUDED.revision, impressions = EXCLUDED.impressions, reason = EXCLUDED.reason, parked_at = EXCLUDED.parked_at`)
	insertMilestonesSQL = projections.SQL("relay.insert_milestones", `
INSERT INTO relay_milestones (tenant, endpoint, post, milestone, partition, impressions, revision)
SELECT * FROM unnest(@tenants::text[], @endpoints::text[], @posts::text[], @milestones::bigint[], @partitions::integer[], @impressions::bigint[], @revisions::bigint[])
ON CONFLICT (tenant, endpoint, post, milestone) DO NOTHING`)
)

func (k endpointKey) args() pgx.NamedArgs {
	return pgx.NamedArgs{"tenant": string(k.tenant), "endpoint": k.endpoint}
}

// writeSuccess takes off what an endpoint has acknowledged.
func writeSuccess(ctx context.Context, tx projections.Tx, key endpointKey, items []item, now time.Time) error {
	if err := takeOff(ctx, tx, key, items); err != nil {
		return err
	}
	args := key.args()
	args["now"] = now
	if items[0].milestone == 0 {
		posts := make([]string, len(items))
		for i, one := range items {
			posts[i] = string(one.post)
		}
		args["posts"] = posts
		if _, err := tx.Exec(ctx, unparkSQL, args); err != nil {
			return fmt.Errorf("forget what was parked: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, successSQL, args); err != nil {
		return fmt.Errorf("write that an endpoint works: %w", err)
	}
	return nil
}

// takeOff makes an endpoint not be sent the items again.
func takeOff(ctx context.Context, tx projections.Tx, key endpointKey, items []item) error {
	args := key.args()
	if first := items[0]; first.milestone > 0 {
		args["post"], args["milestone"] = string(first.post), first.milestone
		if _, err := tx.Exec(ctx, calledSQL, args); err != nil {
			return fmt.Errorf("take a milestone off: %w", err)
		}
		return nil
	}
	partitions, offsets := make([]int32, len(items)), make([]int64, len(items))
	for i, one := range items {
		partitions[i], offsets[i] = one.partition, one.offset
	}
	args["partitions"], args["offsets"] = partitions, offsets
	if _, err := tx.Exec(ctx, cursorSQL, args); err != nil {
		return fmt.Errorf("move an endpoint's cursor: %w", err)
	}
	return nil
}

// writeFailure writes that a call has failed, where known was what had failed before it.
func writeFailure(ctx context.Context, tx projections.Tx, key endpointKey, known health, now, next time.Time, said string) error {
	args := key.args()
	args["known"], args["now"], args["next"], args["error"] = known.attempts, now, next, said
	if _, err := tx.Exec(ctx, failureSQL, args); err != nil {
		return fmt.Errorf("write that an endpoint fails: %w", err)
	}
	return nil
}

func forgetHealth(ctx context.Context, tx projections.Tx, key endpointKey) error {
	if _, err := tx.Exec(ctx, forgetSQL, key.args()); err != nil {
		return fmt.Errorf("forget how an endpoint did: %w", err)
	}
	return nil
}

// writeParked sets aside what an endpoint has refused, and lets what is behind it go on.
func writeParked(ctx context.Context, tx projections.Tx, key endpointKey, one item, said string, now time.Time) error {
	args := key.args()
	args["post"], args["milestone"], args["revision"], args["impressions"] = string(one.post), one.milestone, one.revision, one.impressions
	args["partition"], args["reason"], args["now"] = one.partition, said, now
	if _, err := tx.Exec(ctx, parkSQL, args); err != nil {
		return fmt.Errorf("park a post: %w", err)
	}
	return takeOff(ctx, tx, key, []item{one})
}

func insertMilestones(ctx context.Context, tx projections.Tx, calls []milestone) error {
	if len(calls) == 0 {
		return nil
	}
	n := len(calls)
	tenants, endpoints, posts := make([]string, n), make([]string, n), make([]string, n)
	milestones, impressions, revisions, partitions := make([]int64, n), make([]int64, n), make([]int64, n), make([]int32, n)
	for i, c := range calls {
		tenants[i], endpoints[i], posts[i], milestones[i] = string(c.tenant), c.endpoint, string(c.post), c.milestone
		impressions[i], revisions[i], partitions[i] = c.impressions, c.revision, c.partition
	}
	if _, err := tx.Exec(ctx, insertMilestonesSQL, pgx.NamedArgs{
		"tenants": tenants, "endpoints": endpoints, "posts": posts, "milestones": milestones, "partitions": partitions,
		"impressions": impressions, "revisions": revisions,
	}); err != nil {
		return fmt.Errorf("insert milestones: %w", err)
	}
	return nil
}
