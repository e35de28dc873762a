package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// maxClockSkew is how far a joiner's clock may be off.
const maxClockSkew = 5 * time.Minute

// joinWithin bounds the commit that redeems a token.
const joinWithin = 10 * time.Second

// joinLog is what the join service needs of the log.
type joinLog interface {
	proposer
	authority
	forest
	Incarnation() cluster.Incarnation
	Format() uint32
}

// joinServer admits joiners: whoever has a token gets a certificate and
// becomes a member. The leader then makes it a non-voter of Raft (leader.go).
// It is spoken to without a certificate: everything is checked.
type joinServer struct {
	pb.UnimplementedJoinServer
	log    joinLog
	ready  func(context.Context) error // waits until the cluster's trees are known here
	caPEM  func() []byte               // what members trust
	life   time.Duration               // of certificates
	book   func() []cluster.Member     // where everybody is now
	now    func() time.Time
	logger *slog.Logger

	refusals *transport.Refusals
	most     int                     // members of Raft: who comes then is a follower; 0: no limit
	members  func() []cluster.Member // as the log has them
}

// remoteHost is where a call comes from.
func remoteHost(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

var (
	idPattern   = regexp.MustCompile(`^n-[0-9a-f]{16}$`)
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// Join redeems a token.
func (s *joinServer) Join(ctx context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	res, err := s.join(ctx, req)
	if err != nil {
		s.refusals.Note(remoteHost(ctx), "join", fmt.Errorf("%q at %q: %w", clip(req.GetName()), clip(req.GetAddress()), err))
		return nil, err
	}
	s.logger.Info("a node has joined", "name", req.GetName(), "address", req.GetAddress(), "id", req.GetNodeId())
	return res, nil
}

func (s *joinServer) join(ctx context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	if err := s.plausible(req); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, fmt.Errorf("this member has not read the cluster's log yet; try again in a moment: %w", cluster.ErrNoQuorum)
	}
	clusterID, _, caKey := s.log.Cluster()
	if err := s.fits(req, clusterID); err != nil {
		return nil, err
	}
	caPEM := s.caPEM()
	var certPEM []byte
	switch {
	case len(caKey) > 0 && len(req.GetCsrDer()) > 0:
		var err error
		ca, trusted, err := signing(s.log, s.life)
		if err == nil {
			caPEM = trusted
			certPEM, err = ca.Sign(req.GetCsrDer(), cluster.NodeID(req.GetNodeId()), req.GetName(), s.now())
		}
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "the joiner's key cannot be signed: %v", err)
		}
	case len(caKey) == 0 && len(req.GetCsrDer()) > 0:
		return nil, status.Error(codes.FailedPrecondition, "this cluster uses certificates of its own PKI: bring this node's with --tls-ca, --tls-cert and --tls-key")
	}
	member := &pb.Member{
		Id: req.GetNodeId(), Name: req.GetName(), Address: req.GetAddress(), Store: req.GetStore(),
		JoinedNs: s.now().UnixNano(), AddressEpoch: 1, Format: req.GetFormat(), Witness: len(req.GetTrees()) == 0,
		Follower: s.follower(req),
	}
	out, err := s.log.Do(ctx, command(&pb.Command{Do: &pb.Command_UseToken{UseToken: &pb.UseToken{
		Id: req.GetTokenId(), SecretDigest: transport.SecretDigest(req.GetSecret()), Member: member,
	}}}))
	if err != nil {
		return nil, err
	}
	if err := raftstore.OutcomeErr(out); isCode(err, raftstore.CodeRemoved) {
		return nil, cluster.ErrNotMember // of a join that was interrupted, see Join
	} else if err != nil {
		return nil, status.Error(codes.PermissionDenied, tokenAdvice(err))
	}
	res := &pb.JoinResponse{
		Incarnation: uint64(s.log.Incarnation()),
		ClusterId:   clusterID, CertPem: certPEM, CaPem: caPEM, ClockNs: s.now().UnixNano(),
		Members: toMessages(s.book()), Follower: member.GetFollower(),
	}
	for _, t := range s.log.Trees() {
		res.Trees = append(res.Trees, &pb.PutTree{Name: t.Name, Id: t.ID, Generation: t.Generation})
	}
	return res, nil
}

// follower tells whether a joiner becomes a follower: it asks for that, or Raft
// has as many members as the settings want.
func (s *joinServer) follower(req *pb.JoinRequest) bool {
	if s.log.Format() < raftstore.FollowersFormat {
		return false
	}
	raft := 0
	for _, m := range s.members() {
		if m.Role != cluster.Follower && string(m.ID) != req.GetNodeId() {
			raft++
		}
	}
	return req.GetFollower() || s.most > 0 && raft >= s.most
}

// plausible checks the joiner's words on their own.
func (s *joinServer) plausible(req *pb.JoinRequest) error {
	bad := func(format string, args ...any) error { return status.Errorf(codes.InvalidArgument, format, args...) }
	switch {
	case req.GetFormat() < s.log.Format():
		return bad("the joining gatesync %s is too old for this cluster, whose log is of format %d: it knows formats up to %d: install the version that the members run; the token is still good",
			req.GetVersion(), s.log.Format(), req.GetFormat())
	case req.GetFollower() && s.log.Format() < raftstore.FollowersFormat:
		return status.Errorf(codes.FailedPrecondition, "the cluster's log is of format %d, followers need format %d: it is used as soon as every member runs this version of gatesync (`gatesync status` names those that do not); the token is still good", s.log.Format(), raftstore.FollowersFormat)
	case !idPattern.MatchString(req.GetNodeId()):
		return bad("%q is no node id", req.GetNodeId())
	case !namePattern.MatchString(req.GetName()):
		return bad("%q is no node name", req.GetName())
	case len(req.GetStore()) == 0 || len(req.GetStore()) > 64:
		return bad("%q is no id of a blob store", req.GetStore())
	case len(req.GetAddress()) > maxAddress:
		return bad("an address of %d bytes", len(req.GetAddress()))
	}
	// A token admits the node that used it once more, for its first answer may
	// have been lost; and who is admitted gets a certificate. So it has to be the
	// same node: a used token that somebody finds must not make another's certificate.
	if len(req.GetCsrDer()) > 0 {
		id, err := transport.IDOfKey(req.GetCsrDer())
		if err != nil {
			return bad("%v", err)
		}
		if string(id) != req.GetNodeId() {
			return bad("the joining gatesync %s chose an id (%s) that is not its key's: install the version that the members run, and join again; the token is still good", clip(req.GetVersion()), req.GetNodeId())
		}
	}
	here, there := s.now(), time.Unix(0, req.GetClockNs())
	if off := there.Sub(here).Abs(); off > maxClockSkew {
		return status.Errorf(codes.FailedPrecondition,
			"the joining node's clock says %s, this member's clock says %s: they differ by %s, at most %s is allowed. Set both right (NTP), then join again; the token is still good",
			there.UTC().Format(time.RFC3339), here.UTC().Format(time.RFC3339), off.Round(time.Second), maxClockSkew)
	}
	return nil
}

// fits checks the joiner's trees against the cluster's. A witness has none.
func (s *joinServer) fits(req *pb.JoinRequest, clusterID string) error {
	for _, c := range req.GetRootClusters() {
		if c != clusterID {
			return status.Errorf(codes.FailedPrecondition,
				"a tree's directory on the joining node belongs to cluster %s, this is cluster %s: choose another directory, or remove the .gatesync directory in it if that cluster does not use it any more", c, clusterID)
		}
	}
	if len(req.GetTrees()) == 0 {
		return nil
	}
	var known []string
	for _, t := range s.log.Trees() {
		known = append(known, t.Name)
	}
	var extra, missing []string
	for _, name := range req.GetTrees() {
		if !slices.Contains(known, name) {
			extra = append(extra, name)
		}
	}
	for _, name := range known {
		if !slices.Contains(req.GetTrees(), name) {
			missing = append(missing, name)
		}
	}
	if len(extra)+len(missing) == 0 {
		return nil
	}
	say := fmt.Sprintf("this cluster keeps the trees %s", strings.Join(known, ", "))
	if len(extra) > 0 {
		say += fmt.Sprintf("; it does not know %s", strings.Join(extra, ", "))
	}
	if len(missing) > 0 {
		say += fmt.Sprintf("; the joining node lacks %s", strings.Join(missing, ", "))
	}
	return status.Error(codes.FailedPrecondition, say+": name each with --tree NAME=PATH. A new tree is first added to gatesync.yaml of a member")
}

// tokenAdvice adds what to do to the machine's word.
func tokenAdvice(err error) string {
	fresh := "make a new one with `gatesync token` on a member"
	switch {
	case isCode(err, raftstore.CodeTokenExpired):
		return "the token has expired: " + fresh
	case isCode(err, raftstore.CodeTokenUsedUp):
		return "the token was used up: " + fresh
	case isCode(err, raftstore.CodeTokenUnknown):
		return "this cluster does not know the token (it may have expired and been forgotten): " + fresh
	case isCode(err, raftstore.CodeTokenSecret):
		return "the token's secret is wrong: copy it again as a whole, or " + fresh
	}
	return err.Error()
}
