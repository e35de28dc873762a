package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// signing is the CA of the log, ready to sign, and the bundle of all CAs that
// the members trust.
func signing(log authority, life time.Duration) (ca transport.CA, trusted []byte, err error) {
	id, _, _ := log.Cluster()
	a := log.Authorities()
	if len(a.Key) == 0 {
		return ca, nil, errors.New("this member has no CA key (an own PKI, or its log is not read yet)")
	}
	trusted, err = bundleOf(a)
	return transport.CA{ClusterID: id, Cert: a.Signing.Cert, Key: a.Key, Cross: a.Signing.Cross, Life: life}, trusted, err
}

// bundleOf is what a node's CA file holds: the CA that signs comes first.
func bundleOf(a raftstore.Authorities) ([]byte, error) {
	if a.Also == nil {
		return transport.Bundle(a.Signing.Cert)
	}
	return transport.Bundle(a.Signing.Cert, a.Also.Cert)
}

// caMember is what is known of one member's certificates, as it last said.
type caMember struct {
	name   string
	alive  bool
	trusts []string // fingerprints
	issuer string
}

// caStep is what is due while one CA replaces another.
type caStep int

const (
	caNothing caStep = iota
	caUse            // everybody trusts the new CA: it may sign
	caDrop           // everybody has a certificate of the new CA: the old one may go
)

// nextCA decides the next step of a CA's replacement, and says who is waited
// for, by name: members that are alive, and those that are not.
//
// A new CA may sign once all living members trust it: with the cross
// certificate the others find back to the cluster, and learn of it. Without
// one (an old CA that may not vouch) they are waited for too. The old CA is
// dropped once everybody, dead or alive, has a certificate of the new one:
// whose certificate is of a dropped CA has to join anew.
func nextCA(a raftstore.Authorities, members []caMember) (step caStep, waits, dead []string) {
	if a.Also == nil || len(members) == 0 {
		return caNothing, nil, nil
	}
	step = caDrop
	ready := func(m caMember) bool { return m.issuer == a.Signing.Fingerprint }
	if a.Incoming {
		step = caUse
		ready = func(m caMember) bool { return slices.Contains(m.trusts, a.Also.Fingerprint) }
	}
	for _, m := range members {
		switch {
		case ready(m):
		case m.alive:
			waits = append(waits, m.name)
		default:
			dead = append(dead, m.name)
		}
	}
	bridged := a.Incoming && len(a.Also.Cross) > 0
	if len(waits) > 0 || len(dead) > 0 && !bridged {
		return caNothing, waits, dead
	}
	return step, nil, dead
}

// caLog is what replacing a CA needs of the log.
type caLog interface {
	membership
	watcher
	authority
	ApplyLocal(ctx context.Context, cmd *pb.Command) (*pb.Outcome, uint64, error)
	Format() uint32
}

// replacing drives the replacement of the CA while this node leads. It looks
// at what is and does the next step, so that any later leader goes on. One
// goroutine.
type replacing struct {
	self  cluster.NodeID
	log   caLog
	certs func() []caMember
	slog  *slog.Logger
}

func (r *replacing) run(ctx context.Context) error {
	return asLeader(ctx, r.self, r.log, func(ctx context.Context) {
		if err := r.step(ctx); err != nil && ctx.Err() == nil {
			r.slog.Warn("the replacement of the CA does not get on; trying again", "err", err)
		}
	})
}

func (r *replacing) step(ctx context.Context) error {
	a := r.log.Authorities()
	if a.Also == nil {
		return nil
	}
	step, _, dead := nextCA(a, r.certs())
	cmd := &pb.Command{Format: r.log.Format()}
	switch step {
	case caUse:
		cmd.Do = &pb.Command_UseAuthority{UseAuthority: &pb.UseAuthority{Fingerprint: a.Also.Fingerprint}}
	case caDrop:
		cmd.Do = &pb.Command_DropAuthority{DropAuthority: &pb.DropAuthority{Fingerprint: a.Also.Fingerprint}}
	default:
		return nil
	}
	out, _, err := r.log.ApplyLocal(ctx, command(cmd))
	if err == nil {
		err = raftstore.OutcomeErr(out)
	}
	if err != nil {
		return err
	}
	if step == caUse {
		r.slog.Info("the new CA signs from now on; every node renews its certificate", "ca", a.Also.Fingerprint, "down", dead)
	} else {
		r.slog.Info("the old CA is trusted no more", "ca", a.Also.Fingerprint)
	}
	return nil
}

// certificates tells what the members last said of their certificates, by name.
func (n *Node) certificates() []caMember {
	var out []caMember
	for _, m := range n.log.Members() {
		h, alive := n.peers.last(m.ID)
		c := caMember{name: m.Name, alive: alive, trusts: h.state.GetTrusts(), issuer: h.state.GetIssuer()}
		if m.ID == n.file.Node {
			c.trusts = n.identity.Trusted()
			c.issuer, _ = n.identity.Issuer()
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b caMember) int { return strings.Compare(a.name, b.name) })
	return out
}

// renewExpired makes this node a new certificate where the old one has expired
// while it was off: the CA's key is in its own log. Nobody could be reached
// without one, and a cluster that was off as a whole could not start. A member
// that was removed meanwhile gains nothing by it: it is refused by its id.
func (n *Node) renewExpired() {
	begin, end := n.identity.Validity()
	if now := time.Now(); n.cfg.TLS.Own() || now.After(begin) && now.Before(end) {
		return
	}
	if err := n.renewAlone(); err != nil {
		n.slog.Error("this node's certificate has expired, and it cannot make itself a new one: if the clock is right, "+cluster.ReplaceSelf, "ended", end, "err", err)
		return
	}
	_, now := n.identity.Validity()
	n.slog.Warn("this node's certificate had expired; it has made itself a new one with the CA in its log", "ended", end, "ends", now)
}

func (n *Node) renewAlone() error {
	csr, err := n.identity.CSR()
	if err != nil {
		return err
	}
	res, err := n.signAlone(csr)
	if err != nil {
		return err
	}
	trusted, err := transport.Bundle(res.GetCaPem(), n.identity.CAPEM())
	if err != nil {
		return err
	}
	if err := transport.WriteRenewed(identityFiles(n.cfg), trusted, res.GetCertPem()); err != nil {
		return err
	}
	return n.identity.Reload()
}

// signAlone signs for this node with the CA that its log held at the start.
func (n *Node) signAlone(csr []byte) (*pb.RenewResponse, error) {
	a := n.began.Authorities
	if len(a.Key) == 0 {
		return nil, errors.New("its log holds no CA")
	}
	ca := transport.CA{ClusterID: n.file.Cluster, Cert: a.Signing.Cert, Key: a.Key, Cross: a.Signing.Cross, Life: n.cfg.TLS.Lifetime.Std()}
	cert, err := ca.Sign(csr, n.file.Node, n.file.Name, time.Now())
	return &pb.RenewResponse{CertPem: cert, CaPem: a.Signing.Cert}, err
}

// signSelf signs for this node with the CA of the log. As long as the log is
// not read, the CA that it held at the start has to do.
func (n *Node) signSelf(csr []byte) (*pb.RenewResponse, error) {
	res, err := n.clusterService().sign(n.file.Node, csr)
	if err != nil && !n.caughtUp() {
		return n.signAlone(csr)
	}
	return res, err
}

// RotateCA begins the replacement of the CA, or (finish) ends it although
// members that are down have no certificate of the new one.
func (s *localService) RotateCA(ctx context.Context, req *pb.RotateCARequest) (*pb.RotateCAResponse, error) {
	if err := s.log.Barrier(ctx); err != nil {
		return nil, s.explain(err)
	}
	a := s.log.Authorities()
	if req.GetFinish() {
		return s.finishRotation(ctx, a)
	}
	switch {
	case len(a.Key) == 0:
		return nil, status.Error(codes.FailedPrecondition, "this cluster uses certificates of its operator's own PKI: put both CAs into the CA file of every node, then replace the certificates, then take the old CA out; no restart is needed")
	case a.Also != nil:
		return nil, status.Error(codes.FailedPrecondition, "the CA is being replaced already: see `gatesync status` for how far that is")
	}
	id, _, _ := s.log.Cluster()
	cert, key, err := transport.NewCA(id)
	if err != nil {
		return nil, err
	}
	cross, err := (transport.CA{ClusterID: id, Cert: a.Signing.Cert, Key: a.Key}).CrossSign(cert, time.Now())
	if err != nil {
		return nil, err
	}
	to, err := transport.Fingerprint(cert)
	if err != nil {
		return nil, err
	}
	err = s.do(ctx, &pb.Command{Do: &pb.Command_PutAuthority{PutAuthority: &pb.PutAuthority{
		Authority: &pb.Authority{CertPem: cert, KeyPem: key, CrossPem: cross},
	}}})
	return &pb.RotateCAResponse{From: a.Signing.Fingerprint, To: to}, err
}

func (s *localService) finishRotation(ctx context.Context, a raftstore.Authorities) (*pb.RotateCAResponse, error) {
	if a.Also == nil || a.Incoming {
		return nil, status.Error(codes.FailedPrecondition, "there is no old CA to drop: see `gatesync status` for how far its replacement is")
	}
	s.peers.refresh(ctx) // this daemon may have started just now, and have heard nobody yet
	if _, waits, _ := nextCA(a, s.certs()); len(waits) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "%s: alive, and without a certificate of the new CA yet: wait a moment", strings.Join(waits, ", "))
	}
	err := s.do(ctx, &pb.Command{Do: &pb.Command_DropAuthority{DropAuthority: &pb.DropAuthority{Fingerprint: a.Also.Fingerprint}}})
	return &pb.RotateCAResponse{From: a.Also.Fingerprint, To: a.Signing.Fingerprint}, err
}
