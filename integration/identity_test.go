package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runToEnd runs a daemon that has to end by itself.
func (n *node) runToEnd(limit time.Duration, args ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), patient(limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, gatesync, append([]string{"run", "--data-dir", n.data}, args...)...)
	cmd.Env = n.env()
	out, err := cmd.CombinedOutput()
	a := answer{stderr: string(out)}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		a.code = exit.ExitCode()
	}
	if ctx.Err() != nil {
		return a, fmt.Errorf("the daemon did not end: %s", out)
	}
	return a, nil
}

// wantRefused runs a daemon that has to end with exit code 1 and say why.
func (n *node) wantRefused(words string, args ...string) {
	n.t.Helper()
	a, err := n.runToEnd(30*time.Second, args...)
	if err != nil || a.code != 1 || !strings.Contains(a.stderr, words) {
		n.t.Errorf("%s: exit code %d, %v; want 1 and %q in\n%s", n.name, a.code, err, words, a.stderr)
	}
}

// A copy of a data directory is started beside the original, and after it; an
// old copy is put back in its place. None of them may come in.
func TestPromise_Order_CopiedDataDirectory(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b := c.nodes[0], c.nodes[1]
	write(t, a.tree, "a.xml", "one\n")
	c.waitEqual(30 * time.Second)
	b.term()
	aside := filepath.Join(c.dir, "copy")
	if err := os.CopyFS(aside, os.DirFS(b.data)); err != nil {
		t.Fatal(err)
	}
	b.start()
	c.waitVoters(3)
	copied := &node{t: t, name: "copy", data: aside, tree: b.tree, addr: freeAddr(t), http: freeAddr(t)}
	flags := []string{"--listen", copied.addr}
	copied.wantRefused("another daemon with this node's identity", flags...)

	// It goes on starting: one day it has been started more often than the
	// original. The original is alive, and stays.
	for range 2 {
		copied.wantRefused("another daemon with this node's identity", flags...)
	}
	write(t, b.tree, "b.xml", "of the original\n")
	c.waitEqual(30 * time.Second)
	for _, n := range c.nodes {
		s, err := n.status()
		if err != nil || len(s.Members) != 3 {
			t.Errorf("%s: %+v, %v", n.name, s, err)
		}
		for _, m := range s.Members {
			if m.Name == b.name && m.Address != b.addr {
				t.Errorf("%s takes the copy's address for %s's", n.name, b.name)
			}
		}
	}

	// The original ends, and the older state is put in its place: it has voted
	// and acknowledged since.
	b.term()
	if err := errors.Join(os.RemoveAll(b.data), os.Rename(aside, b.data)); err != nil {
		t.Fatal(err)
	}
	write(t, a.tree, "c.xml", "meanwhile\n")
	eventually(t, 30*time.Second, "the others go on", func() error { return stands(c.nodes[2].tree, "c.xml", "meanwhile\n") })
	b.wantRefused("older state")

	// The remedy that it names works.
	a.must("remove", b.name)
	if err := os.RemoveAll(b.data); err != nil {
		t.Fatal(err)
	}
	c.admit(b)
	c.waitVoters(3)
	c.waitEqual(30 * time.Second)
}

// Parts of a data directory are gone: each is refused with the remedy, or made
// good.
func TestPromise_NoLoss_WipedParts(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b := c.nodes[0], c.nodes[1]
	write(t, a.tree, "a.xml", "one\n")
	write(t, a.tree, "old.xml", "first\n")
	c.waitEqual(30 * time.Second)
	write(t, a.tree, "old.xml", "second\n")
	c.waitEqual(30 * time.Second)
	b.term()
	wipe := func(part string) (putBack func()) {
		t.Helper()
		from, to := filepath.Join(b.data, part), filepath.Join(c.dir, "wiped")
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			if err := errors.Join(os.RemoveAll(from), os.Rename(to, from)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for part, words := range map[string]string{
		"raft":      "this node's log is gone",
		"node.json": "says who this node is is gone",
		"tls":       "key or certificate is gone",
	} {
		back := wipe(part)
		b.wantRefused(words)
		if part == "node.json" { // nor is it taken for a new one
			if got := b.ask("init", c.joinFlags(b)...); got.code != 1 || !strings.Contains(got.stderr, "lacks node.json") {
				t.Errorf("init over what is left of a node: %+v", got)
			}
		}
		back()
	}

	// Blobs alone: another store. It is announced, and filled again.
	if err := os.RemoveAll(filepath.Join(b.data, "blobs")); err != nil {
		t.Fatal(err)
	}
	b.start()
	c.waitVoters(3)
	write(t, b.tree, "b.xml", "with the new store\n")
	c.waitEqual(30 * time.Second)
	eventually(t, 30*time.Second, "the store is filled again", func() error {
		if got := b.ask("backup", "--force", filepath.Join(c.dir, "backup")); got.code != 0 {
			return fmt.Errorf("%s", got.stderr)
		}
		return nil
	})

	// Records alone: what stands on the disk is a joiner's; nothing is lost.
	b.term()
	if err := os.RemoveAll(filepath.Join(b.data, "trees")); err != nil {
		t.Fatal(err)
	}
	remove(t, b.tree, "a.xml")
	write(t, b.tree, "unknown.xml", "who knows\n")
	b.start()
	b.waitHeld(30 * time.Second)
	eventually(t, 30*time.Second, "what was missing is there again", func() error { return stands(b.tree, "a.xml", "one\n") })
	if err := stands(a.tree, "unknown.xml", ""); err != nil {
		t.Errorf("a file whose history is unknown was spread: %v", err)
	}
	b.must("approve")
	c.waitEqual(30 * time.Second)

	// All of it: there is no node, and the name is free after `remove`.
	b.term()
	if err := os.RemoveAll(b.data); err != nil {
		t.Fatal(err)
	}
	b.wantRefused("gatesync join")
	if got := b.ask("join", append([]string{a.addr, "--token", a.token()}, c.joinFlags(b)...)...); got.code != 1 || !strings.Contains(got.stderr, "remove") {
		t.Errorf("a join under a member's name: %+v", got)
	}
	a.must("remove", b.name)
	if err := os.RemoveAll(b.data); err != nil {
		t.Fatal(err)
	}
	c.admit(b)
	c.waitVoters(3)
	c.waitEqual(30 * time.Second)
}
