package syncer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/integration/powercut"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// cutBox is a box on a disk of its own, whose power can be cut.
type cutBox struct {
	*box
	disk  *powercut.Disk
	far   *blob.Store // of the other nodes: its disk is elsewhere
	steps *steps
	boots int
	total int // steps of the run that cutDuring watched
}

func newCutBox(t *testing.T, h *hub) *cutBox {
	t.Helper()
	disk := powercut.New(t)
	far, err := blob.Open(filepath.Join(t.TempDir(), "far"), blob.Options{})
	must(t, err)
	t.Cleanup(func() { _ = far.Close() })
	h.stores = append(h.stores, far)
	b := &cutBox{disk: disk, far: far, box: &box{
		t: t, dir: disk.Path, root: filepath.Join(disk.Path, "root"), node: &node{hub: h, id: "b"},
	}}
	must(t, os.Mkdir(b.root, 0o755))
	must(t, syncPath(disk.Path)) // the root stands before gatesync comes
	b.box.change = func(c *Config) {
		c.Loop = DefaultLoopConfig("b", "t")
		c.Loop.Settle = 50 * time.Millisecond
		c.BootID = fmt.Sprintf("boot-%d", b.boots)
		if b.steps != nil {
			c.Blobs, c.Log = cutBlobs{b.node.store, b.steps}, cutLog{b.node, b.steps}
		}
		c.Carrier = cutCarrier{own: b.node.store, far: far, carrier: b.node, steps: b.steps}
		open := c.OpenRoot
		c.OpenRoot = func() (vfs.FS, error) {
			f, err := open()
			if err != nil || b.steps == nil {
				return f, err
			}
			return errorfs.Wrap(cutFS{f, b.disk}, b.steps), nil
		}
	}
	return b
}

func syncPath(p string) error {
	d, err := os.Open(p)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// boot starts the node, to be cut off at its nth step (0: never).
func (b *cutBox) boot(n int, stop context.CancelFunc) {
	b.t.Helper()
	b.boots++
	b.steps = &steps{disk: b.disk, at: n, stop: stop, names: map[string]int{}}
	var err error
	b.node.store, err = blob.Open(filepath.Join(b.dir, "blobs"), blob.Options{})
	must(b.t, err)
	b.startWith(func(s *Syncer) { s.rec.db = cutRecords{s.rec.db, b.steps} })
}

// down ends the node; where the power was cut, the disk is as it was then.
func (b *cutBox) down() (where string) {
	b.t.Helper()
	b.halt()
	must(b.t, b.node.store.Close())
	where, err := b.steps.cut()
	must(b.t, err)
	if where != "" {
		b.disk.Cut()
	}
	return where
}

// cutDuring runs act on a settled tree of four files and two directories, cuts the
// power at the nth step from there on and starts again. where is "" where the
// node was done before.
func cutDuring(t *testing.T, n int, act func(b *cutBox, h *hub)) (b *cutBox, h *hub, where string) {
	h = newHub()
	b = newCutBox(t, h)
	t.Cleanup(func() {
		if b.stop != nil {
			b.halt()
			_ = b.node.store.Close()
		}
	})
	b.boot(0, func() {})
	for _, f := range []string{"changed", "removed", "d/changed", "d/removed"} {
		b.write(f, "old "+f)
	}
	b.settle()
	b.down()

	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	b.boot(n, stop)
	act(b, h)
	settled := b.s.Settle(ctx)
	where = b.down()
	b.total = b.steps.n
	if where == "" && settled != nil {
		t.Fatal("it was neither cut off nor done: ", settled)
	}
	b.boot(0, func() {})
	b.settle()
	return b, h, where
}

// big does not fit into a pack of the blob store.
var big = strings.Repeat("0123456789abcdef", 10<<10)

// commitElsewhere has another node change, add and delete.
func commitElsewhere(b *cutBox, h *hub) {
	b.node.mu.Lock()
	old := func(p string) manifest.Revision { n, _ := h.tree.Get(manifest.Path(p)); return n.Revision }
	changes := []manifest.Change{
		{Path: "removed", Expect: old("removed")},
		{Path: "d/removed", Expect: old("d/removed")},
		{Path: "e", New: manifest.Entry{Kind: manifest.Dir, Mode: 0o755}},
		{Path: "l", New: linkTo("changed")},
	}
	for p, content := range map[string]string{"changed": "new changed", "d/changed": "new d/changed", "e/new": big} {
		ref, err := b.far.PutBytes([]byte(content))
		must(b.t, err)
		changes = append(changes, manifest.Change{Path: manifest.Path(p), Expect: old(p), New: manifest.Entry{
			Kind: manifest.File, Mode: 0o644, Size: ref.Size, Digest: ref.Digest,
		}})
	}
	b.node.mu.Unlock()
	h.change(b.t, changes...)
}

// editHere has the gateway of this node do the same, and flush nothing.
func editHere(b *cutBox, _ *hub) {
	b.write("changed", "new changed")
	b.write("e/new", big)
	b.remove("removed")
	b.remove("d/removed")
	must(b.t, os.WriteFile(b.path("beside"), []byte("new d/changed"), 0o644))
	must(b.t, os.Rename(b.path("beside"), b.path("d/changed")))
	must(b.t, os.Symlink("changed", b.path("l")))
}

var afterBoth = map[string]string{
	"changed": "644 new changed", "d": "dir 755", "d/changed": "644 new d/changed",
	"e": "dir 755", "e/new": "644 " + big, "l": "-> changed",
}

// eachStep runs act once for each step that it has; a few of them in a short run.
func eachStep(t *testing.T, act func(*cutBox, *hub), check func(t *testing.T, b *cutBox, h *hub, where string)) {
	probe, _, _ := cutDuring(t, -1, act)
	for n := 1; n <= probe.total+2; n++ {
		if testing.Short() && n%7 != 0 {
			continue
		}
		t.Run(fmt.Sprintf("step %d", n), func(t *testing.T) {
			t.Parallel()
			b, h, where := cutDuring(t, n, act)
			check(t, b, h, where)
			stagedEmpty(t, b.box)
			converged(t, b, h, where)
		})
	}
}

// converged: the tree is what the log says, byte by byte.
func converged(t *testing.T, b *cutBox, h *hub, where string) {
	t.Helper()
	got := b.tree()
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := 0
	h.tree.All(func(p manifest.Path, n manifest.Node) bool {
		seen++
		have, ok := got[string(p)]
		switch {
		case !ok:
			t.Errorf("cut at %s: %s is missing", where, p)
		case n.Entry.Kind == manifest.File && manifest.DigestOf([]byte(have[len("644 "):])) != n.Entry.Digest:
			t.Errorf("cut at %s: %s holds %.40q", where, p, have)
		}
		return true
	})
	if seen != len(got) {
		t.Errorf("cut at %s: %d paths stand in the tree, %d in the log", where, len(got), seen)
	}
}

// TestPromise_NoTornFile_PowerCutWhileMaterializing cuts the power before each
// step on the way from a commit to the record of its materialization.
func TestPromise_NoTornFile_PowerCutWhileMaterializing(t *testing.T) {
	eachStep(t, commitElsewhere, func(t *testing.T, b *cutBox, h *hub, where string) {
		got := b.tree()
		for p, want := range afterBoth {
			if got[p] != want {
				t.Errorf("cut at %s: %s is %.40q", where, p, got[p])
			}
		}
		for _, c := range conflictsOf(t, b.box) {
			t.Errorf("cut at %s: a conflict out of nothing: %+v", where, c)
		}
		if last := h.commits[len(h.commits)-1]; last.ID.Node == "b" {
			t.Errorf("cut at %s: what the cut left was proposed: %+v", where, last)
		}
	})
}

// TestPromise_NoLoss_PowerCutWhileCapturing cuts the power before each step on
// the way from a gateway's write to the advance of the ancestor. The gateway
// flushes nothing, so the cut empties files that were whole when they were
// captured. What was committed must win over that.
func TestPromise_NoLoss_PowerCutWhileCapturing(t *testing.T) {
	eachStep(t, editHere, func(t *testing.T, b *cutBox, h *hub, where string) {
		captured := map[manifest.Path]bool{}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, c := range h.commits {
			for _, ch := range c.Changes {
				want, ok := afterBoth[string(ch.Path)]
				whole := ok && ch.New.HasContent() && strings.HasPrefix(want, "644 ") && ch.New.Digest == manifest.DigestOf([]byte(want[len("644 "):]))
				switch {
				case whole:
					captured[ch.Path] = true
				case captured[ch.Path]:
					t.Errorf("cut at %s: %s was committed whole, and then what the cut left of it: %s", where, ch.Path, ch.New)
				}
				if ch.New.HasContent() && !b.far.Has(ch.New.Digest) {
					t.Errorf("cut at %s: the content of %s in revision %d lies nowhere", where, ch.Path, c.Revision)
				}
			}
		}
	})
}

// TestAPowerCutEmptiesWhatNobodyFlushed: else the tests above test nothing.
func TestAPowerCutEmptiesWhatNobodyFlushed(t *testing.T) {
	d := powercut.New(t)
	p := filepath.Join(d.Path, "f")
	must(t, os.WriteFile(p, []byte("whole"), 0o644))
	must(t, syncPath(d.Path))
	must(t, d.Snapshot())
	d.Cut()
	if got, err := os.ReadFile(p); err != nil || bytes.Equal(got, []byte("whole")) {
		t.Errorf("%q %v", got, err)
	}
}
