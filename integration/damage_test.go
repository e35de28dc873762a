package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
)

// damageFiles flips bytes of every file that the patterns name, every so many bytes.
func damageFiles(t *testing.T, every int, patterns ...string) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	hit := 0
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 {
				continue
			}
			for at := rnd.IntN(min(every, len(b))); at < len(b); at += every {
				b[at] ^= 1 << rnd.IntN(8)
				hit++
			}
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if hit == 0 {
		t.Fatalf("nothing to damage: %q", patterns)
	}
}

// blobsOf reads a stopped node's blob store: what it holds, all of it verified.
func blobsOf(t *testing.T, n *node) map[manifest.Digest]bool {
	t.Helper()
	s, err := blob.Open(filepath.Join(n.data, "blobs"), blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	held := map[manifest.Digest]bool{}
	err = s.Verify(context.Background(), func(ref manifest.BlobRef, err error) {
		if err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
		held[ref.Digest] = err == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// The blob store of a node is damaged while it is off, in every pack: all that
// it held, old revisions included, comes back from the others.
func TestPromise_NoLoss_DamagedPack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b := c.nodes[0], c.nodes[2]
	for i := range 60 {
		write(t, a.tree, fmt.Sprintf("conf/f%d.xml", i), strings.Repeat(fmt.Sprintf("first %d\n", i), 80))
	}
	write(t, a.tree, "big.war", strings.Repeat("0123456789", 60_000))
	c.waitEqual(30 * time.Second)
	for i := range 60 {
		write(t, a.tree, fmt.Sprintf("conf/f%d.xml", i), fmt.Sprintf("second %d\n", i))
	}
	want := c.waitEqual(30 * time.Second)
	b.kill()
	damageFiles(t, 3000, filepath.Join(b.data, "blobs", "packs", "*"), filepath.Join(b.data, "blobs", "loose", "*"))
	b.start()
	// The start finds what it can see in the packs' headers, verify the rest.
	eventually(t, 60*time.Second, "the blob store is whole again", func() error {
		if v := b.ask("verify"); v.code != 0 {
			return fmt.Errorf("verify: exit code %d: %s%s", v.code, v.stdout, v.stderr)
		}
		return nil
	})
	eventually(t, 60*time.Second, "the log tells of the mending", func() error {
		if !strings.Contains(b.logTail(1000), "mended the blob store") {
			return errors.New("nothing was mended")
		}
		return nil
	})
	if s := b.must("status"); strings.Contains(s, "CONTENT LOST") || !strings.Contains(s, "check the disk") {
		t.Errorf("status: %s", s)
	}
	c.waitTree(30*time.Second, want)
	a.term()
	b.term()
	healed := blobsOf(t, b)
	for d := range blobsOf(t, a) {
		if !healed[d] {
			t.Errorf("blob %s did not come back", d.Short())
		}
	}
}

// The only copy is damaged: a single node says which paths and revisions lost
// their content, and takes from its tree what still stands there.
func TestPromise_NoLoss_DamagedOnlyCopy(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	n := c.nodes[0]
	write(t, n.tree, "f.xml", strings.Repeat("old text\n", 500))
	c.waitEqual(30 * time.Second)
	write(t, n.tree, "f.xml", strings.Repeat("new text\n", 500))
	want := c.waitEqual(30 * time.Second)
	n.term()
	damageFiles(t, 1000, filepath.Join(n.data, "blobs", "packs", "*"))
	n.start()
	_ = n.ask("verify")
	eventually(t, 30*time.Second, "status names what is lost", func() error {
		if s := n.ask("status").stdout; !strings.Contains(s, "CONTENT LOST") || !strings.Contains(s, "f.xml (revision") {
			return errors.New(s)
		}
		return nil
	})
	eventually(t, 30*time.Second, "the current content, which stands in the tree, counts as lost no more", func() error {
		if s := n.ask("status"); s.code != 0 || strings.Contains(s.stdout, "current") {
			return fmt.Errorf("status: exit code %d: %s", s.code, s.stdout)
		}
		return nil
	})
	c.waitTree(10*time.Second, want)
}

// The records of a tree are damaged while the node is off, and its disk and the
// log have moved on: nothing is deleted or proposed, what differs is held.
func TestPromise_NoSurpriseDelete_DamagedRecords(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"approve", "restore"} {
		t.Run(verb, func(t *testing.T) {
			c := newCluster(t, 3)
			a, b := c.nodes[0], c.nodes[2]
			for i := range 30 {
				write(t, a.tree, fmt.Sprintf("conf/f%d.xml", i), fmt.Sprintf("first %d\n", i))
			}
			c.waitEqual(30 * time.Second)
			b.term()
			damageFiles(t, 4096, filepath.Join(b.data, "trees", "server.db"))
			write(t, b.tree, "conf/f1.xml", "edited while off\n")
			write(t, b.tree, "conf/new.xml", "new while off\n")
			for i := 10; i < 30; i++ {
				if err := os.Remove(filepath.Join(b.tree, "conf", fmt.Sprintf("f%d.xml", i))); err != nil {
					t.Fatal(err)
				}
			}
			write(t, a.tree, "conf/f2.xml", "edited elsewhere\n")
			before := c.read(a)
			revision := func() uint64 {
				s, err := a.status()
				if err != nil {
					t.Fatal(err)
				}
				return s.Revision
			}
			eventually(t, 10*time.Second, "the edit is committed", func() error {
				if a := a.ask("wait", "--timeout", "10s"); a.code != 0 {
					return errors.New(a.stderr)
				}
				return nil
			})
			was := revision()
			b.start()
			eventually(t, 30*time.Second, "what differs is held", func() error {
				if held := b.held(); held != 3 {
					return fmt.Errorf("%d held: %s", held, b.must("held"))
				}
				return nil
			})
			if !strings.Contains(b.must("status"), "server.db.damaged-") {
				t.Errorf("status does not name the damaged file: %s", b.must("status"))
			}
			c.waitTree(10*time.Second, before, a, c.nodes[1])
			if now := revision(); now != was {
				t.Errorf("revision %d became %d", was, now)
			}
			if got := content(b.tree, "conf/f1.xml"); got != "edited while off\n" {
				t.Errorf("an edit was overwritten: %q", got)
			}
			b.must(verb)
			after := c.waitEqual(30 * time.Second)
			if verb == "restore" {
				if err := before.Differs(after); err != nil {
					t.Error(err)
				}
				if len(b.conflicts()) == 0 {
					t.Error("nothing of what was restored over is kept")
				}
			} else if got := content(a.tree, "conf/f1.xml"); got != "edited while off\n" {
				t.Errorf("approved, and %s holds %q", a.name, got)
			}
		})
	}
}

// The log of a node is damaged while it is off: it does not start as itself,
// says what to do, and that works; an edit made meanwhile is not lost.
func TestPromise_Order_DamagedLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b := c.nodes[0], c.nodes[2]
	for i := range 20 {
		write(t, a.tree, fmt.Sprintf("conf/f%d.xml", i), fmt.Sprintf("first %d\n", i))
	}
	c.waitEqual(30 * time.Second)
	b.term()
	damageFiles(t, 4096, filepath.Join(b.data, "raft", "log.db"))
	write(t, b.tree, "conf/f1.xml", "edited while off\n")
	run, err := b.runToEnd(30 * time.Second)
	if err != nil || run.code != 1 || !strings.Contains(run.stderr, "log.db") || !strings.Contains(run.stderr, "gatesync remove") || !strings.Contains(run.stderr, "--again") {
		t.Fatalf("started on a damaged log: exit code %d: %s", run.code, run.stderr)
	}
	a.must("remove", b.name)
	b.must("join", a.addr, "--token", a.token(), "--again")
	b.start()
	c.waitVoters(3)
	c.waitEqual(60 * time.Second)
	if got := content(a.tree, "conf/f1.xml"); got != "edited while off\n" {
		t.Errorf("%s holds %q", a.name, got)
	}
	if again := b.ask("join", a.addr, "--token", a.token()); again.code == 0 {
		t.Error("a node in order was joined anew")
	}
}
