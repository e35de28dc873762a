package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// RecoveryFacts are what a person has to know before a lost majority is given
// up. The JSON of `recover --dry-run --json`.
type RecoveryFacts struct {
	Cluster     string           `json:"cluster"`
	Incarnation uint64           `json:"incarnation"`
	Node        string           `json:"node"`
	Name        string           `json:"name"`
	Voter       bool             `json:"voter"`
	Members     []RecoveryMember `json:"members"` // without this node

	Revision  uint64         `json:"revision"` // with everything in the log
	LastIndex uint64         `json:"last_index"`
	LastTerm  uint64         `json:"last_term"`
	Trees     []RecoveryTree `json:"trees"`

	// KnownCommitted is the newest entry that the daemon knew to be committed
	// when it last said so; Uncertain are the revisions behind it, which may not
	// have been committed and would be.
	KnownCommitted uint64              `json:"known_committed"`
	Uncertain      []UncertainRevision `json:"uncertain"`
	Missing        []MissingContent    `json:"missing_content"` // committed, and not on this node
}

// RecoveryMember is another member, as known here.
type RecoveryMember struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Address  string     `json:"address"`
	Voter    bool       `json:"voter"`
	Heard    *time.Time `json:"heard,omitempty"` // last
	Alive    bool       `json:"alive"`           // its daemon answers now
	Leader   bool       `json:"has_leader"`      // and it has a leader
	Revision uint64     `json:"revision,omitempty"`
	Last     uint64     `json:"last_index,omitempty"`
}

// RecoveryTree is a tree as it would be.
type RecoveryTree struct {
	Name       string `json:"name"`
	RootDigest string `json:"root_digest"`
	Entries    int    `json:"entries"`
}

// UncertainRevision may not have been committed.
type UncertainRevision struct {
	Index    uint64 `json:"index"`
	Revision uint64 `json:"revision"`
	Tree     string `json:"tree"`
	Author   string `json:"author"`
	Changes  int    `json:"changes"`
	First    string `json:"first_path"`
}

// MissingContent is what a committed path is to hold, and this node has not.
type MissingContent struct {
	Tree   string `json:"tree"`
	Path   string `json:"path"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// uncertain notes an entry behind what was known to be committed.
func (f *RecoveryFacts) uncertain(t raftstore.Tailing) {
	p := t.Command.GetPropose()
	if rev := t.Outcome.GetResult().GetRevision(); p != nil && rev > 0 {
		u := UncertainRevision{Index: t.Index, Revision: rev, Tree: p.GetTree(), Author: p.GetId().GetNode(), Changes: len(p.GetChanges())}
		if len(p.GetChanges()) > 0 {
			u.First = string(p.GetChanges()[0].GetPath())
		}
		f.Uncertain = append(f.Uncertain, u)
	}
}

// Needless tells why the cluster needs no recovery, nil where it does.
func (f *RecoveryFacts) Needless() error {
	if f.Voter && !slices.ContainsFunc(f.Members, func(m RecoveryMember) bool { return m.Voter }) {
		return errors.New("this node is the only voter already and needs nobody else: start its daemon")
	}
	return f.quorum()
}

// quorum is an *AliveError where the voters that answer and this node are a
// majority, be it that they have no leader at this moment.
func (f *RecoveryFacts) quorum() error {
	e := &AliveError{}
	if f.Voter {
		e.Alive, e.Voters = 1, 1
	}
	for _, m := range f.Members {
		if m.Voter {
			e.Voters++
			if m.Alive {
				e.Alive++
				e.Names = append(e.Names, m.Name)
			}
		}
	}
	if len(e.Names) > 0 && e.Alive >= raftstore.Majority(e.Voters) {
		return e
	}
	return nil
}

// Newer lists the members that answer and whose log goes further than this
// node's.
func (f *RecoveryFacts) Newer() (names []string) {
	for _, m := range f.Members {
		if m.Alive && (m.Last > f.LastIndex || m.Revision > f.Revision) {
			names = append(names, m.Name)
		}
	}
	return names
}

// askWithin bounds the question to a member that is probably dead. One that lives on a
// busy machine must not be taken for dead, for the log of the others would be given up;
// and the dead mostly refuse at once.
const askWithin = 10 * time.Second

// members lists the others and asks each of them whether it is alive.
func (r *Recovery) members(ctx context.Context, cfg config.Config, seen seenFile) error {
	identity, err := transport.LoadIdentity(identityFiles(cfg))
	if err != nil {
		return fmt.Errorf("this node's identity: %w", err)
	}
	voters := map[cluster.NodeID]bool{}
	for _, s := range r.log.Servers {
		voters[s.ID] = s.Role == cluster.Voter
	}
	book := openBook(r.dir.peers(), slog.New(slog.DiscardHandler))
	for _, m := range r.log.Machine.Members() {
		if m.ID == r.file.Node {
			r.Facts.Voter = voters[m.ID]
			continue
		}
		addr, ok := book.address(m.ID)
		if !ok {
			addr = m.Address
		}
		rm := RecoveryMember{ID: string(m.ID), Name: m.Name, Address: addr, Voter: voters[m.ID]}
		if at := seen.Members[m.ID].Heard; !at.IsZero() {
			rm.Heard = &at
		}
		r.Facts.Members = append(r.Facts.Members, rm)
	}
	slices.SortFunc(r.Facts.Members, func(a, b RecoveryMember) int { return cmp.Compare(a.Name, b.Name) })
	var asks sync.WaitGroup
	errs := make([]error, len(r.Facts.Members))
	for i := range r.Facts.Members {
		asks.Go(func() { errs[i] = r.hello(ctx, identity, &r.Facts.Members[i]) })
	}
	asks.Wait()
	return errors.Join(errs...)
}

// hello asks a member. It fails only where the answer forbids to go on.
func (r *Recovery) hello(ctx context.Context, identity *transport.Identity, m *RecoveryMember) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, at, err := transport.DialAs(ctx, m.Address, identity, r.file.Cluster, transport.Instance{Incarnation: r.file.incarnation()})
	var newer *transport.IncarnationError
	switch {
	case errors.As(err, &newer) && newer.Yield():
		return fmt.Errorf("the cluster was recovered already: %s (%s) is of incarnation %s. Start this node's daemon, it rejoins by itself", m.Name, m.Address, newer.Theirs)
	case errors.Is(err, cluster.ErrNotMember):
		return fmt.Errorf("%s: %w", m.Name, err)
	case err != nil && !isGone(err, r.file.Cluster):
		return fmt.Errorf("%s (%s) answers and does not accept this node: it may be one of a living majority, and would give up its log for the recovered one. Mend that first: %w", m.Name, m.Address, err)
	case err != nil:
		return nil // as was to be expected
	}
	defer conn.Close()
	if string(at) != m.ID {
		return nil
	}
	res, err := pb.NewClusterClient(conn).Hello(ctx, &pb.HelloRequest{State: &pb.NodeState{
		Id: string(r.file.Node), ClusterId: r.file.Cluster, Visit: true, ClockNs: time.Now().UnixNano(), Format: raftstore.Newest,
	}})
	if err != nil {
		m.Alive = true // somebody of the cluster is there, whatever else
		return nil
	}
	s := res.GetState()
	m.Alive, m.Leader, m.Revision, m.Last = true, s.GetLeader() != "", s.GetRevision(), s.GetLogLast()
	return nil
}

// isGone tells whether an attempt to reach a member failed because it is not
// there: nobody answers, or somebody else.
func isGone(err error, clusterID string) bool {
	var (
		unreachable *transport.UnreachableError
		stranger    *transport.NotGatesyncError
		mismatch    *transport.PeerMismatchError
		wrong       *transport.WrongClusterError
	)
	switch {
	case errors.As(err, &wrong):
		return wrong.Theirs != "" && wrong.Theirs != clusterID
	case errors.As(err, &unreachable), errors.As(err, &stranger), errors.As(err, &mismatch):
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}
