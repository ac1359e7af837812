package verify

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// Log reads topics.
type Log interface {
	// Starts and Ends are the first offsets that a topic's partitions still hold, and their high watermarks, one per
	// partition in their order.
	Starts(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
	Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
	// ReadRange hands out the committed records of a partition from a position to the offset until, in order, by one
	// goroutine. The records are apply's own. It ends with apply's error or its own.
	ReadRange(ctx context.Context, from domain.Position, until int64, apply func([]domain.Record) error) error
}

// ReadModels are what readers see.
type ReadModels interface {
	// Read gives, of one snapshot, the state and then all rows of the scope, in any order.
	Read(ctx context.Context, s Scope, to Rows) error
}

// Rows takes what ReadModels reads. An error of State ends the reading.
type Rows interface {
	State(State) error
	// Impressions is a row of the table impressions.
	Impressions(post domain.PostKey, shard int16, all, anonymous, imported int64)
	// ViewerCount is a row of the table unique_view_counts.
	ViewerCount(post domain.PostKey, shard int16, viewers int64)
	// Viewer is a row of the table unique_views.
	Viewer(post domain.PostKey, viewer domain.PersonKey, row ViewerRow, shard int16)
	// Imported is what a row of the table posts holds of counts from elsewhere; as_of in microseconds since the epoch.
	Imported(post domain.PostKey, impressions, viewers, asOf int64)
}

// State is what the read models say of themselves.
type State struct {
	// Positions of the live versions, by projection.
	Positions map[string][]projections.PositionRow
	// Parked are the records of verdicts, and of the topic posts, that are dead letters of the live versions, by projection.
	Parked map[string][]Place
	// ParkedKeys are the order keys of the dead letters of the projection of posts.
	ParkedKeys [][]byte
}

// Place is where a record stands.
type Place struct {
	Partition domain.Partition
	Offset    int64
}

// Operators tells what operators wrote on the topic tenants.
type Operators interface {
	Read(ctx context.Context) (Decisions, error)
}

// Decisions are what operators decided.
type Decisions struct {
	// DuplicateWindows of every revision of every tenant's limits.
	DuplicateWindows map[domain.TenantID]map[int64]time.Duration
	// Discarded are dead letters that were given up, by projection: no read model holds them, nor ever will.
	Discarded map[string][]Place
}

// ViewerRow is what a read model holds of a viewer of a post. Times are in microseconds since the epoch, as
// PostgreSQL keeps them.
type ViewerRow struct {
	First, Last int64
	Views       int64
}

// Scope narrows a run. Empty: everything.
type Scope struct {
	Tenant domain.TenantID
	Post   domain.PostID // only with Tenant; then the report has details
}

func (s Scope) tenant(t domain.TenantID) bool { return s.Tenant == "" || s.Tenant == t }

func (s Scope) covers(t domain.TenantID, post domain.PostID) bool {
	return s.tenant(t) && (s.Post == "" || s.Post == post)
}

// Progress is how far a run is.
type Progress struct {
	Rows     int64 // of the read models, read
	Verdicts int64 // read
	Of       int64 // verdicts to read, give or take control records; 0 while rows are read
}

// Deps are the parts that a run is joined with.
type Deps struct {
	Log        Log
	ReadModels ReadModels
	Operators  Operators
	Progress   func(Progress) // by one goroutine, some times a second; nil: nobody asks
}
