package nfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Trees on mounts that take no edits (write: never): what a gateway, or somebody
// on the file server itself, edits there is undone and kept aside, or stands and is
// shown; nobody else ever gets it. In a directory that several nodes have it cannot
// be kept: there the node leaves the tree alone.
func TestPromise_NoLoss_EditsOnNFS(t *testing.T) {
	b := newBed(t)
	t.Run("own", func(t *testing.T) { b.in(t); editsOnMounts(b) })
	t.Run("shared", func(t *testing.T) { b.in(t); editsOfAShared(b) })
}

func editsOnMounts(b *bed) {
	t := b.t
	m4, m3 := b.hosts[1].mount(b.server.dir("repaired"), v4hard), b.hosts[2].mount(b.server.dir("reported"), v3hard)
	c := b.cluster([]string{"", m4.path + ",write=never", m3.path + ",write=never,edits=report"})
	manager, repairs, reports := c.nodes[0], c.nodes[1], c.nodes[2]
	for _, p := range []string{"api.xml", "far.xml", "seq.xml"} {
		c.passes(30*time.Second, manager, p, "the manager's\n", repairs, reports)
	}
	manager.must("wait", "--timeout", "60s")
	revision := manager.revision()

	for _, n := range []*node{repairs, reports} {
		b.check(write(n.tree, "api.xml", "by the gateway\n"))
		b.check(write(n.tree, "new/own.xml", "of the gateway\n"))
		b.check(os.Remove(filepath.Join(n.tree, "seq.xml")))
		// No event tells of it; a wait has everything looked at.
		b.check(write(b.server.path(filepath.Base(n.tree)), "far.xml", "on the server\n"))
		n.must("wait", "--timeout", "60s")
	}
	eventually(t, 90*time.Second, "the edits are undone and kept aside", func() error {
		err := errors.Join(stands(repairs.tree, "new/own.xml", ""), repairs.keeps("api.xml", "far.xml", "new/own.xml"))
		for _, p := range []string{"api.xml", "far.xml", "seq.xml"} {
			err = errors.Join(err, stands(repairs.tree, p, "the manager's\n"))
		}
		return err
	})
	eventually(t, 90*time.Second, "the edits are shown", func() error { return reports.edited("api.xml", "far.xml", "new", "new/own.xml", "seq.xml") })
	if now := manager.revision(); now != revision {
		t.Errorf("%d revisions were made of edits", now-revision)
	}
	b.check(stands(reports.tree, "far.xml", "on the server\n"))

	// An edit that nobody could undo, for the server was away; and the next revision.
	b.server.stop()
	b.check(write(manager.tree, "api.xml", "the manager's second\n"))
	repairs.says(30*time.Second, "does not answer")
	b.server.start()
	eventually(t, 90*time.Second, "the next revision stands", func() error {
		return errors.Join(stands(repairs.tree, "api.xml", "the manager's second\n"), stands(reports.tree, "api.xml", "the manager's second\n"), reports.keeps("api.xml"))
	})
	reports.must("restore")
	c.waitEqual(60 * time.Second)
	b.check(stands(reports.tree, "far.xml", "the manager's\n"))
	if now := manager.revision(); now != revision+1 {
		t.Errorf("%d revisions, want the manager's", now-revision)
	}
}

// editsOfAShared: of two nodes that have one directory, one is not to take edits.
func editsOfAShared(b *bed) {
	name := b.server.dir("shared")
	m1, m2 := b.hosts[0].mount(name, v4hard), b.hosts[1].mount(name, v4hard)
	c := b.cluster([]string{m1.path, m2.path + ",write=never", ""})
	takes, never, third := c.nodes[0], c.nodes[1], c.nodes[2]
	never.says(60*time.Second, "write: never cannot be kept")
	c.passes(60*time.Second, never, "f.xml", "edited beside the node that takes none\n", takes)
	eventually(b.t, 2*time.Minute, "the other node proposes it", func() error {
		return stands(third.tree, "f.xml", "edited beside the node that takes none\n")
	})
	c.passes(60*time.Second, third, "f.xml", "from elsewhere\n", takes, never)
}

// keeps asks whether a node keeps aside what stood at these paths, each once.
func (n *node) keeps(paths ...string) error {
	var rows []struct{ Path string }
	if err := json.Unmarshal([]byte(n.ask("conflicts", "--json").stdout), &rows); err != nil {
		return err
	}
	var have []string
	for _, r := range rows {
		have = append(have, r.Path)
	}
	if slices.Sort(have); !slices.Equal(have, paths) {
		return fmt.Errorf("%s keeps %q aside, want %q", n.name, have, paths)
	}
	return nil
}

// edited asks whether exactly these paths stand edited.
func (n *node) edited(paths ...string) error {
	s, err := n.status()
	if err != nil {
		return err
	}
	var have []string
	for _, e := range s.Trees[0].Edited {
		have = append(have, e.Path)
	}
	if !slices.Equal(have, paths) {
		return fmt.Errorf("%s shows %q, want %q", n.name, have, paths)
	}
	return nil
}
