package verify

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"seenby/domain"
)

// detail gathers one post, row by row. A viewer's verdicts are all in one partition, so that partition by partition
// what agrees can be dropped.
type detail struct {
	rows  map[domain.PersonKey]storedRow // of the read model, not met in the log yet
	out   PostDetail
	alike []ViewerDetail
}

type storedRow struct {
	ViewerRow
	shard int16
}

// show adds a verdict about the post to its viewer's chain.
func (p *partition) show(r *domain.Record, v *domain.Verdict) {
	shown := VerdictShown{
		Partition: p.n, Offset: r.Offset, ViewOffset: v.ViewOffset, Time: r.Time, ViewID: v.ViewID, ViewedAt: v.ViewedAt,
		Reason: v.Reason, Anonymous: v.Anonymous, Readmits: v.Readmits,
	}
	if v.Counted() {
		switch {
		case p.pairs.leftOut[r.Offset] != "":
			shown.LeftOut = p.pairs.leftOut[r.Offset] + " by uniqueviews"
		case p.impressions.leftOut[r.Offset] != "":
			shown.LeftOut = p.impressions.leftOut[r.Offset] + " by impressions"
		case r.Offset >= p.pairs.at.NextOffset:
			shown.LeftOut = "after the position of uniqueviews"
		case r.Offset >= p.impressions.at.NextOffset:
			shown.LeftOut = "after the position of impressions"
		}
	}
	p.detail[v.Viewer.Person] = append(p.detail[v.Viewer.Person], shown)
	p.run.detail.out.Verdicts++
}

// endDetail compares the viewers of the partition.
func (p *partition) endDetail() {
	d := p.run.detail
	if d == nil {
		return
	}
	i, known := p.posts.index[domain.PostKey{Tenant: p.scope.Tenant, Post: p.scope.Post}]
	for _, viewer := range slices.SortedFunc(maps.Keys(p.detail), comparePersons) {
		shown := ViewerDetail{Viewer: viewer, Verdicts: p.detail[viewer]}
		row, should := p.run.pairs[pairKey{i, viewer}]
		should = should && known
		want := storedRow{row.row(), p.shard}
		have, is := d.rows[viewer]
		if should {
			shown.Log = want.shown()
		}
		if is {
			shown.ReadModel = have.shown()
		}
		shown.Differs = should != is || should && have != want
		d.add(shown)
		delete(d.rows, viewer)
	}
}

// end names the rows that no verdict speaks of.
func (d *detail) end(difference PostDifference) *PostDetail {
	for _, viewer := range slices.SortedFunc(maps.Keys(d.rows), comparePersons) {
		d.add(ViewerDetail{Viewer: viewer, ReadModel: d.rows[viewer].shown(), Differs: true, Verdicts: []VerdictShown{}})
	}
	d.out.PostDifference = difference
	d.out.Viewers = append(d.out.Viewers, d.alike...)
	return &d.out
}

func (d *detail) add(v ViewerDetail) {
	if v.Differs {
		if d.out.NotAlike++; d.out.NotAlike <= viewersMax {
			d.out.Viewers = append(d.out.Viewers, v)
		}
		return
	}
	if d.out.Alike++; d.out.Alike <= viewersAlikeMax {
		d.alike = append(d.alike, v)
	}
}

func (r ViewerRow) shown() *ViewerShown {
	return &ViewerShown{First: time.UnixMicro(r.First).UTC(), Last: time.UnixMicro(r.Last).UTC(), Views: r.Views}
}

func comparePersons(a, b domain.PersonKey) int { return bytes.Compare(a[:], b[:]) }

func cmpString[T ~string](a, b T) int { return cmp.Compare(a, b) }
