package syncer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/vfs/errorfs"
)

// left tells whether anything of a node's still stands beside the shared tree.
func (m *moored) left(id string) bool {
	_, nonce := os.Lstat(filepath.Join(m.a.root, ".gatesync", noncePrefix+id))
	_, staging := os.Lstat(m.staging(id))
	return !errors.Is(nonce, fs.ErrNotExist) || !errors.Is(staging, fs.ErrNotExist)
}

func (m *moored) staging(id string) string {
	return filepath.Join(filepath.Dir(m.a.root), ".gatesync-root", id)
}

// What a removed node has left beside a shared tree is collected; content that
// nobody else has is kept aside.
func TestPromise_NoLoss_WhatRemovedNodesLeaveBesideTheTree(t *testing.T) {
	m := moor(t)
	m.a.write("f", "known")
	m.follow(1)
	m.b.halt()
	must(t, os.WriteFile(filepath.Join(m.staging("b"), "1-1"), []byte("known"), 0o600))
	must(t, os.WriteFile(filepath.Join(m.staging("b"), "1-2"), []byte("an edit that nobody has seen"), 0o600))
	must(t, os.WriteFile(filepath.Join(m.staging("b"), "1-3"), []byte("an edit that was sent and never committed"), 0o600))
	for _, n := range []*box{m.a, m.c} { // nothing stands for it: it is collected some day
		_, err := n.node.store.Put(strings.NewReader("an edit that was sent and never committed"))
		must(t, err)
	}
	m.a.write("g", "written while the other one is away")
	m.c.until("it passes", func() bool { return m.c.read("g") != "" && m.commits() == 2 })
	if !m.left("b") {
		t.Fatal("what a member has left was collected")
	}
	m.bay.remove("b")
	m.a.until("it is collected", func() bool { return !m.left("b") })
	m.a.until("the edit is kept aside", func() bool { return len(conflictsOf(t, m.a)) > 1 })
	m.a.settle()
	var kept []string
	for _, c := range conflictsOf(t, m.a) {
		kept = append(kept, contentOf(t, m.a, c.ID))
	}
	slices.Sort(kept)
	if !slices.Equal(kept, []string{"an edit that nobody has seen", "an edit that was sent and never committed"}) {
		t.Errorf("kept aside: %q", kept)
	}
	if m.left("a") == false {
		t.Error("the nonce and the staging directory of a member are gone")
	}
}

// A steward that is stopped in the middle of a step and removed, so that only one
// node is left, which takes the directory for its own: when it wakes up, what it
// was about to put in place is not there any more.
func TestPromise_NoLoss_RemovedStewardWakesUp(t *testing.T) {
	m := moor(t)
	m.a.write("f", "one")
	m.follow(1)
	m.steward(m.b)
	sleeps := errorfs.Hang("Exchange")
	m.faults["b"].Set(sleeps)
	m.c.write("f", "two")
	m.b.until("it is about to write", func() bool {
		select {
		case <-sleeps.Entered():
			return true
		default:
		}
		if !m.bay.stewards("b") { // it was between two mounts
			m.bay.name("b")
		}
		return false
	})
	m.bay.remove("b")
	m.a.until("the one that is left writes", func() bool { return m.a.read("f") == "two" })
	m.a.until("what the other one had staged is gone", func() bool { return !m.left("b") })
	m.a.write("f", "three")
	m.c.until("an edit passes", func() bool { return m.c.read("f") == "three" })
	before := m.commits()
	sleeps.Release()
	m.c.settle()
	m.a.settle()
	if got := m.a.read("f"); got != "three" || m.commits() != before {
		t.Errorf("f holds %q after %d revisions; it held \"three\" after %d", got, m.commits(), before)
	}
}
