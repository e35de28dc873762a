package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/gatesync/gatesync/cluster"
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
	blobs, push := n.blobs.Stats(), n.push.Stats()
	_, ends := n.identity.Validity()
	s := Status{
		Node: NodeStatus{
			ID: string(n.file.Node), Name: n.file.Name, Role: n.role(), Raft: n.raftState(), Address: n.file.Address,
			Version: n.opts.Version, Started: n.started, CertificateExpires: ends,
		},
		Cluster: n.file.Cluster, Quorum: n.log.Quorum(), Revision: uint64(n.log.Revision()), CaughtUp: n.caughtUp(),
		Members: []MemberStatus{}, Trees: []TreeStatus{},
		Blobs: BlobStatus{Count: blobs.Blobs, Bytes: blobs.Bytes, DiskBytes: blobs.Disk, Corrupt: n.blobs.Corrupt(), Mended: n.mender.mended.Load(), Lost: n.mender.lost()},
		Carriers: []CarrierStatus{{
			Name: "push", SentBytes: uint64(push.Sent.Bytes + push.Served.Bytes), ReceivedBytes: uint64(push.Received.Bytes + push.Fetched.Bytes),
		}},
	}
	if s.Quorum {
		s.Leader = string(leader)
	}
	if n.web != nil {
		s.HTTP = n.web.Addr()
	}
	for _, t := range n.trees.all() {
		s.Trees = append(s.Trees, n.treeStatus(ctx, t))
	}
	for _, t := range n.cfg.Trees {
		if _, open := find(n.trees.all(), t.Name); !open {
			s.Trees = append(s.Trees, TreeStatus{Name: t.Name, Path: t.Path, Preset: preset(t.Preset), Storage: "local",
				Root: "the cluster does not know this tree yet; it is added as soon as there is a quorum"})
		}
	}
	for _, m := range n.log.Members() {
		s.Members = append(s.Members, n.memberStatus(ctx, m))
	}
	slices.SortFunc(s.Members, func(a, b MemberStatus) int { return cmp.Compare(a.Name, b.Name) })
	return s, nil
}

// ask lets the other members tell where they are now; who is slow has told a
// second ago.
func (n *Node) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	n.peers.refresh(ctx)
}

func (n *Node) role() string {
	if n.removed() {
		return "removed"
	}
	for _, m := range n.log.Members() {
		if m.ID == n.file.Node {
			return roleWord(m.Role)
		}
	}
	return string(cluster.NonVoter)
}

// roleWord is a role as status shows it: whom Raft does not know yet is about
// to become a non-voter.
func roleWord(r cluster.Role) string {
	if r == "" {
		return string(cluster.NonVoter)
	}
	return string(r)
}

func (n *Node) memberStatus(ctx context.Context, m cluster.Member) MemberStatus {
	h, alive := n.peers.last(m.ID)
	addr, ok := n.book.address(m.ID)
	if !ok {
		addr = m.Address
	}
	st := MemberStatus{
		ID: string(m.ID), Name: m.Name, Role: roleWord(m.Role), Address: addr, Alive: alive,
		Applied: h.state.GetApplied(), Version: h.state.GetVersion(),
	}
	if !h.at.IsZero() {
		st.LastSeen = &h.at
	}
	if h.err != nil && !alive {
		st.Error = h.err.Error()
	}
	if m.ID == n.file.Node {
		st.Applied, st.Version = uint64(n.trees.applied(ctx)), n.opts.Version
	}
	return st
}

// treeStatus tells of one tree; one that does not answer in time says so.
func (n *Node) treeStatus(ctx context.Context, t *tree) TreeStatus {
	ts := TreeStatus{Name: t.cfg.Name, Path: t.cfg.Path, Preset: preset(t.cfg.Preset), Storage: "local"}
	st, err := t.syncr.Status(ctx)
	if err != nil {
		ts.Root = "does not answer: " + err.Error()
		return ts
	}
	ts.Applied = uint64(st.Loop.Applied)
	ts.Held, ts.Busy, ts.Pending = heldCount(st.Loop), len(st.Loop.Busy), st.Loop.Unsettled
	ts.Root, ts.Notices = st.Loop.RootLost, st.Warnings
	if conflicts, err := t.syncr.Conflicts(); err == nil {
		ts.Conflicts = len(conflicts)
	}
	if sum, err := t.summarize(ctx); err == nil {
		ts.RootDigest, ts.Entries, ts.Files, ts.Bytes = sum.digest.String(), sum.entries, sum.files, sum.bytes
	}
	ts.LagSeconds = n.trees.lag.lag(st.Loop.Applied, time.Now()).Seconds()
	return ts
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
