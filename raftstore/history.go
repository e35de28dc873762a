package raftstore

import (
	"slices"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Since lists the commits of a tree above a revision, oldest first. It returns
// false where the history no longer reaches back that far: compare manifests.
func (m *Machine) Since(tree string, after manifest.Revision) ([]manifest.Commit, bool) {
	m.mu.Lock()
	history, ok := m.since(after)
	m.mu.Unlock()
	var commits []manifest.Commit
	for _, c := range history {
		if c.Tree == tree {
			commits = append(commits, c)
		}
	}
	return commits, ok
}

// since returns the commits above a revision. The slice is shared: history is
// only ever appended to or replaced.
func (s *state) since(after manifest.Revision) ([]manifest.Commit, bool) {
	if after >= s.revision {
		return nil, true
	}
	if after+1 < s.below {
		return nil, false
	}
	return s.history[after+1-s.below:], true
}

// History lists at most limit commits (0: all) of a tree ("": of all trees),
// newest first, from a revision downwards; from 0 is the newest.
func (m *Machine) History(tree string, from manifest.Revision, limit int) []manifest.Commit {
	m.mu.Lock()
	history, below, newest := m.history, m.below, m.revision
	m.mu.Unlock()
	if from == 0 || from > newest {
		from = newest
	}
	if from < below {
		return nil
	}
	var commits []manifest.Commit
	for _, c := range slices.Backward(history[:from+1-below]) {
		if limit > 0 && len(commits) >= limit {
			break
		}
		if tree == "" || c.Tree == tree {
			commits = append(commits, c)
		}
	}
	return commits
}

// Oldest returns the oldest revision that the history holds; it is above
// Revision where the history is empty.
func (m *Machine) Oldest() manifest.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.below
}

// commit appends the next revision.
func (s *state) commit(c manifest.Commit) {
	s.revision = c.Revision
	s.history = append(s.history, c)
}

// trimHistory forgets the commits below a revision. The rest moves to a new
// slice: readers may hold the old one.
func (s *state) trimHistory(t *pb.TrimHistory) *pb.Outcome {
	below := min(manifest.Revision(t.GetBelow()), s.revision+1)
	if below <= s.below {
		return done()
	}
	s.history = slices.Clone(s.history[below-s.below:])
	s.below = below
	return done()
}
