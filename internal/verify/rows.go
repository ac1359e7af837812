package verify

import "seenby/domain"

// State implements Rows.
func (r *run) State(s State) error {
	r.state = s
	return nil
}

// Impressions implements Rows.
func (r *run) Impressions(key domain.PostKey, shard int16, all, anonymous, imported int64) {
	_, p := r.posts.of(key)
	p.impressions.ReadModel += all
	p.anonymous.ReadModel += anonymous
	p.importedViews.ReadModel += imported
	p.spreadDigest += r.posts.hash.impressions(shard, all, anonymous, imported)
	r.read()
}

// ViewerCount implements Rows.
func (r *run) ViewerCount(key domain.PostKey, shard int16, viewers int64) {
	_, p := r.posts.of(key)
	p.viewers.ReadModel += viewers
	p.spreadDigest += r.posts.hash.viewerCount(shard, viewers)
	r.read()
}

// Viewer implements Rows.
func (r *run) Viewer(key domain.PostKey, viewer domain.PersonKey, row ViewerRow, shard int16) {
	_, p := r.posts.of(key)
	p.rows.ReadModel++
	p.rowsDigest = p.rowsDigest.plus(r.posts.hash.viewer(viewer, row, shard))
	if r.detail != nil {
		r.detail.rows[viewer] = storedRow{row, shard}
	}
	r.read()
}

// Imported implements Rows.
func (r *run) Imported(key domain.PostKey, impressions, viewers, asOf int64) {
	_, p := r.posts.of(key)
	p.importedImpressions.ReadModel, p.importedViewers.ReadModel, p.importedAsOf.ReadModel = impressions, viewers, asOf
	r.read()
}

// tellRows keeps the clock from being asked at each row.
const tellRows = 4096

func (r *run) read() {
	if r.progress.Rows++; r.progress.Rows%tellRows == 0 {
		r.tell()
	}
}

// advance notes how far a partition is read.
func (p *partition) advance(next int64) {
	if next%tellRows == 0 {
		was := p.progress.Verdicts
		p.progress.Verdicts += next
		p.tell()
		p.progress.Verdicts = was
	}
}
