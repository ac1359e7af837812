package faulttest

import (
	"bytes"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// statement is what a registered statement does.
type statement struct {
	locks func(pgx.NamedArgs) string // the projection whose rows it locks; nil: it only reads
	run   func(*view, pgx.NamedArgs) ([][]any, error)
}

func ofArgument(a pgx.NamedArgs) string { return arg[string](a, "projection") }

func of(projection string) func(pgx.NamedArgs) string {
	return func(pgx.NamedArgs) string { return projection }
}

// interpreted are the statements that memStore knows, by the name that they are registered under.
var interpreted = map[string]statement{
	"positions.of":              {nil, positionsOf},
	"positions.other_topic":     {nil, positionsOtherTopic},
	"positions.insert_missing":  {ofArgument, positionsInsertMissing},
	"positions.lock":            {ofArgument, positionsLock},
	"positions.advance":         {ofArgument, positionsAdvance},
	"positions.complete_to":     {ofArgument, positionsCompleteTo},
	"dead_letters.parked_keys":  {nil, lettersParkedKeys},
	"dead_letters.count":        {nil, lettersCount},
	"dead_letters.lock_parking": {ofArgument, nothing},
	"dead_letters.park":         {ofArgument, lettersPark},
	"impressions.add":           {of("impressions"), impressionsAdd},
	"uniqueviews.add":           {of("uniqueviews"), uniqueviewsAdd},
}

// arg is an argument, of exactly the type that the projections give it.
func arg[T any](a pgx.NamedArgs, name string) T {
	v, ok := a[name].(T)
	if !ok {
		panic("memStore: the argument @" + name + " is missing or of another type")
	}
	return v
}

// micros is a time as timestamptz keeps it.
func micros(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

// keysOf are the rows that parallel arrays of topic ids and partitions name.
func keysOf(a pgx.NamedArgs) []positionKey {
	ids, partitions := arg[[][16]byte](a, "topic_ids"), arg[[]int32](a, "partitions")
	keys := make([]positionKey, len(ids))
	for i := range keys {
		keys[i] = positionKey{ofArgument(a), arg[int](a, "version"), ids[i], partitions[i]}
	}
	return keys
}

// nothing is what a statement does that only locks.
func nothing(*view, pgx.NamedArgs) ([][]any, error) { return nil, nil }

func positionsOf(v *view, a pgx.NamedArgs) (rows [][]any, err error) {
	for _, k := range v.sortedPositions(ofArgument(a), arg[int](a, "version")) {
		r, _ := get(v.base.positions, v.own.positions, k)
		rows = append(rows, []any{r.topic, k.topicID, k.partition, r.next, r.epoch, r.viewNext, r.completeTo})
	}
	return rows, nil
}

func positionsOtherTopic(v *view, a pgx.NamedArgs) ([][]any, error) {
	topics, ids := arg[[]string](a, "topics"), arg[[][16]byte](a, "topic_ids")
	for _, k := range v.sortedPositions(ofArgument(a), arg[int](a, "version")) {
		r, _ := get(v.base.positions, v.own.positions, k)
		for i, topic := range topics {
			if topic == r.topic && ids[i] != k.topicID {
				return [][]any{{r.topic}}, nil
			}
		}
	}
	return nil, nil
}

func positionsInsertMissing(v *view, a pgx.NamedArgs) ([][]any, error) {
	if !slices.Contains(memProjections, ofArgument(a)) || arg[int](a, "version") != 1 {
		return nil, nil
	}
	for i, k := range keysOf(a) {
		if _, ok := get(v.base.positions, v.own.positions, k); !ok {
			v.own.positions[k] = positionRow{topic: arg[[]string](a, "topics")[i], completeTo: time.Unix(0, 0).UTC()}
		}
	}
	return nil, nil
}

func positionsLock(v *view, a pgx.NamedArgs) (rows [][]any, err error) {
	asked := keysOf(a)
	for _, k := range v.sortedPositions(ofArgument(a), arg[int](a, "version")) {
		if slices.Contains(asked, k) {
			r, _ := get(v.base.positions, v.own.positions, k)
			rows = append(rows, []any{k.topicID, k.partition, r.next, arg[string](a, "schema")})
		}
	}
	return rows, nil
}

func positionsAdvance(v *view, a pgx.NamedArgs) ([][]any, error) {
	next, viewNext, completeTo := arg[[]int64](a, "next"), arg[[]int64](a, "view_next"), arg[[]time.Time](a, "complete_to")
	for i, k := range keysOf(a) {
		r, ok := get(v.base.positions, v.own.positions, k)
		if !ok {
			continue
		}
		if next[i] < 0 || viewNext[i] < 0 || arg[[]int32](a, "epochs")[i] < 0 {
			return nil, refused("23514", "positions_next_offset_not_negative")
		}
		r.next, r.epoch, r.viewNext = next[i], arg[[]int32](a, "epochs")[i], viewNext[i]
		if to := micros(completeTo[i]); to.After(r.completeTo) {
			r.completeTo = to
		}
		v.own.positions[k] = r
	}
	return nil, nil
}

func positionsCompleteTo(v *view, a pgx.NamedArgs) ([][]any, error) {
	next, completeTo := arg[[]int64](a, "next"), arg[[]time.Time](a, "complete_to")
	for i, k := range keysOf(a) {
		r, ok := get(v.base.positions, v.own.positions, k)
		if to := micros(completeTo[i]); ok && r.next == next[i] && r.completeTo.Before(to) {
			r.completeTo = to
			v.own.positions[k] = r
		}
	}
	return nil, nil
}

func lettersOf(v *view, a pgx.NamedArgs) map[letterKey]letterRow {
	return all(v.base.letters, v.own.letters, func(k letterKey, _ letterRow) bool {
		return k.projection == ofArgument(a) && k.version == arg[int](a, "version")
	})
}

func lettersParkedKeys(v *view, a pgx.NamedArgs) (rows [][]any, err error) {
	keys := arg[[][]byte](a, "keys")
	seen := map[string]bool{}
	for _, r := range lettersOf(v, a) {
		asked := slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, r.orderKey) })
		if len(r.orderKey) > 0 && asked && !seen[string(r.orderKey)] {
			seen[string(r.orderKey)] = true
			rows = append(rows, []any{r.orderKey})
		}
	}
	return rows, nil
}

func lettersCount(v *view, a pgx.NamedArgs) ([][]any, error) {
	n := int64(0)
	for _, r := range lettersOf(v, a) {
		if !r.follows {
			n++
		}
	}
	return [][]any{{n}}, nil
}

func lettersPark(v *view, a pgx.NamedArgs) ([][]any, error) {
	offsets, reasons := arg[[]int64](a, "offsets"), arg[[]string](a, "reasons")
	for i, in := range keysOf(a) {
		k := letterKey{in, offsets[i]}
		row := letterRow{
			topic: arg[[]string](a, "topics")[i], reason: reasons[i], eventType: arg[[]string](a, "event_types")[i],
			orderKey: arg[[][]byte](a, "order_keys")[i], key: arg[[][]byte](a, "record_keys")[i], value: arg[[][]byte](a, "values")[i],
			follows: arg[[]bool](a, "follows")[i], recordedAt: micros(arg[[]time.Time](a, "times")[i]),
		}
		switch _, taken := get(v.base.letters, v.own.letters, k); {
		case taken:
			return nil, refused("23505", "dead_letters_pkey")
		case len(row.orderKey) > 512:
			return nil, refused("23514", "dead_letters_order_key_bounded")
		case len(row.reason) < 1 || len(row.reason) > 1024:
			return nil, refused("23514", "dead_letters_reason_bounded")
		}
		v.own.letters[k] = row
	}
	return nil, nil
}

// errTwice: ON CONFLICT DO UPDATE command cannot affect row a second time.
func errTwice() error { return refused("21000", "a statement touches a row twice") }

// postsOf are the keys that parallel arrays give. A NUL byte is no text.
func postsOf(a pgx.NamedArgs) ([]domain.PostKey, error) {
	tenants, posts := arg[[]string](a, "tenants"), arg[[]string](a, "posts")
	keys := make([]domain.PostKey, len(posts))
	for i := range keys {
		if bytes.ContainsRune([]byte(tenants[i]+posts[i]), 0) {
			return nil, refused("22021", "invalid byte sequence for encoding")
		}
		keys[i] = domain.PostKey{Tenant: domain.TenantID(tenants[i]), Post: domain.PostID(posts[i])}
	}
	return keys, nil
}

func impressionsAdd(v *view, a pgx.NamedArgs) ([][]any, error) {
	keys, err := postsOf(a)
	if err != nil {
		return nil, err
	}
	shards, counts := arg[[]int16](a, "shards"), arg[[]int64](a, "impressions")
	anonymous, imported := arg[[]int64](a, "anonymous"), arg[[]int64](a, "imported")
	touched := map[countKey]bool{}
	for i, post := range keys {
		k := countKey{post, shards[i]}
		if touched[k] {
			return nil, errTwice()
		}
		touched[k] = true
		if k.shard < 0 || k.shard > 7 || counts[i] <= 0 || anonymous[i] < 0 || anonymous[i] > counts[i] {
			return nil, refused("23514", "impressions_counted")
		}
		if imported[i] < 0 || imported[i] > counts[i] {
			return nil, refused("23514", "impressions_imported_counted")
		}
		r, _ := get(v.base.impressions, v.own.impressions, k)
		v.own.impressions[k] = impressionsRow{r.impressions + counts[i], r.anonymous + anonymous[i], r.imported + imported[i]}
	}
	return nil, nil
}

func uniqueviewsAdd(v *view, a pgx.NamedArgs) ([][]any, error) {
	keys, err := postsOf(a)
	if err != nil {
		return nil, err
	}
	viewers, views, shards := arg[[][]byte](a, "viewers"), arg[[]int64](a, "views"), arg[[]int16](a, "shards")
	first, last := arg[[]time.Time](a, "first"), arg[[]time.Time](a, "last")
	touched := map[viewKey]bool{}
	for i, post := range keys {
		if len(viewers[i]) != len(domain.PersonKey{}) {
			return nil, refused("23514", "unique_views_viewer_is_person_key")
		}
		k := viewKey{post, domain.PersonKey(viewers[i])}
		if touched[k] {
			return nil, errTwice()
		}
		touched[k] = true
		add := viewRow{micros(first[i]), micros(last[i]), views[i], shards[i]}
		if add.first.After(add.last) || add.views <= 0 || add.shard < 0 || add.shard > 7 {
			return nil, refused("23514", "unique_views_viewed")
		}
		r, ok := get(v.base.views, v.own.views, k)
		if !ok {
			v.own.views[k] = add
			counted := countKey{post, add.shard}
			n, _ := get(v.base.viewers, v.own.viewers, counted)
			v.own.viewers[counted] = n + 1
			continue
		}
		if add.first.Before(r.first) {
			r.first = add.first
		}
		if add.last.After(r.last) {
			r.last = add.last
		}
		r.views += add.views
		v.own.views[k] = r
	}
	return nil, nil
}
