package relay

import (
	"time"

	"seenby/domain"
)

// doubtFor is far longer than a process needs to read of a new tenant.
const doubtFor = 30 * time.Second

// due is a post that is to be told.
type due struct {
	at      time.Time // not before; zero: at once
	round   int64     // in which it was marked first
	how     domain.Telling
	looked  bool      // found by a look at every post, and not marked
	doubted time.Time // since when its tenant is not known; zero: it is, or was not asked
	before  bool      // its partition's marks were not known: some of its counts may be from before any
}

// want makes a post due.
func (t *teller) want(post domain.PostKey) *due {
	d := t.due[post]
	if d == nil {
		d = &due{round: t.round}
		if at, ok := t.told[post]; ok {
			d.at = together(at.Add(tellEvery))
		}
		t.due[post] = d
	}
	return d
}

// together is the next moment at which posts are told that were told before. One transaction for all of a partition that came
// up in half a second costs what one for a few of them does.
func together(after time.Time) time.Time {
	at := after.Truncate(tellTogether)
	if at.Before(after) {
		at = at.Add(tellTogether)
	}
	return at
}

// toldAt is the moment from which a post that was told now waits: the one that it was due at, unless that is long ago, so that
// a post that is seen all the time is told each second and not each second and a half.
func (d *due) toldAt(now time.Time) time.Time {
	if now.Sub(d.at) < tellTogether {
		return d.at
	}
	return now
}

// mark makes a post due that was seen or imported just now.
func (t *teller) mark(post domain.PostKey) {
	d := t.want(post)
	d.looked = false
	d.before = d.before || t.markless(post)
}

// lookAt makes a post due that may have been seen before.
func (t *teller) lookAt(post domain.PostKey) {
	_, marked := t.due[post]
	d := t.want(post)
	d.looked = d.looked || !marked
	d.before = d.before || t.markless(post)
}

func (t *teller) markless(post domain.PostKey) bool {
	number := t.r.deps.PartitionOf(post)
	for part, o := range t.owned {
		if part.Partition == number {
			return o.markless
		}
	}
	return false
}

// silent tells whether nobody saw which milestones a post passes that was not told before.
func (d *due) silent(told *domain.ImpressionsChanged) bool {
	return told.Revision == 0 && (d.looked || d.before)
}

// doubt leaves a post alone whose tenant is not known: it was closed, or is so new that this process has not read of it.
func (t *teller) doubt(post domain.PostKey, now time.Time) {
	d := t.due[post]
	if d.doubted.IsZero() {
		d.doubted = now
	}
	if now.Sub(d.doubted) >= doubtFor {
		t.done(post)
		return
	}
	d.at = now.Add(tellEvery)
}

// done takes a post off.
func (t *teller) done(post domain.PostKey) {
	d := t.due[post]
	if d == nil {
		return
	}
	delete(t.due, post)
	if t.safe != nil && d.round <= t.safe.round {
		t.safe.left--
	}
}
