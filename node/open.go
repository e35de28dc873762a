package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback"
	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/web"
)

// Options of Open.
type Options struct {
	Version string
	Log     *slog.Logger // nil: silent
	// Tuning of Raft; the zero value is for production.
	Tuning raftstore.Tuning
	// Visit: the node is here for a one-shot command and soon gone again: no
	// local socket, no HTTP, never promoted to voter.
	Visit bool
	// Reload: a token in it makes the node read certificates of an own PKI anew.
	Reload <-chan struct{}
	// DryRun: trees are opened and looked at, and nothing is done to them.
	DryRun bool
	// Patience is how long the disk may take for the last writes, 0: five
	// seconds. What takes longer is left behind.
	Patience time.Duration
}

// Node is one gatesync. Open builds it, Run runs it and closes it; Close is
// for one that was never run.
type Node struct {
	cfg     config.Config
	opts    Options
	dir     dataDir
	slog    *slog.Logger
	started time.Time
	ignores map[string]*manifest.Ignore
	bootID  string
	// refusals are what members say of this very node, see heed.
	refusals chan error

	// file is who this node is. After Open only its trees change, under fileMu.
	file   nodeFile
	fileMu sync.Mutex

	lock      *os.File
	identity  *transport.Identity
	blobs     *recentBlobs
	book      *book
	seen      *seen
	instances *transport.Instances
	server    *transport.Server
	log       *raftstore.Store
	push      *fallback.Push
	share     *fallback.Share // nil: none was named
	peers     *peers
	forward   *forwarder
	ownRole   ownRole
	feeding   *feeding
	following *following
	trees     *treeSet
	gates     []*vfs.Gate // of the trees' paths; since start
	apart     *apart
	counted   *countedLog
	carrier   *carrier
	keeper    *keeper
	steering  *steering
	mender    *mender
	scrubber  *scrubber
	upkeep    *target.Upkeep // of the targets that this node pushes to
	local     net.Listener   // nil on a visit
	localSrv  *grpc.Server
	web       *web.Server                     // nil where switched off
	began     raftstore.Peeked                // what the log said at the start
	opened    atomic.Pointer[raftstore.Store] // log, for whom it is asked before it is open
	outdated  chan error                      // the cluster has gone beyond what this version understands
	members   atomic.Pointer[memberSet]
	read      atomic.Bool // the log was read once, see caughtUp
	life      lifeProof
	claim     atomic.Pointer[claim] // the latest of a newer life that was not believed
}

// Open takes the lock of a data directory and builds its node. Nothing runs
// before Run.
func Open(cfg config.Config, o Options) (*Node, error) {
	n := &Node{
		cfg: cfg, opts: o, dir: dataDir(cfg.DataDir), slog: o.Log, started: time.Now(), bootID: bootID(),
		outdated: make(chan error, 1), refusals: make(chan error, 1),
	}
	if n.slog == nil {
		n.slog = slog.New(slog.DiscardHandler)
	}
	n.slog = steady(n.slog)
	if err := n.open(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// open builds the parts in the order of their needs. Where it fails, Close
// takes down what stands.
func (n *Node) open() (err error) {
	if n.ignores, err = ignores(n.cfg); err != nil {
		return err
	}
	if n.apart, err = newApart(n.cfg); err != nil {
		return err
	}
	instance, err := n.takeDataDir()
	if err != nil {
		return err
	}
	if err := n.loadIdentity(); err != nil {
		return err
	}
	store, err := openBlobs(n.dir, n.cfg, n.slog)
	if err != nil {
		return err
	}
	n.blobs = newRecentBlobs(store)
	n.book = openBook(n.dir.peers(), n.slog)
	n.seen = openSeen(n.dir.seen(), n.slog)
	if err := n.listen(instance); err != nil {
		return err
	}
	if err := n.openLog(); err != nil {
		return err
	}
	n.ownRole.open(n.file, n.log, n.keepRole)
	n.push = fallback.NewPush(n.file.Node, fallback.StoreOf(n.blobs), connections{n.server}, n.slog)
	n.push.Scratch(n.blobs.Scratch())
	n.push.Limit(int64(n.cfg.Limit))
	if err := n.announceAddress(); err != nil {
		return err
	}
	n.wire()
	if n.opts.Visit {
		return nil
	}
	return n.openDoors()
}

// takeDataDir reads who this node is, and makes the data directory this
// process's own.
func (n *Node) takeDataDir() (instance transport.Instance, err error) {
	if n.file, err = n.dir.readNode(); err != nil { // before the lock, which would make a directory
		return instance, err
	}
	if n.lock, err = n.dir.takeOver(); err != nil {
		return instance, err
	}
	before := n.file.incarnation()
	if n.file.YieldTo <= before { // else the log is given up, whatever it is
		if n.began, err = raftstore.Peek(n.dir.raft()); err != nil { // a newer log is refused before anything is written
			return instance, err
		}
	}
	if n.file, instance, err = n.dir.begin(n.slog); err != nil {
		return instance, err
	}
	n.dir.keepSpare()
	if n.file.incarnation() != before { // the log was given up
		n.began = raftstore.Peeked{}
	}
	return instance, nil
}

// loadIdentity reads key and certificate, and renews a certificate that has
// expired.
func (n *Node) loadIdentity() (err error) {
	n.identity, err = transport.LoadIdentity(identityFiles(n.cfg))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !n.cfg.TLS.Own():
		return fmt.Errorf("%w (%w)", &PartError{DataDir: string(n.dir), Part: "tls"}, err)
	case err != nil:
		return fmt.Errorf("this node's identity: %w; restore the file from a backup; or "+cluster.ReplaceSelf, err)
	}
	n.renewExpired()
	return nil
}

// listen opens the one port for everything between nodes.
func (n *Node) listen(instance transport.Instance) (err error) {
	n.instances = transport.NewInstances(n.file.Node, instance, n.seen.runs(), n.seen.poke)
	n.server, err = transport.Listen(transport.Config{
		Listen: n.cfg.Listen, Identity: n.identity, ClusterID: n.file.Cluster, Self: n.file.Node,
		Resolve: n.book.address, Found: n.book.found, Failed: n.book.failed, Member: n.isMember, Lookup: n.lookup, Log: n.slog,
		Formats:  transport.Formats{Knows: raftstore.Newest, Active: n.activeFormat, Outdated: n.stopOutdated},
		Instance: instance, Instances: n.instances, Refused: n.refusedBy, Proof: n.proof,
	})
	return err
}

func (n *Node) openLog() (err error) {
	n.forward = &forwarder{dial: n.server, self: n.file.Node}
	n.log, err = raftstore.Open(raftstore.Config{
		Dir: n.dir.raft(), ID: n.file.Node, Stream: n.server.Raft(), Log: n.slog,
		Forward: n.forward, Tuning: n.opts.Tuning, Reserve: logReserve(n.cfg),
		FirstSequence: n.file.incarnation().Number() << 40,
	})
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	n.opened.Store(n.log)
	return nil
}

// logReserve is what the log leaves free: an eighth of what content leaves, so
// that metadata still goes on where content no longer fits.
func logReserve(cfg config.Config) int64 { return max(1, int64(cfg.FreeReserve)/8) }

// announceAddress compares where this node is with where it last said to be.
func (n *Node) announceAddress() error {
	addr, _, err := ownAddress(n.cfg, n.server.Addr().String())
	if err != nil {
		return err
	}
	if !n.file.HasLog {
		n.file.HasLog = true // it is open
		if err := n.dir.writeNode(n.file); err != nil {
			return err
		}
	}
	if addr != n.file.Address || n.cfg.Name != n.file.Name {
		n.file.Address, n.file.Name = addr, n.cfg.Name
		n.file.Epoch++
		if err := n.dir.writeNode(n.file); err != nil {
			return err
		}
		n.slog.Info("this node has another address or name than before", "address", addr, "name", n.cfg.Name)
	}
	n.book.learn(n.self())
	return nil
}

// self is what is true of this node.
func (n *Node) self() cluster.Member {
	return cluster.Member{
		ID: n.file.Node, Name: n.file.Name, Address: n.file.Address, Store: n.blobs.ID(), Epoch: n.file.Epoch,
		Format: raftstore.Newest, Witness: n.witness(), Role: n.roleOfSelf(),
	}
}

// witness tells whether this node has no tree: it holds the log and the content.
func (n *Node) witness() bool { return len(n.cfg.Trees) == 0 }

// wire connects the parts with each other.
func (n *Node) wire() {
	n.wireFollowers()
	n.peers = &peers{
		self: n.file.Node, members: n.spokenTo, place: n.place(), dial: n.server, book: n.book, state: n.state,
		now: time.Now, log: n.slog, heard: map[cluster.NodeID]*heard{}, reached: n.instances.Reached, started: n.started,
		back: func() {
			for _, t := range n.trees.all() {
				t.syncr.PeerBack()
			}
		},
		strangers: n.strangers, told: n.ownRole.hear,
	}
	n.trees = newTreeSet(len(n.cfg.Trees), n.slog)
	n.counted = newCountedLog(n.log)
	n.carrier = &carrier{self: n.file.Node, members: n.log, alive: n.peers.alive, way: n.chain(), follows: n.follows, upstream: n.following.upstream, missing: missingThere}
	n.keeper = &keeper{log: n.log, blobs: n.blobs.Store, fetch: n.carrier.Fetch, coming: n.carrier.coming, logger: n.slog}
	n.mender = &mender{janitor: n.janitor(), blobs: n.blobs, trees: n.trees, current: n.current, fetch: n.carrier.Fetch, coming: n.carrier.coming, again: mendAgain, slog: n.slog}
	n.upkeep = n.newUpkeep()
	n.scrubber = &scrubber{blobs: n.blobs, every: n.cfg.Scrub.Std(), slog: n.slog}
	n.steering = &steering{
		self: n.file.Node, group: n.log, peers: n.peers, now: time.Now, log: n.slog,
		lacks:  n.keeper.missing.Load,
		policy: raftstore.Policy{Wanted: n.cfg.Voters, Reap: n.cfg.ReapAfter.Std()},
	}
	n.push.Observe(fallback.Observer{
		Caller: func(ctx context.Context) cluster.NodeID { id, _ := transport.Peer(ctx); return id },
		Refused: func(peer cluster.NodeID, what string, why error) {
			n.server.Refusals().Note(string(peer), what, why)
		},
	})
	n.push.Register(n.server.GRPC())
	n.registerCluster()
}

// openDoors opens what only a daemon has: the socket and the HTTP port.
func (n *Node) openDoors() (err error) {
	if n.cfg.HTTP != "" {
		n.web, err = web.Listen(web.Config{Listen: n.cfg.HTTP, Source: n, MaxLag: n.cfg.Ready.MaxLag.Std(), Log: n.slog})
		if err != nil {
			return err
		}
	}
	if n.local, err = local.Listen(n.cfg.DataDir); err != nil {
		return err
	}
	n.localSrv = grpc.NewServer(local.ServerOptions()...)
	n.registerLocal()
	return nil
}

// Close gives up a node that was never run. Run closes by itself.
func (n *Node) Close() error {
	var errs []error
	if n.local != nil {
		errs = append(errs, n.local.Close(), os.Remove(local.Socket(n.cfg.DataDir)))
	}
	if n.web != nil {
		errs = append(errs, n.web.Close())
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.push != nil {
		errs = append(errs, n.closeCarrier())
	}
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	if n.blobs != nil {
		errs = append(errs, n.blobs.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// others lists the members without this node: those of the log, and, while the
// log is not read, those of the address book.
func (n *Node) others() []cluster.Member {
	all := n.log.Members()
	if !contains(all, n.file.Node) {
		all = n.book.members()
	}
	out := all[:0:0]
	for _, m := range all {
		if m.ID != n.file.Node {
			out = append(out, m)
		}
	}
	return out
}

// bootID tells two boots of the machine apart; "" where that is unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// state is what this node says of itself to others.
func (n *Node) state(ctx context.Context) *pb.NodeState {
	leader, _ := n.log.Leader()
	applied := manifest.Revision(0)
	if !n.opts.DryRun { // trees that do not run do not answer
		applied = n.applied(ctx)
	}
	issuer, _ := n.identity.Issuer()
	term, through, last := n.log.Extent()
	return &pb.NodeState{
		LogTerm: term, LogApplied: through, LogLast: last, Trusts: n.identity.Trusted(), Issuer: issuer,
		Id: string(n.file.Node), ClusterId: n.file.Cluster, Version: n.opts.Version, Format: raftstore.Newest,
		Store: n.blobs.ID(), Revision: uint64(n.log.Revision()), Applied: uint64(applied), ClockNs: time.Now().UnixNano(),
		Leader: string(leader), Raft: !n.ownRole.kept.Load(), Visit: n.opts.Visit,
		Trees:   n.trees.states(),
		Content: uint64(n.keeper.content()), Missing: n.keeper.missing.Load(), Looked: n.keeper.looked.Load(),
		ShareNonce: n.shareNonce(),
		Lacks:      n.keeper.lacking(),
		Targets:    n.pushedTo(),
	}
}

// applied is the revision that all trees have applied; a witness applies one by
// holding its content.
func (n *Node) applied(ctx context.Context) manifest.Revision {
	if n.witness() {
		return n.keeper.content()
	}
	return n.trees.applied(ctx)
}

// waitApplied waits until it is at least rev.
func (n *Node) waitApplied(ctx context.Context, rev manifest.Revision) (manifest.Revision, error) {
	if n.witness() {
		err := n.keeper.waitContent(ctx, rev)
		return n.keeper.content(), err
	}
	return n.trees.waitApplied(ctx, rev)
}
