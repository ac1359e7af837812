package httpapi

import (
	"time"

	"seenby/domain"
)

// Post is a post as it is answered. A null author is a person whose name the read models do not have: it has not
// reached them yet, or the person was erased.
type Post struct {
	_             struct{}   `json:"-" additionalProperties:"true"`
	ID            string     `json:"id"`
	Author        *string    `json:"author" doc:"The app's own id of the author; null while the name has not reached the read models, or once it was erased."`
	Audience      string     `json:"audience" example:"everyone"`
	Body          string     `json:"body,omitempty" doc:"Absent where there is none, and for a moment while the text of a new version has not reached the read models; its writer's Seenby-Position waits for it."`
	PublishedAt   time.Time  `json:"published_at"`
	CreatedAt     time.Time  `json:"created_at"`
	UpdatedAt     time.Time  `json:"updated_at"`
	Version       int64      `json:"version" minimum:"1" doc:"Raised by every change; the ETag."`
	Impressions   int64      `json:"impressions" minimum:"0" doc:"All counted views, and those that were imported as a count."`
	UniqueViewers int64      `json:"unique_viewers" minimum:"0" doc:"Known people who saw it, and those that were imported as a count: who is among both is in it twice."`
	AsOf          *time.Time `json:"as_of" doc:"Every view accepted before it is included; null until the first views are projected."`

	AnonymousImpressions int64 `json:"anonymous_impressions" minimum:"0" doc:"Those of the counted impressions whose viewer was anonymous."`
	CountParts
}

// CountParts are what the counts of a post are the sum of. Both are absent where no counts were imported.
type CountParts struct {
	Counted  *CountedPart  `json:"counted,omitempty" doc:"The part of the sums that was counted here. Absent where no counts were imported: then it is all."`
	Imported *ImportedPart `json:"imported,omitempty" doc:"The part that was counted elsewhere."`
}

// CountedPart is what Seenby counted of a post, view by view.
type CountedPart struct {
	_             struct{} `json:"-" additionalProperties:"true"`
	Impressions   int64    `json:"impressions" minimum:"0"`
	UniqueViewers int64    `json:"unique_viewers" minimum:"0"`
}

// ImportedPart is what a post counted elsewhere.
type ImportedPart struct {
	_             struct{}  `json:"-" additionalProperties:"true"`
	Impressions   int64     `json:"impressions" minimum:"0"`
	UniqueViewers int64     `json:"unique_viewers" minimum:"0"`
	AsOf          time.Time `json:"as_of" doc:"When it was so, as the import says."`
}

// partsOf are the parts of a post's sums.
func partsOf(impressions, viewers int64, b domain.Baseline) CountParts {
	if b.AsOf.IsZero() {
		return CountParts{}
	}
	return CountParts{
		Counted:  &CountedPart{Impressions: impressions, UniqueViewers: viewers},
		Imported: &ImportedPart{Impressions: b.Impressions, UniqueViewers: b.UniqueViewers, AsOf: b.AsOf.UTC()},
	}
}

// Counts is the answer of GET /v1/counts.
type Counts struct {
	_      struct{}    `json:"-" additionalProperties:"true"`
	Counts []PostCount `json:"counts" nullable:"false" doc:"In the order asked, repeats once."`
	AsOf   *time.Time  `json:"as_of"`
}

// PostCount is zero for a post that nobody saw, and so for one that does not exist.
type PostCount struct {
	_             struct{} `json:"-" additionalProperties:"true"`
	Post          string   `json:"post"`
	Impressions   int64    `json:"impressions" minimum:"0" doc:"All counted views, and those that were imported as a count."`
	UniqueViewers int64    `json:"unique_viewers" minimum:"0" doc:"Known people who saw it, and those that were imported as a count."`

	AnonymousImpressions int64 `json:"anonymous_impressions" minimum:"0"`
	CountParts
}

// Viewers is one page of a post's viewers.
type Viewers struct {
	_          struct{}     `json:"-" additionalProperties:"true"`
	Viewers    []PostViewer `json:"viewers" nullable:"false" doc:"By first_viewed_at, newest first."`
	NextCursor string       `json:"next_cursor,omitempty" doc:"Absent on the last page."`
	AsOf       *time.Time   `json:"as_of"`
}

// PostViewer is one known person who saw the post.
type PostViewer struct {
	_             struct{}  `json:"-" additionalProperties:"true"`
	Viewer        *string   `json:"viewer" doc:"The app's own id; null while the name has not reached the read models, or once it was erased."`
	FirstViewedAt time.Time `json:"first_viewed_at"`
	LastViewedAt  time.Time `json:"last_viewed_at"`
	Views         int64     `json:"views" minimum:"1"`
}
