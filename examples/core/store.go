package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// post is what is known of a post.
type post struct {
	Post          string    `json:"post"`
	Impressions   int64     `json:"impressions"`
	UniqueViewers int64     `json:"unique_viewers"`
	Revision      int64     `json:"revision"` // of the call that told it; 0: a count of this system's own
	AsOf          time.Time `json:"as_of,omitzero"`
	ChangedAt     time.Time `json:"changed_at,omitzero"`
}

// milestone is a threshold that a post has passed.
type milestone struct {
	ID          string    `json:"id"`
	Post        string    `json:"post"`
	Milestone   int64     `json:"milestone"`
	Impressions int64     `json:"impressions"`
	Revision    int64     `json:"revision"`
	At          time.Time `json:"at,omitzero"`
}

// entry is what one call changes, and a line of the file.
type entry struct {
	At        time.Time  `json:"at"`
	Posts     []post     `json:"posts,omitempty"`
	Milestone *milestone `json:"milestone,omitempty"`
}

// store is what this system knows: a fold of the file's lines. A real system has a database, and does what take does in
// one transaction.
type store struct {
	mu         sync.Mutex
	file       *os.File
	broken     error // a write failed: what is in the file is known only after a restart
	posts      map[string]post
	milestones []milestone     // in the order they came
	seen       map[string]bool // their ids
}

// openStore replays the file, which is made if it is not there. The last line may be torn: a call that was never
// acknowledged, so it will come again. The warning says that one was dropped.
func openStore(name string) (s *store, warning string, err error) {
	s = &store{posts: map[string]post{}, seen: map[string]bool{}}
	if s.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(s.file)
	if err != nil {
		return nil, "", err
	}
	kept := 0
	for number := 1; kept < len(data); number++ {
		line, rest, whole := bytes.Cut(data[kept:], []byte("\n"))
		var e entry
		if err := json.Unmarshal(line, &e); err != nil || !whole {
			if len(rest) > 0 {
				return nil, "", fmt.Errorf("%s: line %d is damaged: %w", name, number, err)
			}
			warning = name + ": the last line was torn by a crash and is dropped"
			break
		}
		s.apply(e)
		kept += len(line) + 1
	}
	if err := s.file.Truncate(int64(kept)); err != nil {
		return nil, "", err
	}
	dir, err := os.Open(filepath.Dir(name)) // a new file is lost without its directory's entry
	if err != nil {
		return nil, "", err
	}
	return s, warning, errors.Join(s.file.Sync(), dir.Sync(), dir.Close())
}

func (s *store) close() { _ = s.file.Close() } // every line was synced

// take keeps what is new of a change, on disk when it returns; the rest is ignored, so a call may be repeated at will.
func (s *store) take(e entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Posts = slices.DeleteFunc(slices.Clone(e.Posts), func(p post) bool { return !s.isNew(p) })
	if e.Milestone != nil && s.seen[e.Milestone.ID] {
		e.Milestone = nil
	}
	if len(e.Posts) == 0 && e.Milestone == nil {
		return nil
	}
	if s.broken != nil {
		return s.broken
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = s.file.Write(append(line, '\n'))
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		s.broken = fmt.Errorf("nothing is kept until a restart: %w", err)
		return s.broken
	}
	s.apply(e)
	return nil
}

// isNew is the rule that makes calls safe to repeat and to reorder: of a post the highest revision counts.
func (s *store) isNew(p post) bool {
	known, ok := s.posts[p.Post]
	return !ok || p.Revision > known.Revision
}

// apply changes memory only, alike for a call and for a line of the file.
func (s *store) apply(e entry) {
	for _, p := range e.Posts {
		if s.isNew(p) { // the same post may stand twice in one call
			p.ChangedAt = e.At
			s.posts[p.Post] = p
		}
	}
	if m := e.Milestone; m != nil {
		m.At = e.At
		s.seen[m.ID] = true
		s.milestones = append(s.milestones, *m)
	}
}

// after gives posts in the order of their ids, beginning after one, and where to go on; "" is the end.
func (s *store) after(id string, limit int) (posts []post, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.posts)) {
		if key <= id {
			continue
		}
		if len(posts) == limit {
			return posts, posts[limit-1].Post
		}
		posts = append(posts, s.posts[key])
	}
	return posts, ""
}

func (s *store) find(id string) (p post, milestones []milestone, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok = s.posts[id]
	milestones = []milestone{}
	for _, m := range s.milestones {
		if m.Post == id {
			milestones = append(milestones, m)
		}
	}
	return p, milestones, ok || len(milestones) > 0
}

// view is what the page shows: the latest changes first.
type view struct {
	Posts                     []post
	Milestones                []milestone
	PostCount, MilestoneCount int
}

func (s *store) latest(limit int) view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := view{Posts: slices.Collect(maps.Values(s.posts)), Milestones: slices.Clone(s.milestones), PostCount: len(s.posts), MilestoneCount: len(s.milestones)}
	slices.SortFunc(v.Posts, func(a, b post) int { return cmp.Or(b.ChangedAt.Compare(a.ChangedAt), cmp.Compare(a.Post, b.Post)) })
	slices.Reverse(v.Milestones)
	v.Posts = v.Posts[:min(limit, len(v.Posts))]
	v.Milestones = v.Milestones[:min(limit, len(v.Milestones))]
	return v
}
