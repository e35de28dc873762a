package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/fallback"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// localLog is what the local service needs of the log.
type localLog interface {
	membership
	proposer
	revisions
	watcher
	authority
	Barrier(ctx context.Context) error
	viewedLog
	History(tree string, from manifest.Revision, limit int) []manifest.Commit
	Freeze() *raftstore.Frozen
}

// localService answers the command line on this machine. Who may open the
// socket may do everything. Safe for concurrent use. What concerns trees stands
// in localtrees.go, localpropose.go and localread.go.
type localService struct {
	pb.UnimplementedLocalServer
	self    cluster.NodeID
	log     localLog
	dial    dialer
	peers   *peers
	trees   *treeSet
	applied func(ctx context.Context, rev manifest.Revision) (manifest.Revision, error) // waits
	nowhere func() []string                                                             // content that nobody who answers has
	readAll func() bool                                                                 // the machine knows all that was ever known here to be committed
	blobs   *recentBlobs
	carrier *carrier
	moved   func() (in, out fallback.Moved) // by all carriers, since the start
	// proposals goes to the log, and counts.
	proposals changesetLog
	identity  *transport.Identity
	status    func(ctx context.Context) (Status, error)
	targets   func() []TargetStatus
	certs     func() []caMember
	// name and version are of the node, for what it signs.
	name, version string
}

// Status tells how this node sees the cluster and itself.
func (s *localService) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	st, err := s.status(ctx)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(st)
	return &pb.StatusResponse{Json: b}, err
}

// Token makes a join token. Only its secret's digest goes into the log.
func (s *localService) Token(ctx context.Context, req *pb.TokenRequest) (*pb.TokenResponse, error) {
	if req.GetTtlNs() <= 0 || req.GetUses() == 0 {
		return nil, status.Error(codes.InvalidArgument, "a token needs a life and a number of uses")
	}
	tok, err := transport.NewToken(s.identity.IssuerPEM())
	if err != nil {
		return nil, err
	}
	expires := time.Now().Add(time.Duration(req.GetTtlNs()))
	err = s.do(ctx, &pb.Command{Do: &pb.Command_PutToken{PutToken: &pb.PutToken{
		Id: tok.ID, SecretDigest: transport.SecretDigest(tok.Secret), ExpiresNs: expires.UnixNano(), Uses: req.GetUses(),
	}}})
	if err != nil {
		return nil, err
	}
	return &pb.TokenResponse{Token: tok.String(), ExpiresNs: expires.UnixNano()}, nil
}

// doWithin bounds a command that a person waits for.
const doWithin = 10 * time.Second

func (s *localService) do(ctx context.Context, cmd *pb.Command) error {
	ctx, cancel := context.WithTimeout(ctx, doWithin)
	defer cancel()
	out, err := s.log.Do(ctx, command(cmd))
	if err != nil {
		return s.explain(err)
	}
	return raftstore.OutcomeErr(out)
}

// explain turns a time-out without a quorum into the reason for it.
func (s *localService) explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && !s.log.Quorum() || errors.Is(err, cluster.ErrNoQuorum) && s.peers.disowned() {
		return s.noQuorum()
	}
	return err
}

// noQuorum says why nothing can be committed through this node.
func (s *localService) noQuorum() error {
	if s.peers.disowned() {
		return fmt.Errorf("this node was removed from the cluster: to come back, stop its daemon; then "+cluster.JoinAgain+": %w", cluster.ErrNotMember)
	}
	return cluster.ErrNoQuorum
}

// logLimit bounds an answer when no limit was given.
const logLimit = 1000

// Log lists revisions, the newest first.
func (s *localService) Log(req *pb.LogRequest, stream grpc.ServerStreamingServer[pb.Commit]) error {
	if _, ok := s.log.View(req.GetTree()); !ok && req.GetTree() != "" {
		return noTree(req.GetTree(), s.log.Trees())
	}
	limit := int(req.GetLimit())
	if limit == 0 {
		limit = logLimit
	}
	for _, c := range s.log.History(req.GetTree(), manifest.Revision(req.GetFrom()), limit) {
		m := proto.FromCommit(c)
		if !req.GetPaths() && len(m.Changes) > 1 {
			m.Changes = m.Changes[:1]
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// noTree names the trees that there are.
func noTree(asked string, trees []raftstore.TreeInfo) error {
	var names []string
	for _, t := range trees {
		names = append(names, t.Name)
	}
	return status.Errorf(codes.NotFound, "the cluster has no tree %q, as far as this node knows; it has: %s", asked, cmp.Or(strings.Join(names, ", "), "none"))
}

// Wait waits until every live member has applied a revision, and every target
// has it, if asked for that.
func (s *localService) Wait(ctx context.Context, req *pb.WaitRequest) (*pb.WaitResponse, error) {
	ctx, cancel := ctx, context.CancelFunc(func() {})
	if req.GetTimeoutNs() > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(req.GetTimeoutNs()))
	}
	defer cancel()
	rev := manifest.Revision(req.GetRevision())
	if rev == 0 {
		var err error
		if rev, err = s.newest(ctx); err != nil {
			return nil, s.explain(err)
		}
	}
	res, err := s.waitAll(ctx, rev, req.GetOnly())
	if err == nil && req.GetTargets() {
		s.waitTargets(ctx, rev, res)
	}
	return res, err
}

// newest settles what was edited here and tells the newest revision of all.
func (s *localService) newest(ctx context.Context) (manifest.Revision, error) {
	if err := s.trees.settle(ctx, s.trees.all()); err != nil {
		return 0, err
	}
	if err := s.log.Barrier(ctx); err != nil {
		return 0, err
	}
	return s.log.Revision(), nil
}

// waitAll asks every live member at the same time.
func (s *localService) waitAll(ctx context.Context, rev manifest.Revision, only []string) (*pb.WaitResponse, error) {
	res := &pb.WaitResponse{Revision: uint64(rev)}
	type answer struct {
		id   cluster.NodeID
		name string
		err  error
	}
	answers := make(chan answer)
	asked := 0
	for _, m := range s.log.Members() {
		if len(only) > 0 && !named(m, only) {
			continue
		}
		if !s.peers.alive(m.ID) {
			res.Dead = append(res.Dead, m.Name)
			continue
		}
		asked++
		go func() { answers <- answer{m.ID, m.Name, s.waitOne(ctx, m.ID, rev)} }()
	}
	for range asked {
		a := <-answers
		switch {
		case a.err == nil:
			res.Applied = append(res.Applied, a.name)
		case ctx.Err() != nil:
			res.Late = append(res.Late, a.name)
			res.Why = append(res.Why, s.lacks(a.id, a.name)...)
		default:
			res.Dead = append(res.Dead, a.name) // it died while we waited
		}
	}
	for _, names := range [][]string{res.Applied, res.Late, res.Dead, res.Why} { // they came as they came
		slices.Sort(names)
	}
	if len(res.Late) > 0 && !s.log.Quorum() {
		return nil, s.noQuorum()
	}
	return res, nil
}

// lacks tells what content a member waits for that nobody who answers has.
func (s *localService) lacks(id cluster.NodeID, name string) (why []string) {
	names := s.nowhere() // of this node itself
	if id != s.self {
		h, _ := s.peers.last(id)
		names = h.state.GetLacks()
	}
	for _, what := range names {
		why = append(why, fmt.Sprintf("%s lacks %s, and no member that answers has it", name, what))
	}
	return why
}

func named(m cluster.Member, names []string) bool {
	for _, n := range names {
		if n == m.Name || n == string(m.ID) {
			return true
		}
	}
	return false
}

func (s *localService) waitOne(ctx context.Context, id cluster.NodeID, rev manifest.Revision) error {
	if id == s.self {
		_, err := s.applied(ctx, rev)
		return err
	}
	if s.peers.place.follows() || s.peers.place.follower(id) {
		return s.peers.waitTold(ctx, id, rev) // nobody dials a follower, and a follower may be unable to dial
	}
	conn, err := s.dial.Dial(ctx, id)
	if err != nil {
		return fmt.Errorf("ask %s: %w", id, err)
	}
	_, err = pb.NewClusterClient(conn).Applied(ctx, &pb.AppliedRequest{Revision: uint64(rev)})
	return err
}
