package verify

import (
	"fmt"
	"time"

	"seenby/domain"
)

// Bounds of a report. Differing posts are all named; of what can be as many as the log has records, the first.
const (
	// findingsMax is far more than anybody reads, and enough to see a pattern.
	findingsMax = 1000
	// waitingMax is how many waiting views are named: the first few tell what they wait for.
	waitingMax = 10
	// viewersMax is how many viewers that differ are shown of a post.
	viewersMax = 1000
	// viewersAlikeMax is how many are shown that do not, as examples.
	viewersAlikeMax = 20
)

// Report is what a run found.
type Report struct {
	Scope Scope `json:"-"`
	// Clean: no post differs and nothing was found.
	Clean     bool             `json:"clean"`
	Positions []Positions      `json:"positions"`
	Tenants   []Tenant         `json:"tenants"`
	Posts     int64            `json:"posts"` // compared
	Differing []PostDifference `json:"differing_posts"`
	Undecided Undecided        `json:"undecided"`
	// Findings are what is wrong in the log, or between it and the positions; the first of FindingsInAll.
	Findings      []Finding   `json:"findings"`
	FindingsInAll int64       `json:"findings_in_all"`
	Notes         []string    `json:"notes"`
	Post          *PostDetail `json:"post,omitempty"` // where one was asked for
}

// Positions is where a read model stood: what it was compared up to.
type Positions struct {
	Projection string `json:"projection"`
	Partition  int32  `json:"partition"`
	NextOffset int64  `json:"next_offset"`
	ViewNext   int64  `json:"view_next_offset"`
}

// Counts are the figures of a tenant, in a partition or in all. The log's are as of the positions of impressions,
// pairs as of those of uniqueviews.
type Counts struct {
	Reported    int64                   `json:"reported"`
	Counted     int64                   `json:"counted"`
	Refused     int64                   `json:"refused"`
	Reasons     map[domain.Reason]int64 `json:"reasons,omitempty"`
	Impressions int64                   `json:"impressions"`
	UniquePairs int64                   `json:"unique_pairs"`
}

func (c *Counts) add(o *Counts) {
	c.Reported += o.Reported
	c.Counted += o.Counted
	c.Refused += o.Refused
	c.Impressions += o.Impressions
	c.UniquePairs += o.UniquePairs
	for r, n := range o.Reasons {
		c.refuse(r, n)
	}
}

func (c *Counts) refuse(r domain.Reason, n int64) {
	if c.Reasons == nil {
		c.Reasons = map[domain.Reason]int64{}
	}
	c.Reasons[r] += n
}

// Tenant is the report of a tenant; records whose key names none have one without a name.
type Tenant struct {
	Tenant     domain.TenantID `json:"tenant"`
	Partitions []Partition     `json:"partitions"`
	InAll      Counts          `json:"in_all"`
	// ReadModel is what the read models hold: sums over all posts.
	ReadModel struct {
		Impressions   int64 `json:"impressions"`
		UniqueViewers int64 `json:"unique_viewers"`
	} `json:"read_model"`
}

// Partition is a tenant's part of a partition.
type Partition struct {
	Partition int32 `json:"partition"`
	Counts
}

// Compared is a figure of a read model, and what it is by the log.
type Compared struct {
	ReadModel int64 `json:"read_model"`
	Log       int64 `json:"log"`
}

// Differs tells whether they do.
func (c Compared) Differs() bool { return c.ReadModel != c.Log }

// PostDifference is a post whose read model is not what the log says.
type PostDifference struct {
	Tenant               domain.TenantID `json:"tenant"`
	Post                 domain.PostID   `json:"post"`
	Impressions          Compared        `json:"impressions"`
	AnonymousImpressions Compared        `json:"anonymous_impressions"`
	ImportedViews        Compared        `json:"imported_views"` // of impressions, those that were imported view by view
	UniqueViewers        Compared        `json:"unique_viewers"`
	ViewerRows           Compared        `json:"viewer_rows"` // how many
	// ViewerRowsDiffer: at least one differs in its viewer, first, last, times or shard.
	ViewerRowsDiffer bool `json:"viewer_rows_differ"`
	// SpreadDiffers: the sums may be right, but they are spread over other rows than they should be.
	SpreadDiffers bool `json:"spread_differs"`

	// Imported: what the post counted elsewhere, in the read model of posts.
	ImportedImpressions   Compared `json:"imported_impressions"`
	ImportedUniqueViewers Compared `json:"imported_unique_viewers"`
	ImportedAsOfDiffers   bool     `json:"imported_as_of_differs"`
}

func (d *PostDifference) differs() bool {
	return d.Impressions.Differs() || d.AnonymousImpressions.Differs() || d.ImportedViews.Differs() || d.UniqueViewers.Differs() || d.ViewerRows.Differs() ||
		d.ViewerRowsDiffer || d.SpreadDiffers || d.ImportedImpressions.Differs() || d.ImportedUniqueViewers.Differs() || d.ImportedAsOfDiffers
}

// Undecided is what became of undecided verdicts, up to the positions.
type Undecided struct {
	Verdicts int64 `json:"verdicts"`
	Counted  int64 `json:"counted"`       // in the end, as itself or as a record of the app's own
	Refused  int64 `json:"refused"`       // in the end, for another reason
	Again    int64 `json:"judged_again"`  // undecided once more; that verdict is one of these, too
	Waiting  int64 `json:"still_waiting"` // no difference: the keeper brings them back
	// First are the first of those that wait.
	First []Waiting `json:"first_waiting,omitempty"`
	// ParkedKeys are what waiting views depend on and what has dead letters in the projection of posts.
	ParkedKeys []string `json:"parked_keys,omitempty"`
}

// Waiting is an undecided view that nothing has brought to its end.
type Waiting struct {
	Tenant     domain.TenantID  `json:"tenant"`
	Post       domain.PostID    `json:"post"`
	Viewer     domain.PersonKey `json:"viewer"`
	Partition  int32            `json:"partition"`
	ViewOffset int64            `json:"view_offset"`
	WaitsFor   []WaitsFor       `json:"waits_for"`
	Parked     bool             `json:"parked"` // something that it depends on has dead letters
}

// WaitsFor is what a view waits for, and where the projection of posts stands there.
type WaitsFor struct {
	Topic      domain.Topic `json:"topic"`
	Partition  int32        `json:"partition"`
	NextOffset int64        `json:"next_offset"`
	Stands     int64        `json:"stands"`
}

// Finding is what is wrong at one place.
type Finding struct {
	Tenant    domain.TenantID `json:"tenant,omitempty"`
	Post      domain.PostID   `json:"post,omitempty"`
	Topic     domain.Topic    `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	What      string          `json:"what"`
}

// At names the place as `seenby tail` does.
func (f Finding) At() string { return fmt.Sprintf("%s/%d@%d", f.Topic, f.Partition, f.Offset) }

// PostDetail is one post, row by row.
type PostDetail struct {
	PostDifference
	Viewers  []ViewerDetail `json:"viewers"`  // those that differ first; the first of each kind
	Alike    int64          `json:"alike"`    // viewers in all whose rows are as the log says
	NotAlike int64          `json:"differ"`   // and whose are not
	Verdicts int64          `json:"verdicts"` // about the post
}

// ViewerDetail is a viewer of a post: the row, what it should be, and the verdicts that say so.
type ViewerDetail struct {
	Viewer    domain.PersonKey `json:"viewer"`
	ReadModel *ViewerShown     `json:"read_model"` // nil: there is no row
	Log       *ViewerShown     `json:"log"`        // nil: there should be none
	Differs   bool             `json:"differs"`
	Verdicts  []VerdictShown   `json:"verdicts"`
}

// ViewerShown is a ViewerRow for people.
type ViewerShown struct {
	First time.Time `json:"first_viewed_at"`
	Last  time.Time `json:"last_viewed_at"`
	Views int64     `json:"views"`
}

// VerdictShown is a verdict in the chain of a viewer's.
type VerdictShown struct {
	Partition  int32         `json:"partition"`
	Offset     int64         `json:"offset"`
	ViewOffset int64         `json:"view_offset"`
	Time       time.Time     `json:"time"`
	ViewID     domain.ViewID `json:"view_id"`
	ViewedAt   time.Time     `json:"viewed_at"`
	Reason     domain.Reason `json:"reason,omitempty"` // none: counted
	Anonymous  bool          `json:"anonymous,omitempty"`
	Readmits   *int64        `json:"readmits,omitempty"`
	LeftOut    string        `json:"left_out,omitempty"` // why the read models do not hold it
}
