package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

const treeName = "server"

// stores is a cluster of logs in one process, whose nodes can be stopped.
type stores struct {
	t   *testing.T
	dir string
	net *network
	ids []cluster.NodeID

	mu sync.RWMutex // held for writing while a node stops or starts
	up map[cluster.NodeID]*raftstore.Store
}

func (s *stores) config(id cluster.NodeID) raftstore.Config {
	return raftstore.Config{Dir: filepath.Join(s.dir, string(id)), ID: id, Reserve: -1, Tuning: raftstore.Tuning{
		Heartbeat: 150 * time.Millisecond, Election: 150 * time.Millisecond, Lease: 100 * time.Millisecond,
		Commit: 50 * time.Millisecond, RPC: 500 * time.Millisecond,
		SnapshotInterval: 100 * time.Millisecond, SnapshotThreshold: 64, TrailingLogs: 16,
	}}
}

func member(id cluster.NodeID) cluster.Member {
	return cluster.Member{ID: id, Name: "name-" + string(id), Store: "s-" + string(id), Joined: 1}
}

// found makes a cluster of voters with one tree.
func found(t *testing.T, seed uint64, ids ...cluster.NodeID) *stores {
	t.Helper()
	s := &stores{t: t, dir: t.TempDir(), net: newNetwork(seed), ids: ids, up: map[cluster.NodeID]*raftstore.Store{}}
	t.Cleanup(func() {
		for _, id := range ids {
			s.stop(id)
		}
		s.net.bg.Wait()
	})
	s.must(raftstore.Bootstrap(s.config(ids[0]), &pb.InitCluster{ClusterId: "c-1"}, member(ids[0])))
	s.must(s.start(ids[0]))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	do := func(cmd *pb.Command) {
		t.Helper()
		cmd.Format = raftstore.Format
		out, err := s.up[ids[0]].Do(ctx, cmd)
		s.must(errors.Join(err, raftstore.OutcomeErr(out)))
	}
	do(&pb.Command{Do: &pb.Command_PutTree{PutTree: &pb.PutTree{Name: treeName, Id: "t-1", Generation: 1}}})
	for _, id := range ids[1:] {
		s.must(s.start(id))
		do(&pb.Command{Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: raftstore.FromMember(member(id))}}})
		s.insist(ctx, func(leader *raftstore.Store) error { return leader.AddNonVoter(ctx, id) })
		s.await(ctx, id+" catches up", s.up[id].CaughtUp)
		s.insist(ctx, func(leader *raftstore.Store) error { return leader.Promote(ctx, id) })
	}
	return s
}

// patience is how long a busy machine may take for what takes no time.
const patience = 2 * time.Minute

// insist changes the members with whoever leads, until it works: with elections as
// short as these a busy machine has them at any time.
func (s *stores) insist(ctx context.Context, change func(leader *raftstore.Store) error) {
	s.t.Helper()
	for {
		err := change(s.up[s.leader()])
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			s.t.Fatal(err)
		}
	}
}

func (s *stores) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stores) await(ctx context.Context, what cluster.NodeID, is func() bool) {
	s.t.Helper()
	for !is() {
		select {
		case <-time.After(20 * time.Millisecond): // the age of a contact is not told
		case <-ctx.Done():
			s.t.Fatalf("not in time: %s", what)
		}
	}
}

// start opens a node. It runs on any goroutine.
func (s *stores) start(id cluster.NodeID) error {
	cfg := s.config(id)
	listener, err := s.net.layer(id)
	if err != nil {
		return err
	}
	cfg.Stream, cfg.Forward = listener, forwarder{id, s.net}
	store, err := raftstore.Open(cfg)
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", id, err), listener.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up[id] = store
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.stores[id] = store
	return nil
}

// stop ends a node; nothing if it does not run.
func (s *stores) stop(id cluster.NodeID) {
	s.t.Helper()
	s.mu.Lock()
	store := s.up[id]
	delete(s.up, id)
	s.mu.Unlock()
	s.net.mu.Lock()
	delete(s.net.stores, id)
	s.net.mu.Unlock()
	if store == nil {
		return
	}
	if err := store.Close(); err != nil {
		s.t.Errorf("close %s: %v", id, err)
	}
}

func (s *stores) get(id cluster.NodeID) *raftstore.Store {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.up[id]
}

// leader is whoever thinks that it leads, else the first.
func (s *stores) leader() cluster.NodeID {
	for _, id := range s.ids {
		if st := s.get(id); st != nil && st.Stats()["state"] == "Leader" {
			return id
		}
	}
	return s.ids[0]
}

// around are the links of a node, to it and from it.
func (s *stores) around(id cluster.NodeID) (out, in []link) {
	for _, other := range s.ids {
		if other != id {
			out, in = append(out, link{id, other}), append(in, link{other, id})
		}
	}
	return out, in
}

// storeClient is a client at one node.
type storeClient struct {
	of *stores
	id cluster.NodeID
}

var errDown = errors.New("the node is down")

func (c storeClient) Propose(ctx context.Context, p Propose) (Proposed, error) {
	store := c.of.get(c.id)
	if store == nil {
		return Proposed{}, cluster.NotCommitted(errDown)
	}
	set := manifest.Changeset{Tree: treeName, Message: p.Tag, Origin: manifest.Origin{Kind: manifest.FromAPI}}
	if p.Atomic {
		set.Mode = manifest.Atomic
	}
	for _, c := range p.Changes {
		ch := manifest.Change{Path: manifest.Path(c.Path), Expect: manifest.Revision(c.Expect)}
		if c.Digest != "" {
			d, err := manifest.ParseDigest(c.Digest)
			if err != nil {
				return Proposed{}, cluster.NotCommitted(err)
			}
			ch.New = manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: ContentSize, Digest: d}
		}
		set.Changes = append(set.Changes, ch)
	}
	for _, id := range c.of.ids {
		set.Receipts = append(set.Receipts, manifest.Receipt{Node: string(id), Store: member(id).Store})
	}
	res, err := store.Propose(ctx, set)
	return ProposedOf(res), err
}

func (c storeClient) Read(ctx context.Context, r Read) (Found, error) {
	store := c.of.get(c.id)
	if store == nil {
		return Found{}, errDown
	}
	if err := store.Barrier(ctx); err != nil {
		return Found{}, err
	}
	return viewOf(store, r)
}

func (c storeClient) ReadLocal(_ context.Context, r Read) (Found, error) {
	store := c.of.get(c.id)
	if store == nil {
		return Found{}, errDown
	}
	return viewOf(store, r)
}

func viewOf(store *raftstore.Store, r Read) (Found, error) {
	view, ok := store.View(treeName)
	if !ok {
		return Found{}, errors.New("no such tree yet")
	}
	f := Found{Revision: uint64(view.Revision), Values: map[string]Value{}}
	for _, p := range r.Paths {
		if n, ok := view.Manifest.Get(manifest.Path(p)); ok {
			f.Values[p] = ValueOf(n)
		}
	}
	return f, nil
}

// trouble makes faults until ctx ends, each for a while; afterwards all is well
// again.
func (s *stores) trouble(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		end := s.fault(rng)
		pause(ctx, time.Duration(100+rng.IntN(700))*time.Millisecond)
		end()
		pause(ctx, time.Duration(rng.IntN(500))*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// fault begins one fault and returns how to end it.
func (s *stores) fault(rng *rand.Rand) (end func()) {
	victim := s.ids[rng.IntN(len(s.ids))]
	if rng.IntN(2) == 0 {
		victim = s.leader()
	}
	out, in := s.around(victim)
	both := append(out, in...)
	state := []how{refuses, swallow}[rng.IntN(2)]
	s.net.weather(rng.IntN(2) == 0, rng.IntN(3) == 0)
	switch dice := rng.IntN(6); dice {
	case 0: // nobody reaches it, and it reaches nobody
		s.net.set(state, both...)
	case 1: // it reaches nobody
		s.net.set(state, out...)
	case 2: // nobody reaches it
		s.net.set(state, in...)
	case 3: // killed: cut off first, so that it cannot hand over what it leads
		s.net.set(refuses, both...)
		s.stop(victim)
		return func() { s.net.set(fine, both...); s.again(victim) }
	case 4: // asked to end, in the middle of everything
		s.stop(victim)
		return func() { s.again(victim) }
	case 5: // the weather alone
	}
	return func() { s.net.set(fine, both...) }
}

// again starts a node that was stopped. It runs on any goroutine.
func (s *stores) again(id cluster.NodeID) {
	if err := s.start(id); err != nil {
		s.t.Error(err)
	}
}

// log is what all nodes agree on in the end.
func (s *stores) log() []Commit {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var logs [][]Commit
	for _, id := range s.ids {
		store := s.get(id)
		if store == nil {
			s.t.Fatalf("%s does not run in the end", id)
		}
		if err := store.Barrier(ctx); err != nil {
			for _, id := range s.ids {
				s.t.Logf("%s: %v", id, s.get(id).Stats())
			}
			s.t.Fatalf("%s does not learn what is committed: %v", id, err)
		}
	}
	for _, id := range s.ids {
		logs = append(logs, CommitsOf(s.get(id).History("", 0, 0)))
	}
	for i, l := range logs {
		if !Same(l, logs[0]) {
			s.t.Fatalf("%s and %s disagree on the history", s.ids[i], s.ids[0])
		}
	}
	return logs[0]
}

// Clients at all nodes, faults among them, one order.
func TestPromise_Order_ConcurrentProposalsAreLinearizable(t *testing.T) {
	span, until := 2*time.Second, time.Now()
	if soak, err := time.ParseDuration(os.Getenv("GATESYNC_SOAK")); err == nil {
		span, until = 10*time.Second, time.Now().Add(soak)
	}
	seed := uint64(time.Now().UnixNano())
	for _, fixed := range []uint64{1, 2, 3} {
		linearizable(t, fixed, span)
	}
	if s, err := strconv.ParseUint(os.Getenv("GATESYNC_SEED"), 10, 64); err == nil {
		seed, until = s, time.Now()
	}
	for linearizable(t, seed, span); time.Now().Before(until); seed++ {
		linearizable(t, seed, span)
	}
}

func linearizable(t *testing.T, seed uint64, span time.Duration) {
	t.Helper()
	t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) {
		s := found(t, seed, "n-1", "n-2", "n-3")
		w := Work{
			Seed: seed, Timeout: time.Second, Pause: 10 * time.Millisecond, Patience: patience,
			Groups: [][]string{{"a1", "a2", "a3", "a4"}, {"b1"}, {"c1", "c2"}},
		}
		for range 3 {
			for _, id := range s.ids {
				w.Clients = append(w.Clients, storeClient{s, id})
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		var faults sync.WaitGroup
		faults.Go(func() {
			s.trouble(ctx, rand.New(rand.NewPCG(seed, 2)))
			s.net.weather(false, false)
		})
		h := Run(ctx, w)
		faults.Wait()
		counts := h.Counts()
		t.Logf("seed %d: %+v", seed, counts)
		if !counts.Enough() {
			t.Errorf("seed %d: too little happened to say anything: %+v", seed, counts)
		}
		if err := Check(h, w.Groups, s.log()); err != nil {
			t.Errorf("%v\nrun it again: GATESYNC_SEED=%d go test -tags hashicorpmetrics -run ConcurrentProposals ./integration/linear", err, seed)
		}
	})
}
