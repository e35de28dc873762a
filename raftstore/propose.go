package raftstore

import (
	"slices"
	"unicode/utf8"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// maxMessage bounds a changeset's message, in bytes.
const maxMessage = 4096

// propose applies a changeset, or one part of it. Every proposal of a member
// under a proper id ends in an outcome that is remembered, so that a retry
// changes nothing.
func (s *state) propose(c *pb.Changeset) *pb.Outcome {
	id := proto.ToID(c.GetId())
	if _, ok := s.members[id.Node]; !ok {
		return refuse(CodeNotMember, "node %q is not, or no longer, a member of this cluster", id.Node)
	}
	if id.Seq == 0 {
		return refuse(CodeMalformed, "a changeset needs a sequence")
	}
	if o := s.remembered(id.Node, id.Seq); o != nil {
		return o
	}
	o := wellFormed(c)
	if o == nil {
		var whole *pb.Changeset
		if whole, o = s.gather(id, c); whole == nil {
			return o
		}
		o = s.decide(id, whole)
	}
	s.remember(id.Node, id.Seq, o)
	return o
}

// decide applies a whole changeset that is new.
func (s *state) decide(id manifest.ChangesetID, c *pb.Changeset) *pb.Outcome {
	t, ok := s.trees[c.GetTree()]
	if !ok {
		return refuse(CodeUnknownTree, "the cluster has no tree %q; see gatesync status for its trees", c.GetTree())
	}
	changes, refused := parse(c.GetChanges())
	if o := s.receiptsSuffice(changes, c.GetReceipts()); o != nil {
		return o
	}
	atomic := manifest.Mode(c.GetMode()) == manifest.Atomic
	w := work{nodes: t.nodes, revision: s.revision + 1, author: id.Node, refused: refused}
	if atomic {
		w.nodes = t.nodes.Clone()
	}
	w.all(changes)
	if atomic && len(w.refused) > 0 {
		return &pb.Outcome{Result: proto.FromResult(manifest.Result{Refused: abort(t.nodes, changes, w.refused), AsOf: s.revision})}
	}
	result := manifest.Result{Refused: w.refused}
	if len(w.committed) > 0 {
		result.Revision = w.revision
		t.nodes, t.shared = w.nodes, nil
		s.commit(s.worded(manifest.Commit{
			Revision: w.revision, ID: id, Tree: c.GetTree(), Origin: originOf(c), Time: c.GetTimeNs(),
			Message: c.GetMessage(), Changes: w.committed,
		}))
	}
	result.AsOf = s.revision
	return &pb.Outcome{Result: proto.FromResult(result)}
}

// wellFormed refuses what no path could make good, and text that no snapshot
// could hold.
func wellFormed(c *pb.Changeset) *pb.Outcome {
	switch {
	case c.GetMode() > uint32(manifest.Atomic):
		return refuse(CodeMalformed, "changeset of unknown mode %d", c.GetMode())
	case c.GetOrigin().GetKind() > 0xff || !validText(c.GetOrigin().GetId()):
		return refuse(CodeMalformed, "changeset of a malformed origin")
	case !validText(c.GetTree()) || slices.ContainsFunc(c.GetReceipts(), func(r *pb.Receipt) bool {
		return !validText(r.GetNode()) || !validText(r.GetStore())
	}):
		return refuse(CodeMalformed, "changeset with a malformed tree or receipt")
	case len(c.GetMessage()) > maxMessage || !utf8.ValidString(c.GetMessage()):
		return refuse(CodeMalformed, "a message has at most %d bytes of UTF-8", maxMessage)
	}
	return nil
}

func originOf(c *pb.Changeset) manifest.Origin {
	return manifest.Origin{Kind: manifest.OriginKind(c.GetOrigin().GetKind()), ID: c.GetOrigin().GetId()}
}

// parse validates path by path and returns the changes in the order in which
// they apply: deletions first, deepest first, then puts from the top down. What
// is malformed, or names a path a second time, is refused by itself.
func parse(in []*pb.Change) (changes []manifest.Change, refused []manifest.Refusal) {
	seen := make(map[manifest.Path]bool, len(in))
	for _, c := range in {
		path, err := manifest.ParsePath(string(c.GetPath()))
		if err != nil || seen[path] {
			refused = append(refused, manifest.Refusal{Path: manifest.Path(c.GetPath()), Reason: manifest.Malformed})
			continue
		}
		seen[path] = true
		entry, err := proto.ToEntry(c.GetNew())
		if err == nil {
			err = entry.ValidateAt(path)
		}
		if err != nil {
			refused = append(refused, manifest.Refusal{Path: path, Reason: manifest.Malformed})
			continue
		}
		changes = append(changes, manifest.Change{Path: path, Expect: manifest.Revision(c.GetExpect()), New: entry})
	}
	slices.SortFunc(changes, func(a, b manifest.Change) int {
		switch {
		case a.New.Absent() && b.New.Absent():
			return manifest.Compare(b.Path, a.Path)
		case a.New.Absent():
			return -1
		case b.New.Absent():
			return 1
		}
		return manifest.Compare(a.Path, b.Path)
	})
	return changes, refused
}

// receiptsSuffice returns nil where a majority of the voters hold the content
// of the changes, each in the store that the log knows it by.
func (s *state) receiptsSuffice(changes []manifest.Change, receipts []*pb.Receipt) *pb.Outcome {
	if !slices.ContainsFunc(changes, func(c manifest.Change) bool { return c.New.HasContent() }) {
		return nil
	}
	holders := make(map[string]bool)
	for _, r := range receipts {
		store := s.members[r.GetNode()].GetStore()
		if _, voter := slices.BinarySearch(s.voters, r.GetNode()); voter && store != "" && r.GetStore() == store {
			holders[r.GetNode()] = true
		}
	}
	if need := Majority(len(s.voters)); len(holders) < need {
		return refuse(CodeReceipts, "the content is on the disks of %d voters, %d of %d are needed; spread it and propose again",
			len(holders), need, len(s.voters))
	}
	return nil
}

// work is a changeset under way.
type work struct {
	nodes     *manifest.Manifest // written
	revision  manifest.Revision  // that the changeset makes
	author    string
	committed []manifest.Committed
	refused   []manifest.Refusal
}

func (w *work) all(changes []manifest.Change) {
	for _, c := range changes {
		w.one(c)
	}
}

// one applies one change against the state that the changes before it left.
func (w *work) one(c manifest.Change) {
	now, there := w.nodes.Get(c.Path)
	if inForce(now, c) {
		return
	}
	if reason := w.refusal(now, there, c); reason != 0 {
		w.refused = append(w.refused, manifest.Refusal{Path: c.Path, Reason: reason, Current: now.Revision})
		return
	}
	if c.New.Absent() {
		w.nodes.Delete(c.Path)
	} else {
		w.nodes.Set(c.Path, manifest.Node{Entry: c.New, Revision: w.revision, Author: w.author})
	}
	w.committed = append(w.committed, manifest.Committed{Path: c.Path, Old: now, New: c.New})
}

// inForce tells whether the path already is what the change makes it. Such a
// change is accepted whatever it expects: it is a retry, or two nodes saw one
// write.
func inForce(now manifest.Node, c manifest.Change) bool { return now.Entry.Same(c.New) }

// refusal returns why the change cannot be, 0 where it can.
func (w *work) refusal(now manifest.Node, there bool, c manifest.Change) manifest.Reason {
	switch parent := c.Path.Dir(); {
	case now.Revision != c.Expect:
		return manifest.Conflict
	case parent != "" && !w.nodes.Entry(parent).IsDir():
		return manifest.NoParent
	case there && now.Entry.IsDir() && !c.New.IsDir() && w.nodes.HasChildren(c.Path):
		return manifest.NotEmpty
	}
	return 0
}

// abort refuses the other changes of an atomic changeset along with those that
// were refused by themselves. What is in force anyway is not refused.
func abort(nodes *manifest.Manifest, changes []manifest.Change, refused []manifest.Refusal) []manifest.Refusal {
	own := make(map[manifest.Path]bool, len(refused))
	for _, r := range refused {
		own[r.Path] = true
	}
	for _, c := range changes {
		now, _ := nodes.Get(c.Path)
		if !own[c.Path] && !inForce(now, c) {
			refused = append(refused, manifest.Refusal{Path: c.Path, Reason: manifest.Aborted, Current: now.Revision})
		}
	}
	return refused
}
