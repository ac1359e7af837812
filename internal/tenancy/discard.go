package tenancy

import (
	"fmt"
	"time"

	"seenby/domain"
)

// Discarded is a dead letter that an operator gives up.
type Discarded struct {
	Projection string
	Record     domain.Position // its NextOffset is the record's offset
	Key        []byte          // of the record
}

// CheckDiscard tells whether a discard says by whom it is, and why.
func CheckDiscard(by, reason string) error {
	if err := domain.CheckID("--by", by); err != nil {
		return err
	}
	return domain.CheckID("--reason", reason)
}

// Discard decides that dead letters are given up, for good. One that is given up already keeps its first decision and
// gives no event. A letter of an unknown tenant is the installation's: the key of a broken record says anything.
func Discard(in *domain.Installation, now time.Time, by, reason string, letters []Discarded) ([]domain.Event, error) {
	if err := CheckDiscard(by, reason); err != nil {
		return nil, err
	}
	var events []domain.Event
	for _, l := range letters {
		if _, decided := in.Discards[l.Projection][l.Record]; decided {
			continue
		}
		tenant, _, _ := domain.SplitTenant(l.Key)
		if _, err := TenantOf(in, tenant); err != nil {
			tenant = ""
		}
		events = append(events, domain.DecisionRecorded{
			Tenant: tenant, DecisionID: discardID(l), Kind: domain.DecisionDiscard, By: by, Reason: reason, DecidedAt: now,
			About: []domain.Position{l.Record}, Projection: l.Projection,
		})
	}
	return events, nil
}

// discardID is the same for the same letter, so that a repeat replaces the record instead of adding one.
func discardID(l Discarded) string {
	return fmt.Sprintf("%s/%s/%s/%d/%d", domain.DecisionDiscard, l.Projection, l.Record.TopicID, l.Record.Partition, l.Record.NextOffset)
}
