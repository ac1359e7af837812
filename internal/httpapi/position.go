package httpapi

import (
	"context"
	"strconv"
	"strings"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/projections"
)

// Headers of the contract.
const (
	headerPosition = "Seenby-Position"
	headerWaitFor  = "Seenby-Wait-For"
	headerPrefer   = "Prefer"
)

// Names of the projections, as they stand in the positions.
const (
	projectionPosts       = "posts"
	projectionImpressions = "impressions"
	projectionUniqueViews = "uniqueviews"
	projectionPeople      = "people"
	projectionTimeSeries  = "timeseries"
)

// reads says which projections a route reads, by the topic of a position: an answer that presents the position
// waits for all of them.
type reads map[domain.Topic][]string

var (
	readsOfPost = reads{
		domain.TopicPosts:     {projectionPosts},
		domain.TopicBodies:    {projectionPosts},
		domain.TopicAudiences: {projectionPosts},
		domain.TopicPeople:    {projectionPeople},
		domain.TopicViews:     {projectionImpressions, projectionUniqueViews},
	}
	readsOfCounts = reads{
		domain.TopicPosts: {projectionPosts}, // imported counts
		domain.TopicViews: {projectionImpressions, projectionUniqueViews},
	}
	readsOfViewers = reads{
		domain.TopicPosts:  {projectionPosts},
		domain.TopicPeople: {projectionPeople},
		domain.TopicViews:  {projectionUniqueViews},
	}
	readsOfErasure = reads{domain.TopicPeople: {projectionPeople}}
)

// await waits as the request's headers ask, before a GET reads.
func (s *server) await(ctx context.Context, tenant tenancy.TenantHandle, in WaitParams, route reads) error {
	wait, err := parsePrefer(in.Prefer)
	if err != nil {
		return err
	}
	if in.WaitFor == "" {
		return nil
	}
	tokens := strings.Split(in.WaitFor, ",")
	if len(tokens) > waitTokensMax {
		return domain.Invalid(headerWaitFor, "holds more than %d tokens", waitTokensMax)
	}
	var asked []domain.Position
	for _, token := range tokens {
		positions, err := tenancy.OpenPositions(tenant.Key, strings.TrimSpace(token))
		if err != nil {
			return domain.Invalid(headerWaitFor, "is not a token that a write of this tenant answered with")
		}
		asked = append(asked, positions...)
	}
	if s.madeAnew(asked) {
		return errTopicMadeAnew
	}
	passed := route.passed(asked)
	if ok, _ := passed(nil); ok {
		return nil // nothing that this route reads was written
	}
	ctx, cancel := context.WithTimeout(ctx, max(wait, waitLeast))
	defer cancel()
	return s.waits.until(ctx, passed)
}

var errTopicMadeAnew = domain.Invalid(headerWaitFor, "is from a log that is gone: a topic was made anew since; drop the token")

// madeAnew tells whether a position lies in a topic that is gone. It asks once a topic: asking may take a while.
func (s *server) madeAnew(asked []domain.Position) bool {
	if s.deps.TopicID == nil {
		return false
	}
	type answer struct {
		id    domain.TopicID
		known bool
	}
	answers := map[domain.Topic]answer{}
	for _, p := range asked {
		now, told := answers[p.Topic]
		if !told {
			now.id, now.known = s.deps.TopicID(p.Topic)
			answers[p.Topic] = now
		}
		if now.known && now.id != p.TopicID {
			return true
		}
	}
	return false
}

// passed tells whether the projections that the route reads have passed all positions asked.
func (r reads) passed(asked []domain.Position) func(map[string][]projections.PositionRow) (bool, error) {
	return func(rows map[string][]projections.PositionRow) (bool, error) {
		for _, p := range asked {
			for _, projection := range r[p.Topic] {
				reached, err := reachedBy(rows[projection], p)
				if err != nil || reached < p.NextOffset {
					return false, err
				}
			}
		}
		return true, nil
	}
}

// reachedBy is how far a projection's rows have come in the partition of p. The projections of verdicts say
// beside their own position how far the verdicts have come in the views partition of the same number.
func reachedBy(rows []projections.PositionRow, p domain.Position) (int64, error) {
	for _, row := range rows {
		switch {
		case row.Partition != p.Partition:
		case p.Topic == domain.TopicViews && row.Topic == domain.TopicVerdicts:
			return row.ViewNextOffset, nil
		case row.Topic != p.Topic:
		case row.TopicID != p.TopicID:
			return 0, errTopicMadeAnew
		default:
			return row.NextOffset, nil
		}
	}
	return 0, nil // nothing of the partition was projected yet
}

// parsePrefer reads the wait of a Prefer header (RFC 7240); other preferences are not ours.
func parsePrefer(header string) (time.Duration, error) {
	if header == "" {
		return waitDefault, nil
	}
	for pref := range strings.SplitSeq(header, ",") {
		pref, _, _ = strings.Cut(pref, ";")
		name, value, _ := strings.Cut(pref, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 16)
		if err != nil || time.Duration(n)*time.Second > waitMax {
			return 0, domain.Invalid(headerPrefer, "wait must be a whole number of seconds, 0 to %d", int(waitMax.Seconds()))
		}
		return time.Duration(n) * time.Second, nil
	}
	return waitDefault, nil
}
