package raftstore

import (
	"cmp"
	"slices"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// maxTrees bounds the trees of a cluster.
const maxTrees = 1024

// TreeInfo names a tree.
type TreeInfo struct {
	Name       string
	ID         string
	Generation uint64 // of the marker in its roots; an older marker is a joiner's
}

// tree is one tree's committed manifest.
type tree struct {
	info  *pb.PutTree
	nodes *manifest.Manifest
	// shared is a clone of nodes that was handed out since the last write, so
	// that many readers of one revision share one clone.
	shared *manifest.Manifest
	places places
}

// share returns an immutable copy of the manifest. The machine's lock is held:
// a clone must not be made while the original is written.
func (t *tree) share() *manifest.Manifest {
	if t.shared == nil {
		t.shared = t.nodes.Clone()
	}
	return t.shared
}

// View returns a tree as committed; false where the cluster has no such tree.
func (m *Machine) View(name string) (manifest.View, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.trees[name]
	if !ok {
		return manifest.View{}, false
	}
	return manifest.View{Tree: name, Revision: m.revision, Manifest: t.share()}, true
}

// Trees lists the trees by name.
func (m *Machine) Trees() []TreeInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	infos := make([]TreeInfo, 0, len(m.trees))
	for _, t := range m.trees {
		infos = append(infos, TreeInfo{Name: t.info.GetName(), ID: t.info.GetId(), Generation: t.info.GetGeneration()})
	}
	slices.SortFunc(infos, func(a, b TreeInfo) int { return cmp.Compare(a.Name, b.Name) })
	return infos
}

// putTree adds a tree. A name that is there keeps its id; only a newer
// generation is taken over.
func (s *state) putTree(p *pb.PutTree) *pb.Outcome {
	if !validName(p.GetName()) || !validName(p.GetId()) {
		return refuse(CodeMalformed, "a tree needs a name and an id of at most %d bytes", maxName)
	}
	t, ok := s.trees[p.GetName()]
	if !ok && len(s.trees) >= maxTrees {
		return refuse(CodeTooLarge, "the cluster has %d trees already", len(s.trees))
	}
	if !ok {
		s.trees[p.GetName()] = &tree{info: s.generation(p, p.GetId()), nodes: manifest.New()}
		return done()
	}
	if p.GetGeneration() > t.info.GetGeneration() {
		t.info = putTreeOf(p, t.info.GetId())
	}
	return done()
}

// putTreeOf copies what is known of p, so that the machine holds nothing that
// a snapshot would not.
func putTreeOf(p *pb.PutTree, id string) *pb.PutTree {
	return &pb.PutTree{Name: p.GetName(), Id: id, Generation: p.GetGeneration()}
}
