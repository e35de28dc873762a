package node

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/transport"
)

// Run works until ctx ends, then stops within five seconds: doors first, then
// the trees, then Raft (which hands its leadership over), the network last;
// only a mount that hangs, and a disk that is slow to flush, make it longer. A
// part that fails for good ends the node with its error.
func (n *Node) Run(ctx context.Context) error {
	s := newStages(n.slog, n.opts.Patience)
	n.start(s)
	n.slog.Info("running", "node", n.file.Node, "name", n.file.Name, "cluster", n.file.Cluster,
		"listen", n.server.Addr().String(), "address", n.file.Address, "version", n.opts.Version)
	n.sayProxy()
	var failed error
	select {
	case <-ctx.Done():
		n.slog.Info("stopping")
	case failed = <-s.failed:
		var yield *YieldError
		if errors.As(failed, &yield) {
			n.slog.Warn("stopping to rejoin", "reason", failed)
		} else {
			n.slog.Error("stopping after a failure", "err", failed)
		}
	}
	begun := time.Now()
	for _, g := range n.gates {
		g.Hurry() // all at once: the trees stop one after another
	}
	err := errors.Join(failed, s.stop())
	n.slog.Info("stopped", "took", time.Since(begun).Round(time.Millisecond).String())
	return err
}

// sayProxy says, once, that members are reached through a proxy: on a LAN the
// variable may be meant for others.
func (n *Node) sayProxy() {
	var via []string
	proxy := ""
	for _, m := range n.knownMembers() {
		if name := transport.ProxyName(m.Address); name != "" && m.ID != n.file.Node {
			proxy, via = name, append(via, m.Name)
		}
	}
	if proxy != "" {
		n.slog.Info("members are reached through the HTTP proxy of HTTPS_PROXY; NO_PROXY exempts hosts", "proxy", proxy, "members", via)
	}
}

// start starts everything; what comes later stops earlier. What writes to the
// data directory is told to.
func (n *Node) start(s *stages) {
	s.closer("lock", time.Second, n.lock.Close)
	s.closer("blob store", time.Second, n.blobs.Close).flushes()
	s.run("identity", time.Second, n.heed).flushes()
	s.run("network", time.Second, n.server.Run)
	s.closer("carrier", 2*time.Second, n.closeCarrier).flushes() // of what it receives
	if n.share != nil {
		s.run("share", 2*time.Second, n.share.Run)
	}
	s.closer("log", 2*time.Second, n.log.Close).flushes()
	s.run("log", time.Second, n.log.Guard)
	s.run("log's disk", time.Second, n.log.Failed)
	s.run("members", time.Second, n.followMembers).flushes()
	s.run("hello", time.Second, n.peers.run)
	s.run("following", time.Second, n.following.run).flushes()
	s.run("seen", time.Second, n.seeing().run).flushes() // it writes a last file
	if len(n.cfg.Seeds) > 0 {
		s.run("seeds", time.Second, (&seeds{addrs: n.cfg.Seeds, dial: n.server, peers: n.peers, log: n.slog}).run)
	}
	s.run("announcements", time.Second, (&announcer{self: n.self(), members: n.log, log: n.log, watch: n.log, logger: n.slog}).run)
	s.run("membership", time.Second, n.steering.run)
	s.run("stewards", time.Second, (&stewards{self: n.file.Node, log: n.log, peers: n.peers, fit: n.trees.fit, logger: n.slog}).run)
	s.run("pushers", time.Second, n.pushers().run)
	s.run("formats", time.Second, n.watchFormats)
	s.run("upgrade", time.Second, (&upgrading{self: n.file.Node, log: n.log, slog: n.slog}).run)
	s.run("certificate", time.Second, n.renewer().run).flushes()
	s.run("CA", time.Second, (&replacing{self: n.file.Node, log: n.log, certs: n.certificates, slog: n.slog}).run)
	s.run("memory", time.Second, giveBackMemory)
	s.run("lag", time.Second, func(ctx context.Context) error { return n.trees.track(ctx, n.log) })
	if err := n.openTrees(s); err != nil {
		s.fail(err)
		return
	}
	if n.opts.Visit {
		return
	}
	s.run("keeper", time.Second, n.keeper.run).flushes()
	s.run("targets", 2*time.Second, n.upkeep.Run)
	s.run("refill", time.Second, n.refill).flushes()
	s.run("janitor", time.Second, n.janitor().run).flushes()
	s.run("mender", time.Second, n.mender.run).flushes()
	if n.cfg.Scrub > 0 {
		s.run("scrub", time.Second, n.scrubber.run)
	}
	if n.web != nil {
		s.run("http", 1500*time.Millisecond, n.web.Run)
	}
	s.run("local socket", time.Second, n.serveLocal)
}

func (n *Node) janitor() *janitor {
	return &janitor{
		self: n.file.Node, log: n.log, keep: n.cfg.History, blobs: n.blobs, trees: n.trees, now: n.peers.clock, slog: n.slog,
	}
}

// serveLocal answers the command line; calls under way have a moment.
func (n *Node) serveLocal(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- n.localSrv.Serve(n.local) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	_ = os.Remove(local.Socket(n.cfg.DataDir)) // from now on nobody finds a daemon
	n.localSrv.Stop()                          // calls see their contexts end; a `wait` has nothing to wait for any more
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (n *Node) renewer() *renewer {
	return &renewer{
		identity: n.identity, files: identityFiles(n.cfg), own: n.cfg.TLS.Own(), dial: n.server, now: time.Now, slog: n.slog,
		log: n.log, read: n.caughtUp, prune: n.server.Prune, asked: n.opts.Reload, life: n.cfg.TLS.Lifetime.Std(),
		peers: func() []cluster.NodeID {
			var ids []cluster.NodeID
			for _, m := range n.others() {
				ids = append(ids, m.ID)
			}
			return ids
		},
		sign: func(_ context.Context, csr []byte) (*pb.RenewResponse, error) {
			return n.signSelf(csr)
		},
	}
}

func (n *Node) clusterService() *clusterService {
	return &clusterService{
		self: n.file.Node, log: n.log, peers: n.peers, forward: n.forward, applied: n.waitApplied, standings: n.steering.fresh,
		life: n.cfg.TLS.Lifetime.Std(), now: time.Now, sights: newSights(n.cfg.Trees),
	}
}

func (n *Node) registerCluster() {
	pb.RegisterClusterServer(n.server.GRPC(), n.clusterService())
	pb.RegisterFeedServer(n.server.GRPC(), n.feeding)
	pb.RegisterJoinServer(n.server.JoinGRPC(), &joinServer{
		log: n.log, ready: n.knowsTrees, caPEM: n.identity.CAPEM, life: n.cfg.TLS.Lifetime.Std(), book: n.book.members, now: time.Now, logger: n.slog,
		refusals: n.server.Refusals(), most: n.cfg.MembersMax, members: n.log.Members,
	})
}

func (n *Node) registerLocal() {
	pb.RegisterLocalServer(n.localSrv, &localService{
		self: n.file.Node, log: n.log, dial: n.server, peers: n.peers, trees: n.trees, applied: n.waitApplied, blobs: n.blobs,
		identity: n.identity, status: n.status, targets: n.targetStatus, certs: n.certificates, name: n.file.Name, version: n.opts.Version,
		carrier: n.carrier, moved: n.moved, proposals: n.counted, nowhere: n.keeper.lacking, readAll: n.readAll,
	})
}

// knowsTrees waits until this node can tell joiners what the cluster keeps.
func (n *Node) knowsTrees(ctx context.Context) error {
	if err := n.current(ctx); err != nil {
		return err
	}
	ch, stop := n.log.Watch()
	defer stop()
	for len(n.log.Trees()) == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ch:
		}
	}
	return nil
}
