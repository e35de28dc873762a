package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/doctor"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/syncer"
	"github.com/gatesync/gatesync/transport"
)

// localWithin is how long a daemon may take to answer on its socket.
const localWithin = 5 * time.Second

// Surveyed is what `doctor` asks package node, beside what it finds out about
// the machine.
type Surveyed struct {
	dir  dataDir
	cfg  config.Config
	file nodeFile

	DaemonPID  int // 0: no daemon has the data directory
	DaemonHung bool
	Damaged    []string // parts of the data directory that cannot be read, and why
	KeyFile    string

	cluster doctor.Cluster
	members []cluster.Member // without this node
}

// Survey reads what this node knows of itself and its cluster: from its daemon,
// or from its data directory where none runs. It changes nothing and asks
// nobody else yet.
func Survey(ctx context.Context, cfg config.Config) (*Surveyed, error) {
	s := &Surveyed{dir: dataDir(cfg.DataDir), cfg: cfg, KeyFile: identityFiles(cfg).Key}
	var err error
	if s.file, err = s.dir.readNode(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		s.Damaged = append(s.Damaged, err.Error())
		s.cluster.Err = err.Error()
		return s, nil
	}
	s.cluster.Node, s.cluster.Name, s.cluster.OwnPKI = string(s.file.Node), s.file.Name, cfg.TLS.Own()
	s.DaemonPID = s.dir.holder()
	if s.DaemonPID != 0 {
		if err := s.askDaemon(ctx); err != nil {
			s.DaemonHung = true
			s.cluster.Err = err.Error()
		}
		return s, nil
	}
	s.readStopped()
	return s, nil
}

// holder returns the process that has the lock of the data directory, 0 for
// none.
func (d dataDir) holder() int {
	f, err := os.Open(d.lockFile())
	if err != nil {
		return 0
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return 0 // closing lets go of it again
	}
	b, _ := io.ReadAll(io.LimitReader(f, 20))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return max(pid, 1)
}

// askDaemon takes over what the daemon says of itself.
func (s *Surveyed) askDaemon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, localWithin)
	defer cancel()
	conn, err := local.Dial(ctx, s.cfg.DataDir)
	if err != nil {
		return err
	}
	defer conn.Close()
	res, err := pb.NewLocalClient(conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return err
	}
	var st Status
	if err := json.Unmarshal(res.GetJson(), &st); err != nil {
		return err
	}
	c := &s.cluster
	c.Running, c.Leader, c.Quorum = true, st.Leader, st.Quorum
	for _, m := range st.Members {
		if m.ID == string(s.file.Node) {
			c.Voter = m.Votes
			continue
		}
		role := cluster.NonVoter
		if m.Votes {
			role = cluster.Voter
		}
		s.members = append(s.members, cluster.Member{ID: cluster.NodeID(m.ID), Name: m.Name, Address: m.Address, Role: role})
	}
	for _, t := range st.Trees {
		c.LogTrees = append(c.LogTrees, doctor.SeenTree{Name: t.Name, Storage: t.Storage, Root: t.Root, Why: t.StorageWhy, Steward: t.Steward})
	}
	for _, w := range st.Carriers {
		if w.Name == "share" {
			c.Share = &doctor.SeenShare{Well: w.Well, Why: w.Why, Members: w.Members}
		}
	}
	if st.Data.Trouble != "" {
		s.Damaged = append(s.Damaged, st.Data.Trouble)
	}
	if n := st.Blobs.Corrupt; n > 0 {
		s.Damaged = append(s.Damaged, fmt.Sprintf("%d blobs were found damaged since the daemon started, %d were brought back", n, st.Blobs.Mended))
	}
	for _, l := range st.Blobs.Lost {
		s.Damaged = append(s.Damaged, fmt.Sprintf("blob %s (%d bytes) is lost: no member that can be reached has it", l.Digest, l.Size))
	}
	return nil
}

// readStopped reads the data directory of a node whose daemon does not run.
func (s *Surveyed) readStopped() {
	if _, err := readSeen(s.dir.seen()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Damaged = append(s.Damaged, err.Error())
	}
	lock, err := s.dir.lock()
	if err != nil {
		s.cluster.Err = err.Error()
		return
	}
	defer lock.Close()
	log, err := raftstore.Replay(s.dir.raft(), 0, 0, nil)
	if err != nil {
		s.cluster.Err = err.Error()
		if !errors.Is(err, raftstore.ErrNoLog) {
			s.Damaged = append(s.Damaged, err.Error())
		}
		return
	}
	roles := map[cluster.NodeID]cluster.Role{}
	for _, m := range log.Servers {
		roles[m.ID] = m.Role
	}
	book := openBook(s.dir.peers(), slog.New(slog.DiscardHandler))
	for _, m := range log.Machine.Members() {
		if m.ID == s.file.Node {
			s.cluster.Voter = roles[m.ID] == cluster.Voter
			continue
		}
		if addr, ok := book.address(m.ID); ok {
			m.Address = addr
		}
		m.Role = roles[m.ID]
		s.members = append(s.members, m)
	}
}

// JudgeMarker compares the marker of a tree's root with what this node expects.
func (s *Surveyed) JudgeMarker(tree string, marker []byte) error {
	t, ok := s.file.tree(tree)
	if !ok || t.New {
		return nil // it is still being agreed upon
	}
	return syncer.CheckMarker(marker, s.file.Cluster, t.ID, t.Generation, t.KeepFrom)
}

// Ask speaks to every member, as this node, and has each say whether it sees
// what stands under .gatesync of its trees: nonces, by tree.
func (s *Surveyed) Ask(ctx context.Context, nonces map[string]string) doctor.Cluster {
	c := s.cluster
	if c.Err != "" {
		return c
	}
	identity, err := transport.LoadIdentity(identityFiles(s.cfg))
	if err != nil {
		c.Err = "this node's identity: " + err.Error()
		return c
	}
	c.CertBegins, c.CertEnds = identity.Validity()
	_, c.CAEnds = identity.Issuer()
	c.Members = make([]doctor.Member, len(s.members))
	var asks sync.WaitGroup
	for i, m := range s.members {
		asks.Go(func() { c.Members[i] = s.ask(ctx, identity, m, nonces) })
	}
	asks.Wait()
	slices.SortFunc(c.Members, func(a, b doctor.Member) int { return cmp.Compare(a.Name, b.Name) })
	return c
}

// meetWithin bounds everything with one member.
const meetWithin = 10 * time.Second

func (s *Surveyed) ask(ctx context.Context, identity *transport.Identity, m cluster.Member, nonces map[string]string) doctor.Member {
	out := doctor.Member{Name: m.Name, Address: m.Address, Voter: m.Role == cluster.Voter, Proxy: transport.ProxyName(m.Address)}
	ctx, cancel := context.WithTimeout(ctx, meetWithin)
	defer cancel()
	met, conn, err := transport.Meet(ctx, m.Address, identity, s.file.Cluster, transport.Instance{Incarnation: s.file.incarnation()})
	var clocks *transport.ClockError
	if errors.As(err, &clocks) && !clocks.There.IsZero() {
		out.Clock, out.HasClock = clocks.There.Sub(clocks.Here), true
	}
	if err == nil && met.Node != m.ID {
		err = errors.Join(&transport.PeerMismatchError{Addr: m.Address, Want: m.ID, Have: met.Node}, conn.Close())
	}
	if err != nil {
		out.Err, out.Disowns = err.Error(), errors.Is(err, cluster.ErrNotMember)
		return out
	}
	defer conn.Close()
	out.Took, out.Clock, out.ClockErr, out.HasClock, out.CertEnds = met.Took, met.Ahead, met.Took/2, true, met.CertEnds
	for tree, nonce := range nonces {
		sight := doctor.Sight{Tree: tree}
		res, err := pb.NewClusterClient(conn).Sees(ctx, &pb.SeesRequest{Tree: tree, Nonce: nonce})
		if err != nil {
			sight.Err = err.Error()
		} else {
			sight.Has, sight.Sees, sight.Err = res.GetHas(), res.GetSees(), res.GetError()
		}
		out.Sights = append(out.Sights, sight)
	}
	slices.SortFunc(out.Sights, func(a, b doctor.Sight) int { return cmp.Compare(a.Tree, b.Tree) })
	return out
}
