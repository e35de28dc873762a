package raftstore

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// A replay gives the machine that the running store had, its voters included,
// whether it begins at a snapshot or not.
func TestReplayIsWhatTheStoreHad(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		c := newTestCluster(t)
		stores := c.found(3)
		s := stores[1]
		for _, d := range []string{"a", "b", "c"} {
			c.mkdir(s, d)
		}
		c.agree(stores...)
		if snapshot {
			c.must(s.raft.Snapshot().Error())
		}
		c.mkdir(s, "after")
		c.agree(stores...)
		var want bytes.Buffer
		_, err := s.Freeze().WriteTo(&want)
		c.must(err)
		applied := s.fsm.applied.Load()
		c.close(s)

		behind := 0
		r, err := Replay(s.cfg.Dir, applied, applied-2, func(Tailing) { behind++ })
		c.must(err)
		if got := snapshotOf(t, r.Machine); !bytes.Equal(got, want.Bytes()) {
			t.Errorf("snapshot %v: the replayed state differs from the store's", snapshot)
		}
		if r.Snapshot > 0 != snapshot || r.Last != applied || behind != 2 || len(r.Servers) != 3 {
			t.Errorf("snapshot %v: %+v, %d entries behind the mark", snapshot, r, behind)
		}
	}
}

// One of three takes its log into the next life: it is the only voter, commits
// at once, and what was committed stays.
func TestPromise_NoLossANewLifeHasTheOldOnesState(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	c.do(stores[0], &pb.Command{Format: Format, TimeNs: 1, Do: &pb.Command_PutToken{PutToken: &pb.PutToken{
		Id: "t", SecretDigest: make([]byte, manifest.DigestSize), Uses: 1, ExpiresNs: 1 << 62,
	}}})
	c.mkdir(stores[1], "kept")
	c.agree(stores...)
	for _, s := range stores {
		c.close(s)
	}
	s := stores[2]
	r, err := Replay(s.cfg.Dir, 0, 0, nil)
	c.must(err)
	dir := filepath.Join(t.TempDir(), "raft")
	if err := r.Rebegin(dir, s.cfg.ID); err == nil {
		t.Fatal("a log was begun anew in the old life")
	}
	c.must(r.Machine.Begin(&pb.BeginIncarnation{Incarnation: 2}, string(s.cfg.ID), 1))
	if err := r.Machine.Begin(&pb.BeginIncarnation{Incarnation: 2}, string(s.cfg.ID), 1); err == nil {
		t.Error("the same life began twice")
	}
	c.must(r.Rebegin(dir, s.cfg.ID))
	c.must(os.RemoveAll(s.cfg.Dir))
	c.must(os.Rename(dir, s.cfg.Dir))

	again := c.open(s.cfg.ID)
	if again.Incarnation() != 2 || !has(again, "kept") {
		t.Fatalf("incarnation %d, revision %d at the start", again.Incarnation(), again.Revision())
	}
	c.mkdir(again, "new")
	if m := again.Members(); len(m) != 3 {
		t.Errorf("members %+v: the others are to come back under their ids", m)
	}
	if servers, err := again.Servers(); err != nil || len(servers) != 1 || servers[0].Role != cluster.Voter {
		t.Errorf("servers %+v, %v", servers, err)
	}
	if g := again.Trees()[0].Generation; g != r.Machine.Trees()[0].Generation || g < 1 {
		t.Errorf("generation %d", g)
	}
	if v := again.machine.Voters(); len(v) != 1 {
		t.Errorf("voters %v", v)
	}
	again.machine.mu.Lock()
	defer again.machine.mu.Unlock()
	if len(again.machine.tokens) > 0 {
		t.Error("a token of the old life is still good")
	}
}

// A founder is the only member of the life that it begins.
func TestAFounderIsAlone(t *testing.T) {
	m := founded()
	old := m.Members()
	b := &pb.BeginIncarnation{Incarnation: 2, Founder: &pb.Member{Id: "n-new", Name: old[0].Name, Store: "s"}}
	if err := m.Begin(b, "n-new", 1); err != nil {
		t.Fatal(err)
	}
	if now := m.Members(); len(now) != 1 || now[0].ID != "n-new" {
		t.Fatalf("members %+v", now)
	}
	wantCode(t, m.Apply(put(string(old[0].ID))), CodeRemoved)
	again := restored(t, snapshotOf(t, m))
	if again.Incarnation() != 2 || again.Trees()[0].Generation != m.Trees()[0].Generation {
		t.Errorf("the snapshot lost the incarnation: %d", again.Incarnation())
	}
}
