package raftstore

import (
	"io"
	"maps"
	"slices"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/records"
)

// Frozen is a machine's state at one moment. It does not change, and may be
// written while the machine goes on.
type Frozen struct{ state }

// Freeze copies the state: manifests and history are shared (copy on write),
// the rest is small.
func (m *Machine) Freeze() *Frozen {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &Frozen{state: m.state}
	f.members = maps.Clone(m.members)
	f.removed = maps.Clone(m.removed)
	f.targets = m.targets.clone()
	f.trees = make(map[string]*tree, len(m.trees))
	for name, t := range m.trees {
		f.trees[name] = &tree{info: t.info, nodes: t.share(), places: t.places}
	}
	f.tokens = make(map[string]*token, len(m.tokens))
	for id, t := range m.tokens {
		f.tokens[id] = &token{put: t.put, usedBy: t.usedBy}
	}
	f.sessions = make(map[string]*session, len(m.sessions))
	for node, s := range m.sessions {
		f.sessions[node] = &session{newest: s.newest, outcomes: maps.Clone(s.outcomes)}
	}
	f.parts = make([]*partial, len(m.parts))
	for i, p := range m.parts {
		f.parts[i] = &partial{id: p.id, parts: p.parts, bytes: p.bytes}
	}
	return f
}

// Machine returns the frozen state as a machine, for its reads alone.
func (f *Frozen) Machine() *Machine { return &Machine{state: f.state} }

// Revision returns the newest revision in the snapshot.
func (f *Frozen) Revision() manifest.Revision { return f.revision }

// WriteTo writes the snapshot: a header, records in a fixed order, a trailer
// with their number and digest. It is written in the active format, so that
// every member can read it. Equal states write equal bytes.
func (f *Frozen) WriteTo(out io.Writer) (int64, error) {
	w := newSnapshotWriter(out)
	w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Header{Header: f.header()}})
	f.writeTrees(w)
	for _, c := range f.history {
		w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Commit{Commit: proto.FromCommit(c)}})
	}
	for _, id := range slices.Sorted(maps.Keys(f.members)) {
		w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Member{Member: f.members[id]}})
	}
	for _, id := range slices.Sorted(maps.Keys(f.tokens)) {
		t := f.tokens[id]
		w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Token{Token: &pb.SnapshotToken{Token: t.put, UsedBy: t.usedBy}}})
	}
	f.writePlaces(w)
	f.writeTargets(w)
	f.writeSessions(w)
	for _, p := range f.parts {
		for _, c := range p.parts {
			w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Part{Part: c}})
		}
	}
	return w.finish()
}

func (f *Frozen) header() *pb.SnapshotHeader {
	return &pb.SnapshotHeader{
		Format: f.format, AlsoTrusted: f.also, Revision: uint64(f.revision), Cluster: f.identity, Voters: f.voters,
		HistoryBelow: uint64(f.below), Incarnation: uint64(f.incarnation), Removed: slices.Sorted(maps.Keys(f.removed)),
		TargetEpochs: f.targets.epochs,
	}
}

func (f *Frozen) writeTrees(w snapshotWriter) {
	for _, name := range slices.Sorted(maps.Keys(f.trees)) {
		t := f.trees[name]
		w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Tree{Tree: &pb.SnapshotTree{Tree: t.info, Epochs: t.places.epochs}}})
		t.nodes.All(func(p manifest.Path, n manifest.Node) bool {
			w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Node{Node: &pb.SnapshotNode{
				Tree: name, Path: []byte(p), Node: proto.FromNode(n),
			}}})
			return w.Err() == nil
		})
	}
}

func (f *Frozen) writeSessions(w snapshotWriter) {
	for _, node := range slices.Sorted(maps.Keys(f.sessions)) {
		outcomes := f.sessions[node].outcomes
		for _, seq := range slices.Sorted(maps.Keys(outcomes)) {
			w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Session{Session: &pb.SnapshotSession{
				Node: node, Seq: seq, Outcome: outcomes[seq],
			}}})
		}
	}
}

// snapshotWriter writes a snapshot's records. The first error sticks.
type snapshotWriter struct{ *records.Writer }

func newSnapshotWriter(out io.Writer) snapshotWriter {
	return snapshotWriter{records.NewWriter(out, 1<<16)}
}

func (w snapshotWriter) put(r *pb.SnapshotRecord) { _ = w.Put(r) } // the error sticks

func (w snapshotWriter) finish() (int64, error) {
	n, digest := w.Sum()
	w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Trailer{Trailer: &pb.SnapshotTrailer{Records: n, Digest: digest[:]}}})
	return w.Finish()
}
