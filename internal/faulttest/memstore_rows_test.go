package faulttest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"seenby/domain"
)

// tables are the rows that memStore holds, or that a transaction has written.
type tables struct {
	positions   map[positionKey]positionRow
	letters     map[letterKey]letterRow
	impressions map[countKey]impressionsRow
	views       map[viewKey]viewRow
	viewers     map[countKey]int64
}

type positionKey struct {
	projection string
	version    int
	topicID    [16]byte
	partition  int32
}

type positionRow struct {
	topic          string
	next, viewNext int64
	epoch          int32
	completeTo     time.Time
}

type letterKey struct {
	positionKey
	offset int64
}

type letterRow struct {
	topic, reason, eventType string
	orderKey, key, value     []byte
	follows                  bool
	recordedAt               time.Time
}

type countKey struct {
	post  domain.PostKey
	shard int16
}

type impressionsRow struct{ impressions, anonymous, imported int64 }

type viewKey struct {
	post   domain.PostKey
	viewer domain.PersonKey
}

type viewRow struct {
	first, last time.Time
	views       int64
	shard       int16
}

func newTables() tables {
	return tables{
		positions: map[positionKey]positionRow{}, letters: map[letterKey]letterRow{}, impressions: map[countKey]impressionsRow{},
		views: map[viewKey]viewRow{}, viewers: map[countKey]int64{},
	}
}

// take puts rows over those that are there.
func (t *tables) take(own tables) {
	maps.Copy(t.positions, own.positions)
	maps.Copy(t.letters, own.letters)
	maps.Copy(t.impressions, own.impressions)
	maps.Copy(t.views, own.views)
	maps.Copy(t.viewers, own.viewers)
}

// view is what a statement sees: what is committed, under what its own transaction wrote.
type view struct{ base, own *tables }

func get[K comparable, V any](base, own map[K]V, k K) (V, bool) {
	if v, ok := own[k]; ok {
		return v, true
	}
	v, ok := base[k]
	return v, ok
}

// all gives every row that the predicate takes.
func all[K comparable, V any](base, own map[K]V, takes func(K, V) bool) map[K]V {
	out := map[K]V{}
	for _, m := range []map[K]V{base, own} {
		for k, v := range m {
			if takes(k, v) {
				out[k] = v
			}
		}
	}
	return out
}

// sortedPositions are the positions of a version in the order of the table's readers.
func (v *view) sortedPositions(projection string, version int) []positionKey {
	found := all(v.base.positions, v.own.positions, func(k positionKey, _ positionRow) bool {
		return k.projection == projection && k.version == version
	})
	return slices.SortedFunc(maps.Keys(found), func(a, b positionKey) int {
		return cmp.Or(cmp.Compare(found[a].topic, found[b].topic), bytes.Compare(a.topicID[:], b.topicID[:]), cmp.Compare(a.partition, b.partition))
	})
}

// dump is a projection's rows as projectiontest.Database.Dump writes them.
func (s *memStore) dump(projection string, tablesOf []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out strings.Builder
	for _, table := range append(slices.Clone(tablesOf), "dead_letters", "positions") {
		var lines []string
		add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
		switch table {
		case "impressions":
			for k, r := range s.rows.impressions {
				add("tenant=%q post=%q shard=%d impressions=%d anonymous_impressions=%d imported_impressions=%d",
					k.post.Tenant, k.post.Post, k.shard, r.impressions, r.anonymous, r.imported)
			}
		case "unique_views":
			for k, r := range s.rows.views {
				add("tenant=%q post=%q viewer=%s first_viewed_at=%s last_viewed_at=%s views=%d shard=%d",
					k.post.Tenant, k.post.Post, shown(k.viewer[:]), instant(r.first), instant(r.last), r.views, r.shard)
			}
		case "unique_view_counts":
			for k, n := range s.rows.viewers {
				add("tenant=%q post=%q shard=%d unique_viewers=%d", k.post.Tenant, k.post.Post, k.shard, n)
			}
		case "dead_letters":
			for k, r := range s.rows.letters {
				if k.projection == projection {
					value := "-"
					if r.value != nil {
						value = shown(r.value)
					}
					add("version=%d partition=%d record_offset=%d topic=%q order_key=%s reason=%q follows=%v event_type=%q record_key=%s record_value=%s recorded_at=%s",
						k.version, k.partition, k.offset, r.topic, shown(r.orderKey), r.reason, r.follows, r.eventType, shown(r.key), value, instant(r.recordedAt))
				}
			}
		case "positions":
			for k, r := range s.rows.positions {
				if k.projection == projection {
					add("version=%d partition=%d topic=%q next_offset=%d view_next_offset=%d complete_to=%s leader_epoch=%d",
						k.version, k.partition, r.topic, r.next, r.viewNext, instant(r.completeTo), r.epoch)
				}
			}
		default:
			add("memStore has no table %s", table)
		}
		slices.Sort(lines)
		fmt.Fprintf(&out, "%s\n", table)
		for _, line := range lines {
			fmt.Fprintf(&out, "  %s\n", line)
		}
	}
	return out.String()
}

func shown(b []byte) string { return fmt.Sprintf("%q", strings.TrimRight(string(b), "\x00")) }

func instant(t time.Time) string {
	if t.Unix() == 0 {
		return "-"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// memRows are rows as pgx gives them.
type memRows struct {
	rows   [][]any
	err    error
	at     int
	single bool
}

var errScan = errors.New("memStore: cannot scan")

func (r *memRows) Close()                                       {}
func (r *memRows) Err() error                                   { return r.err }
func (r *memRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (r *memRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (r *memRows) RawValues() [][]byte                          { return nil }
func (r *memRows) Conn() *pgx.Conn                              { return nil }
func (r *memRows) TypeMap() *pgtype.Map                         { return nil }

func (r *memRows) Next() bool {
	if r.err != nil || r.at >= len(r.rows) {
		return false
	}
	r.at++
	return true
}

func (r *memRows) Values() ([]any, error) { return r.rows[r.at-1], nil }

func (r *memRows) Scan(into ...any) error {
	if r.single && !r.Next() {
		if r.err != nil {
			return r.err
		}
		return pgx.ErrNoRows
	}
	row := r.rows[r.at-1]
	if len(row) != len(into) {
		r.err = fmt.Errorf("%w %d columns into %d", errScan, len(row), len(into))
		return r.err
	}
	for i, to := range into {
		if to == nil {
			continue // as pgx passes over a column that nobody wants
		}
		value, target := reflect.ValueOf(row[i]), reflect.ValueOf(to).Elem()
		if !value.CanConvert(target.Type()) {
			r.err = fmt.Errorf("%w a %T into a %T", errScan, row[i], to)
			return r.err
		}
		target.Set(value.Convert(target.Type()))
	}
	return nil
}
