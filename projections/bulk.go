package projections

import (
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// BulkLoader is a Projection over verdicts whose fold is commutative, so that a rebuild need not go through its Apply: it
// folds the whole log in bounded memory and copies sorted rows into empty tables.
//
// The unit is a shard: one load takes all partitions p with Shard(p) == shard. Rows that are keyed by shard are then
// final, and so are those of one viewer, whose verdicts stand in one partition. The rows of all shards together are what
// Apply leaves of the same records.
type BulkLoader interface {
	Projection
	// BulkLoad begins the load of a shard. The caller closes it.
	BulkLoad(shard int16, room BulkRoom) (BulkLoad, error)
}

// BulkRoom is what one load may use.
type BulkRoom struct {
	// MemoryBytes bounds all that the load holds: rows, names, and the buffers for sorting, merging and copying. It is
	// outside of Go's heap, is taken as it is needed, and is all given back by Close. At least bulk.MemoryBytesMin.
	MemoryBytes int64
	// Dir is where sorted runs of rows go that the memory cannot hold, in files without a name; empty: the system's
	// directory for temporary files.
	Dir string
}

// BulkLoad is one load. Its functions are for one goroutine at a time, Rows may be read by another one.
type BulkLoad interface {
	// Add folds records of the shard's partitions, in any order, and keeps none of them. The caller has left out what Cut
	// leaves out (repeats), what Check refuses and what is parked or discarded. After an error nothing but Close is of use.
	Add(records []domain.Record) error
	// Copy hands out the tables one after the other, in the order of Tables, each with all rows of the shard. f reads Rows to
	// its end, which pgconn's CopyFrom does, before it returns. After an error Copy may be called again: it begins anew.
	// Nothing may be added after it.
	Copy(f func(BulkTable) error) error
	// Spilled tells how many runs the memory could not hold, and their size.
	Spilled() (runs int, bytes int64)
	// Close gives memory and files back. Rows that are still read then fail.
	Close() error
}

// BulkTable is a shard's part of a table.
type BulkTable struct {
	Name    string
	Columns []string
	Rows    io.Reader // PostgreSQL's binary COPY format, sorted by the table's key
}

// CopySQL is the statement that fills a version's table with Rows.
func (t BulkTable) CopySQL(of ReadModel) string {
	columns := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		columns[i] = pgx.Identifier{c}.Sanitize()
	}
	return fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT binary)", pgx.Identifier{of.Schema(), t.Name}.Sanitize(), strings.Join(columns, ", "))
}

// OtherShard says that a load was given a record that is not its own.
func OtherShard(r *domain.Record, shard int16) error {
	return domain.Errorf(domain.CodeInternal, "%s is no part of shard %d", At(*r), shard)
}
