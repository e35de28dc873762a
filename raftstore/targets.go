package raftstore

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// targetsFormat: the log has targets, and who pushes to each.
const targetsFormat feature = 2

const (
	// maxTargets bounds the targets of a cluster.
	maxTargets = 1024
	// maxSetting bounds an address or a path in a target's settings, in bytes,
	// maxIgnores the globs.
	maxSetting = 4096
	maxIgnores = 256
)

// targets are the receivers that the cluster keeps current. Its values are
// replaced, never changed: frozen states share them.
type targets struct {
	byName map[string]*pb.SnapshotTarget
	epochs uint64 // the newest of any pusher: it never falls, whatever becomes of targets
}

func (t *targets) clone() targets { return targets{byName: maps.Clone(t.byName), epochs: t.epochs} }

// TargetsKnown tells whether the log's format has targets.
func (m *Machine) TargetsKnown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.has(targetsFormat)
}

// Targets lists the targets by name.
func (m *Machine) Targets() []cluster.Target {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]cluster.Target, 0, len(m.targets.byName))
	for _, name := range slices.Sorted(maps.Keys(m.targets.byName)) {
		out = append(out, toTarget(m.targets.byName[name]))
	}
	return out
}

func toTarget(t *pb.SnapshotTarget) cluster.Target {
	p := t.GetTarget()
	return cluster.Target{
		Name: p.GetName(), Address: p.GetAddress(), Trees: slices.Clone(p.GetTrees()), Delete: p.GetDelete(), Limit: p.GetLimit(), Token: p.GetToken(),
		Preset: p.GetPreset(), Ignore: slices.Clone(p.GetIgnore()),
		RemoteBinary: p.GetRemoteBinary(), RemoteDataDir: p.GetRemoteDataDir(), RemoteReserve: p.GetRemoteReserve(),
		Pusher: cluster.NodeID(t.GetPusher()), Epoch: t.GetEpoch(),
	}
}

// FromTarget turns a target into its command. Who pushes is no part of it: only
// the leader says that.
func FromTarget(t cluster.Target) *pb.PutTarget {
	return &pb.PutTarget{
		Name: t.Name, Address: t.Address, Trees: t.Trees, Delete: t.Delete, Limit: t.Limit, Token: t.Token,
		Preset: t.Preset, Ignore: t.Ignore, RemoteBinary: t.RemoteBinary, RemoteDataDir: t.RemoteDataDir, RemoteReserve: t.RemoteReserve,
	}
}

// putTarget adds a target, or changes the settings of the one of that name: its
// pusher goes on.
func (s *state) putTarget(p *pb.PutTarget) *pb.Outcome {
	if o := s.targetFits(p); o != nil {
		return o
	}
	old := s.targets.byName[p.GetName()]
	s.targets.set(&pb.SnapshotTarget{Target: targetOf(p), Pusher: old.GetPusher(), Epoch: old.GetEpoch()})
	return done()
}

// targetOf copies what is known of p, so that the machine holds nothing that a
// snapshot would not.
func targetOf(p *pb.PutTarget) *pb.PutTarget {
	return FromTarget(toTarget(&pb.SnapshotTarget{Target: p}))
}

func (t *targets) set(to *pb.SnapshotTarget) {
	if t.byName == nil {
		t.byName = map[string]*pb.SnapshotTarget{}
	}
	t.byName[to.GetTarget().GetName()] = to
}

// targetFits returns nil for a target that can be taken.
func (s *state) targetFits(p *pb.PutTarget) *pb.Outcome {
	name := p.GetName()
	switch {
	case !s.has(targetsFormat):
		return refuse(CodeFormat, "the log's format is too old for targets: upgrade the members that `gatesync status` names")
	case !validName(name) || strings.ContainsAny(name, "/ "):
		return refuse(CodeMalformed, "a target needs a name of at most %d bytes, without slashes and spaces", maxName)
	case !validSetting(p.GetAddress()) || p.GetAddress() == "":
		return refuse(CodeMalformed, "target %q needs an address: host:port, or ssh://user@host/path", name)
	case !slices.Contains([]string{"held", "yes", "no"}, p.GetDelete()), p.GetLimit() < 0,
		!validText(p.GetToken()), !validText(p.GetPreset()), !validText(p.GetRemoteReserve()), !validSetting(p.GetRemoteBinary()), !validSetting(p.GetRemoteDataDir()),
		len(p.GetTrees()) > maxTrees, slices.ContainsFunc(p.GetTrees(), func(t string) bool { return !validName(t) }),
		len(p.GetIgnore()) > maxIgnores, slices.ContainsFunc(p.GetIgnore(), func(g string) bool { return !validSetting(g) }):
		return refuse(CodeMalformed, "malformed settings of target %q", name)
	}
	for other, t := range s.targets.byName {
		if other != name && t.GetTarget().GetAddress() == p.GetAddress() {
			return refuse(CodeTarget, "%s is the target %q already: remove that one first, or change it by its name", p.GetAddress(), other)
		}
	}
	if s.targets.byName[name] == nil && len(s.targets.byName) >= maxTargets {
		return refuse(CodeTooLarge, "the cluster has %d targets already", len(s.targets.byName))
	}
	return nil
}

// validSetting tells whether s may stand in a target's settings, which are
// printed on terminals.
func validSetting(s string) bool {
	return len(s) <= maxSetting && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// removeTarget forgets a target. One that is not there is an error: a person
// may have mistyped it.
func (s *state) removeTarget(p *pb.RemoveTarget) *pb.Outcome {
	if s.targets.byName[p.GetName()] == nil {
		return refuse(CodeTarget, "no target is called %q: see `gatesync targets list`", p.GetName())
	}
	delete(s.targets.byName, p.GetName())
	return done()
}

// assignTarget names who pushes to a target. Who is late names an epoch that is
// over.
func (s *state) assignTarget(p *pb.AssignTarget) *pb.Outcome {
	old := s.targets.byName[p.GetName()]
	switch {
	case old == nil:
		return refuse(CodeTarget, "no target is called %q", p.GetName())
	case old.GetEpoch() != p.GetEpoch():
		return refuse(CodeTarget, "target %q has epoch %d", p.GetName(), old.GetEpoch())
	case s.members[p.GetNode()] == nil:
		return refuse(CodeNotMember, "node %q is not, or no longer, a member of this cluster", p.GetNode())
	}
	s.targets.epochs++
	s.targets.set(&pb.SnapshotTarget{Target: old.GetTarget(), Pusher: p.GetNode(), Epoch: s.targets.epochs})
	return done()
}

// leave takes a member's targets from it.
func (t *targets) leave(node string) {
	for _, old := range t.byName {
		if old.GetPusher() == node {
			t.set(&pb.SnapshotTarget{Target: old.GetTarget(), Epoch: old.GetEpoch()})
		}
	}
}

func (f *Frozen) writeTargets(w snapshotWriter) {
	for _, name := range slices.Sorted(maps.Keys(f.targets.byName)) {
		w.put(&pb.SnapshotRecord{Of: &pb.SnapshotRecord_Target{Target: f.targets.byName[name]}})
	}
}

// addTarget relies on the order: members before targets.
func (r *restoring) addTarget(t *pb.SnapshotTarget) error {
	p := t.GetTarget()
	if o := r.targetFits(p); o != nil {
		return errors.New(o.GetMessage())
	}
	switch {
	case r.targets.byName[p.GetName()] != nil:
		return errors.New("a target that was there already")
	case t.GetPusher() != "" && r.members[t.GetPusher()] == nil:
		return errors.New("a target whose pusher is no member")
	case t.GetEpoch() > r.targets.epochs:
		return errors.New("a target of an epoch that has not begun")
	}
	r.targets.set(&pb.SnapshotTarget{Target: targetOf(p), Pusher: t.GetPusher(), Epoch: t.GetEpoch()})
	return nil
}
