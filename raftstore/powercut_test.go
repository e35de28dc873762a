package raftstore

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/integration/powercut"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// cutting notes, before the nth thing that a log does to its disk, what a power
// cut then leaves, and what had been acknowledged until then. All that it counts
// happens one after the other, but not all of it while somebody waits for it: a
// leader has entries of its own.
type cutting struct {
	power *powercut.Disk
	at    int

	mu    sync.Mutex
	n     int
	acked []manifest.Path // so far
	kept  []manifest.Path // at the cut
	err   error
}

func (c *cutting) step() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n++; c.n == c.at {
		c.kept, c.err = append([]manifest.Path{}, c.acked...), c.power.Snapshot()
	}
}

func (c *cutting) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at > 0 && c.n >= c.at
}

func (c *cutting) ack(p manifest.Path) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked = append(c.acked, p)
}

// cutLogs and cutStable list what they count: a new method of either interface
// does not compile until it is one of the steps, or said to be none.
type cutLogs struct {
	of *cutting
	in logs
}

var _ raft.LogStore = cutLogs{}

func (c cutLogs) FirstIndex() (uint64, error)        { return c.in.FirstIndex() }
func (c cutLogs) LastIndex() (uint64, error)         { return c.in.LastIndex() }
func (c cutLogs) GetLog(i uint64, l *raft.Log) error { return c.in.GetLog(i, l) }
func (c cutLogs) StoreLog(l *raft.Log) error         { c.of.step(); return c.in.StoreLog(l) }
func (c cutLogs) StoreLogs(l []*raft.Log) error      { c.of.step(); return c.in.StoreLogs(l) }
func (c cutLogs) DeleteRange(from, to uint64) error  { c.of.step(); return c.in.DeleteRange(from, to) }

type cutStable struct {
	of *cutting
	in raft.StableStore
}

var _ raft.StableStore = cutStable{}

func (c cutStable) Get(k []byte) ([]byte, error)       { return c.in.Get(k) }
func (c cutStable) GetUint64(k []byte) (uint64, error) { return c.in.GetUint64(k) }
func (c cutStable) Set(k, v []byte) error              { c.of.step(); return c.in.Set(k, v) }
func (c cutStable) SetUint64(k []byte, v uint64) error { c.of.step(); return c.in.SetUint64(k, v) }

// The power is cut at every operation of a log's disk: an entry, a term, a vote,
// a snapshot, the end of what is behind it. The log opens whole, with everything
// that was acknowledged, and goes on.
func TestPromise_Order_PowerCutInTheLog(t *testing.T) {
	stride := 6
	if os.Getenv("GATESYNC_LONG") != "" {
		stride = 1
	}
	for n, more := 2, true; more; n += stride {
		t.Run(fmt.Sprintf("operation %d", n), func(t *testing.T) {
			cut := &cutting{power: powercut.New(t), at: n}
			c := newTestCluster(t)
			c.dir = filepath.Join(cut.power.Path, "data")
			c.tune.TrailingLogs = 3
			c.must(os.Mkdir(c.dir, 0o700))
			c.must(Bootstrap(c.config("n-1"), &pb.InitCluster{ClusterId: "c-1"}, member("n-1")))
			cut.live(c)
			c.must(cut.err)
			if more = cut.over(); !more {
				t.Logf("%d operations in all", cut.n)
				return
			}
			cut.power.Cut()
			s, err := openLog(c, func(l logs) logs { return l }, nil)
			c.must(err)
			c.must(s.Barrier(c.ctx()))
			for _, p := range cut.kept {
				if !has(s, string(p)) {
					t.Errorf("%s was acknowledged and is gone", p)
				}
			}
			if len(cut.kept) == 0 { // the tree may not be there yet
				c.do(s, addTree("server"))
			}
			c.mkdir(s, "after")
			c.close(s)
		})
		if t.Failed() {
			return
		}
	}
}

func openLog(c *testCluster, wrap func(logs) logs, saves func(raft.StableStore) raft.StableStore) (*Store, error) {
	cfg := c.config("n-1")
	cfg.Stream, cfg.saves = c.net.layer(c.t, "n-1"), saves
	return open(cfg, wrap)
}

// live is what a log does until its power is cut.
func (c *cutting) live(t *testCluster) {
	s, err := openLog(t, func(l logs) logs { return cutLogs{c, l} }, func(st raft.StableStore) raft.StableStore { return cutStable{c, st} })
	t.must(err)
	defer t.close(s)
	made := s.kept.made
	s.kept.made = func(index uint64) error { c.step(); return made(index) }
	t.do(s, addTree("server"))
	for round := range 3 {
		for i := range 5 {
			name := fmt.Sprintf("d%d-%d", round, i)
			t.mkdir(s, name)
			c.ack(manifest.Path(name))
			if c.over() {
				return
			}
		}
		t.must(s.raft.Snapshot().Error())
	}
}
