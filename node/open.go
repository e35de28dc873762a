package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
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
	// DryRun: trees are opened and looked at, and nothing is done to them.
	DryRun bool
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

	// file is who this node is. After Open only its trees change, under fileMu.
	file   nodeFile
	fileMu sync.Mutex

	lock     *os.File
	identity *transport.Identity
	blobs    *recentBlobs
	book     *book
	server   *transport.Server
	log      *raftstore.Store
	push     *fallback.Push
	peers    *peers
	trees    *treeSet
	counted  *countedLog
	carrier  *carrier
	local    net.Listener // nil on a visit
	localSrv *grpc.Server
	web      *web.Server // nil where switched off
	mender   *mender
	scrubber *scrubber
	members  atomic.Pointer[memberSet]
	read     atomic.Bool // the log was read once, see caughtUp
}

// Open takes the lock of a data directory and builds its node. Nothing runs
// before Run.
func Open(cfg config.Config, o Options) (*Node, error) {
	n := &Node{cfg: cfg, opts: o, dir: dataDir(cfg.DataDir), slog: o.Log, started: time.Now(), bootID: bootID()}
	if n.slog == nil {
		n.slog = slog.New(slog.DiscardHandler)
	}
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
	if n.file, err = n.dir.readNode(); err != nil {
		return err
	}
	if n.lock, err = n.dir.lock(); err != nil {
		return err
	}
	if n.identity, err = transport.LoadIdentity(identityFiles(n.cfg)); err != nil {
		return fmt.Errorf("this node's identity: %w; restore the file from a backup, or remove this node and `gatesync join … --again`", err)
	}
	store, err := blob.Open(n.dir.blobs(), blob.Options{Reserve: int64(n.cfg.FreeReserve), Log: n.slog})
	if err != nil {
		return fmt.Errorf("open the blob store: %w", err)
	}
	n.blobs = newRecentBlobs(store)
	n.book = openBook(n.dir.peers(), n.slog)
	n.server, err = transport.Listen(transport.Config{
		Listen: n.cfg.Listen, Identity: n.identity, ClusterID: n.file.Cluster, Self: n.file.Node,
		Resolve: n.book.address, Member: n.isMember, Lookup: n.lookup, Log: n.slog,
	})
	if err != nil {
		return err
	}
	n.log, err = raftstore.Open(raftstore.Config{
		Dir: n.dir.raft(), ID: n.file.Node, Stream: n.server.Raft(), Log: n.slog,
		Forward: &forwarder{dial: n.server}, Tuning: n.opts.Tuning,
	})
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	n.push = fallback.NewPush(n.file.Node, fallback.StoreOf(n.blobs), connections{n.server}, n.slog)
	if err := n.announceAddress(); err != nil {
		return err
	}
	n.wire()
	if n.opts.Visit {
		return nil
	}
	return n.openDoors()
}

// announceAddress compares where this node is with where it last said to be.
func (n *Node) announceAddress() error {
	addr, _, err := ownAddress(n.cfg, n.server.Addr().String())
	if err != nil {
		return err
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
	return cluster.Member{ID: n.file.Node, Name: n.file.Name, Address: n.file.Address, Store: n.blobs.ID(), Epoch: n.file.Epoch}
}

// wire connects the parts with each other.
func (n *Node) wire() {
	n.peers = &peers{
		self: n.file.Node, members: n.others, dial: n.server, book: n.book, state: n.state,
		now: time.Now, log: n.slog, heard: map[cluster.NodeID]*heard{},
	}
	n.trees = newTreeSet(len(n.cfg.Trees), n.slog)
	n.counted = newCountedLog(n.log)
	n.carrier = &carrier{self: n.file.Node, members: n.log, alive: n.peers.alive, way: n.push}
	n.mender = &mender{janitor: n.janitor(), blobs: n.blobs, trees: n.trees, fetch: n.carrier.Fetch, again: mendAgain, slog: n.slog}
	n.scrubber = &scrubber{blobs: n.blobs, every: n.cfg.Scrub.Std(), slog: n.slog}
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
	if n.local, err = listenLocal(n.cfg.DataDir); err != nil {
		return err
	}
	n.localSrv = grpc.NewServer(transport.StatusServerOptions()...)
	n.registerLocal()
	return nil
}

// Close gives up a node that was never run. Run closes by itself.
func (n *Node) Close() error {
	var errs []error
	if n.local != nil {
		errs = append(errs, n.local.Close(), os.Remove(n.dir.join(socketName)))
	}
	if n.web != nil {
		errs = append(errs, n.web.Close())
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.push != nil {
		errs = append(errs, n.push.Close())
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
		applied = n.trees.applied(ctx)
	}
	return &pb.NodeState{
		Id: string(n.file.Node), ClusterId: n.file.Cluster, Version: n.opts.Version, Format: raftstore.Format,
		Store: n.blobs.ID(), Revision: uint64(n.log.Revision()), Applied: uint64(applied), ClockNs: time.Now().UnixNano(),
		Leader: string(leader), Raft: true, Visit: n.opts.Visit,
	}
}
