package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/syncer"
	"github.com/gatesync/gatesync/transport"
)

// statusWithin bounds the questions to the trees: a status that hangs helps
// nobody.
const statusWithin = 5 * time.Second

// status is what `gatesync status` shows.
func (n *Node) status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusWithin)
	defer cancel()
	n.ask(ctx)
	leader, _ := n.log.Leader()
	blobs := n.blobs.Stats()
	begins, ends := n.identity.Validity()
	members := n.knownMembers()
	left := time.Until(ends)
	s := Status{
		Node: NodeStatus{
			ID: string(n.file.Node), Name: n.file.Name, Role: n.role(members), Raft: n.raftState(), Address: n.file.Address,
			Version: n.opts.Version, Started: n.started, CertificateBegins: begins, CertificateExpires: ends,
			CertificateDays: int(left.Hours() / 24), CertificateSoon: left < soon(ends.Sub(begins)),
		},
		Cluster: n.file.Cluster, Incarnation: n.file.incarnation().Number(), Quorum: n.log.Quorum(), Revision: uint64(n.log.Revision()), CaughtUp: n.caughtUp(),
		Members: []MemberStatus{}, Trees: []TreeStatus{}, Format: n.formatStatus(), CA: n.caStatus(),
		Blobs:    BlobStatus{Count: blobs.Blobs, Bytes: blobs.Bytes, DiskBytes: blobs.Disk, Corrupt: n.blobs.Corrupt(), Mended: n.mender.mended.Load(), Lost: n.mender.lost()},
		Data:     n.dataStatus(),
		Carriers: n.carriers(),
	}
	if c := n.claim.Load(); c != nil && time.Since(c.at) < time.Minute {
		s.DoubtedLife = c.text
	}
	if s.Quorum {
		s.Leader = string(leader)
	}
	s.Feeds = n.feeding.count()
	if parent, path, ok := n.following.upstream(); ok && n.follows() {
		s.Upstream, s.Path = string(parent), path
	}
	s.Targets = n.targetStatus()
	if n.web != nil {
		s.HTTP = n.web.Addr()
	}
	for _, t := range n.trees.all() {
		s.Trees = append(s.Trees, n.treeStatus(ctx, t))
	}
	for _, t := range n.cfg.Trees {
		if _, open := find(n.trees.all(), t.Name); !open {
			why := "the cluster does not know this tree yet; it is added as soon as there is a quorum"
			if f, known := n.treeFileOf(t.Name); known && !f.New {
				why = "its mount has not answered yet; the tree is taken up as soon as it does"
			}
			s.Trees = append(s.Trees, TreeStatus{Name: t.Name, Path: t.Path, Preset: preset(t.Preset), Root: why, Storage: storageUnknown, StorageWhy: "the tree is not open yet"})
		}
	}
	for _, m := range members {
		s.Members = append(s.Members, n.memberStatus(ctx, m))
	}
	slices.SortFunc(s.Members, func(a, b MemberStatus) int { return cmp.Compare(a.Name, b.Name) })
	for _, m := range s.Members {
		if m.Votes {
			s.Voters++
			if m.Alive {
				s.VotersAlive++
			}
		}
	}
	s.Tolerance = s.VotersAlive - raftstore.Majority(s.Voters)
	return s, nil
}

// ask lets the other members tell where they are now; who is slow has told a
// second ago.
func (n *Node) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	n.peers.refresh(ctx)
}

// knownMembers lists the members as the log has them. A node that has just
// started and finds no leader has not read its log: then it is those of the
// address book, with the roles of Raft's configuration.
func (n *Node) knownMembers() []cluster.Member {
	members := n.log.Members()
	if contains(members, n.file.Node) || n.removed() {
		return members
	}
	members = n.book.members()
	servers, err := n.log.Servers()
	if err != nil {
		return members
	}
	for i := range members {
		for _, s := range servers {
			if s.ID == members[i].ID {
				members[i].Role = s.Role
			}
		}
	}
	return members
}

func (n *Node) role(members []cluster.Member) string {
	switch {
	case n.removed() || n.peers.disowned():
		return "removed"
	case n.follows():
		return string(cluster.Follower)
	}
	for _, m := range members {
		if m.ID == n.file.Node {
			return roleWord(m)
		}
	}
	return string(cluster.NonVoter)
}

// roleWord is a role as status shows it: whom Raft does not know yet is about
// to become a non-voter, and a voter without a tree is a witness.
func roleWord(m cluster.Member) string {
	switch {
	case m.Role == cluster.Voter && m.Witness:
		return "witness"
	case m.Role == cluster.Follower:
		return string(cluster.Follower)
	case m.Role == "":
		return string(cluster.NonVoter)
	}
	return string(m.Role)
}

func (n *Node) memberStatus(ctx context.Context, m cluster.Member) MemberStatus {
	h, alive := n.peers.last(m.ID)
	addr, ok := n.book.address(m.ID)
	if !ok {
		addr = m.Address
	}
	st := MemberStatus{
		ID: string(m.ID), Name: m.Name, Role: roleWord(m), Address: addr, Alive: alive,
		Applied: h.state.GetApplied(), Version: h.state.GetVersion(),
		Votes: m.Role == cluster.Voter, Chosen: string(m.Wish), Content: h.state.GetContent(), Missing: h.state.GetMissing(), Nowhere: h.state.GetLacks(),
		Format: max(m.Format, raftstore.Format),
	}
	if m.ID != n.file.Node {
		st.Proxy = transport.ProxyName(addr)
	}
	if !h.at.IsZero() {
		st.LastSeen = &h.at
	}
	if !alive {
		since := n.peers.deadSince(m.ID)
		st.DeadSince = &since
	}
	if h.err != nil && !alive {
		st.Error = h.err.Error()
	}
	if m.ID == n.file.Node {
		st.Applied, st.Version = uint64(n.applied(ctx)), n.opts.Version
		st.Content, st.Missing, st.Nowhere = uint64(n.keeper.content()), n.keeper.missing.Load(), n.keeper.lacking()
	}
	return st
}

// treeStatus tells of one tree; one that does not answer in time says so.
func (n *Node) treeStatus(ctx context.Context, t *tree) TreeStatus {
	ts := TreeStatus{Name: t.cfg.Name, Path: t.cfg.Path, Preset: preset(t.cfg.Preset), Storage: storageUnknown, StorageWhy: "the tree does not answer"}
	if ts.Write, ts.Edits = n.cfg.Direction(t.cfg); ts.Write == "any" {
		ts.Edits = ""
	}
	st, err := t.syncr.Status(ctx)
	if err != nil {
		ts.Root = "does not answer: " + err.Error()
		return ts
	}
	ts.Applied = uint64(st.Loop.Applied)
	n.placeStatus(&ts, st.Place)
	ts.Held, ts.Busy, ts.Pending = heldCount(st.Loop), len(st.Loop.Busy), st.Loop.Unsettled
	ts.Root, ts.Notices, ts.Watched, ts.Overflows = st.Loop.RootLost, append(ts.Notices, st.Warnings...), st.Watched, st.Overflows
	ts.Unsent, ts.UnsentWhy = st.Loop.Unsent, st.Loop.UnsentWhy
	ts.Failing = len(st.Loop.Failing)
	troubles := slices.Concat(st.Loop.Failing, st.Loop.Busy)
	for _, b := range troubles[:min(len(troubles), troublesShown)] {
		ts.Troubles = append(ts.Troubles, TroubleStatus{Path: string(b.Path), Why: b.Why})
	}
	ts.Edited, ts.Repaired = st.Loop.EditedAll, st.Loop.Repaired
	for _, e := range st.Loop.Edited[:min(len(st.Loop.Edited), troublesShown)] {
		ts.EditedPaths = append(ts.EditedPaths, TroubleStatus{Path: string(e.Path), Why: e.Why})
	}
	if st.Loop.Aside {
		ts.Notices = append(ts.Notices, "this node has come back into the recovered cluster and compares its tree with it: until that is done whatever the cluster does not hold goes aside, fresh edits too")
	}
	if conflicts, err := t.syncr.Conflicts(); err == nil {
		ts.Conflicts = len(conflicts)
	}
	if sum, err := t.summarize(ctx); err == nil {
		ts.RootDigest, ts.Entries, ts.Files, ts.Bytes = sum.digest.String(), sum.entries, sum.files, sum.bytes
	}
	ts.LagSeconds = n.trees.lag.lag(st.Loop.Applied, time.Now()).Seconds()
	return ts
}

// storageUnknown is what is said of a tree until it is known where it lies.
const storageUnknown = "unknown"

// placeStatus tells where a tree lies.
func (n *Node) placeStatus(ts *TreeStatus, at syncer.Place) {
	ts.StorageWhy = at.Why
	switch {
	case at.Unknown:
	case at.Mount == "":
		ts.Storage = "local"
	default:
		ts.Storage, ts.Mount, ts.StewardEpoch = "direct", at.Mount, at.Epoch
		ts.Steward, _ = n.log.Member(at.Steward)
		if why := n.followersAlone(ts.Name, at.Mount); why != "" {
			ts.Notices = append(ts.Notices, why)
		}
	}
}

// followersAlone says so where only followers have a directory together: none of
// them becomes its steward, for a follower hears of leaders at second hand. "" where
// a member of Raft has it too.
func (n *Node) followersAlone(tree, mount string) string {
	for _, m := range n.log.Shares(tree).Mounts {
		if m.ID != mount || len(m.Members) == 0 {
			continue
		}
		for _, id := range m.Members {
			if !n.log.Follows(id) {
				return ""
			}
		}
		name, _ := n.log.Member(m.Members[0])
		return "only followers have this directory, and a follower is nobody's steward: what is written elsewhere does not come here; `gatesync promote " + name + "` (or another one of them) ends that"
	}
	return ""
}

// troublesShown bounds how many paths that do not go on are named.
const troublesShown = 10

// dataStatus tells of the data directory's disk. Nothing is asked of the disk
// itself: it might hang.
func (n *Node) dataStatus() DataStatus {
	d := DataStatus{Path: n.cfg.DataDir, Free: n.log.Free(), Reserve: int64(n.cfg.FreeReserve), Trouble: n.log.Trouble(), Silent: n.log.Silent()}
	if d.Trouble == "" && d.Free < d.Reserve {
		d.Trouble = fmt.Sprintf("no room for content: %d bytes are free and %d are kept in reserve; free some space, it goes on by itself", d.Free, d.Reserve)
	}
	return d
}

func preset(name string) string {
	if name == "" {
		return "plain"
	}
	return name
}

// raftState is this node's part in Raft right now.
func (n *Node) raftState() string {
	switch s := n.log.Stats()["state"]; s {
	case "Leader":
		return "leader"
	case "Candidate":
		return "candidate"
	case "Shutdown":
		return "shutdown"
	}
	return "follower"
}

func (n *Node) formatStatus() FormatStatus {
	s := FormatStatus{Active: n.log.Format(), Newest: raftstore.Newest}
	_, waits := raftstore.NextFormat(s.Active, s.Newest, n.log.Members())
	for _, m := range waits {
		s.Waits = append(s.Waits, m.Name)
	}
	slices.Sort(s.Waits)
	return s
}

func (n *Node) caStatus() CAStatus {
	s := CAStatus{Own: n.cfg.TLS.Own()}
	s.Fingerprint, s.Expires = n.identity.Issuer()
	a := n.log.Authorities()
	if a.Also == nil || s.Own {
		return s
	}
	c := CAChange{From: a.Also.Fingerprint, To: a.Signing.Fingerprint, Step: "renew"}
	if a.Incoming {
		c.From, c.To, c.Step = c.To, c.From, "trust"
	}
	_, c.Waits, c.Dead = nextCA(a, n.certificates())
	s.Replacing = &c
	return s
}
