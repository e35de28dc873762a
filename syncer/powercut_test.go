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

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/integration/powercut"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// stepBox is a box whose steps are counted.
type stepBox struct {
	*box
	far   *blob.Store // of the other nodes: its disk is elsewhere
	steps *steps
	boots int
}

func newStepBox(t *testing.T, h *hub, dir string) *stepBox {
	t.Helper()
	far, err := blob.Open(filepath.Join(t.TempDir(), "far"), blob.Options{})
	must(t, err)
	t.Cleanup(func() { _ = far.Close() })
	h.stores = append(h.stores, far)
	b := &stepBox{far: far, box: &box{t: t, dir: dir, root: filepath.Join(dir, "root"), node: &node{hub: h, id: "b"}}}
	must(t, os.Mkdir(b.root, 0o755))
	must(t, syncPath(dir)) // the root stands before gatesync comes
	b.box.change = func(c *Config) {
		c.Loop = DefaultLoopConfig("b", "t")
		c.Loop.Settle = 50 * time.Millisecond
		c.BootID = fmt.Sprintf("boot-%d", b.boots)
		c.Blobs, c.Log = stepBlobs{b.node.store, b.steps}, stepLog{b.node, b.steps}
		c.Carrier = stepCarrier{own: b.node.store, far: far, carrier: b.node, steps: b.steps}
		open := c.OpenRoot
		c.OpenRoot = func() (vfs.FS, error) {
			f, err := open()
			if err != nil {
				return nil, err
			}
			return errorfs.Wrap(stepFS{f, b.steps.during}, b.steps), nil
		}
	}
	t.Cleanup(func() {
		if b.stop != nil {
			b.down()
		}
	})
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

// boot starts the node with s on its way.
func (b *stepBox) boot(s *steps) {
	b.t.Helper()
	b.boots++
	b.steps = s
	if s.during == nil {
		s.during = func(op func()) { op() }
	}
	var err error
	b.node.store, err = blob.Open(filepath.Join(b.dir, "blobs"), blob.Options{})
	must(b.t, err)
	b.startWith(func(syncer *Syncer) { syncer.rec.db = stepRecords{syncer.rec.db, s} })
}

func (b *stepBox) down() {
	b.t.Helper()
	b.halt()
	must(b.t, b.node.store.Close())
}

// settleAgain settles also where the root was lost, or a scan failed, for a moment.
func (b *stepBox) settleAgain() {
	b.t.Helper()
	ctx := ctxOf(b.t)
	for {
		err := b.s.Settle(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			b.t.Fatal("settle: ", err)
		}
		<-b.s.rounds.next()
	}
}

// prepared is a settled tree of four files and a directory, and nothing running.
func prepared(t *testing.T, dir string) (*stepBox, *hub) {
	t.Helper()
	h := newHub()
	b := newStepBox(t, h, dir)
	b.boot(&steps{})
	for _, f := range []string{"changed", "removed", "d/changed", "d/removed"} {
		b.write(f, "old "+f)
	}
	b.settle()
	b.down()
	return b, h
}

// act is what happens while the steps are counted.
type act func(b *stepBox, h *hub)

// count tells how many steps an act has.
func count(t *testing.T, do act) int {
	t.Helper()
	b, h := prepared(t, t.TempDir())
	b.boot(&steps{})
	do(b, h)
	b.settle()
	b.down()
	_, n := b.steps.struck()
	return n
}

// cutAt runs an act, cuts the power at the nth step from its beginning and
// starts again. where is "" where the node was done before.
func cutAt(t *testing.T, n int, do act) (b *stepBox, h *hub, where string) {
	t.Helper()
	disk := powercut.New(t)
	b, h = prepared(t, disk.Path)
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	var failed error
	b.boot(&steps{at: n, during: disk.During, after: errorfs.ErrCrashed, strike: func() error {
		failed = disk.Snapshot()
		stop()
		return errorfs.ErrCrashed
	}})
	do(b, h)
	settled := b.s.Settle(ctx)
	b.down()
	must(t, failed)
	if where, _ = b.steps.struck(); where != "" {
		disk.Cut()
	} else if settled != nil {
		t.Fatal("it was neither cut off nor done: ", settled)
	}
	b.boot(&steps{})
	b.settle()
	return b, h, where
}

// failAt runs an act in which the nth step fails, once.
func failAt(t *testing.T, n int, do act, err error) (b *stepBox, h *hub, where string) {
	t.Helper()
	b, h = prepared(t, t.TempDir())
	b.boot(&steps{at: n, strike: func() error { return err }})
	do(b, h)
	b.settleAgain()
	where, _ = b.steps.struck()
	return b, h, where
}

// big does not fit into a pack of the blob store.
var big = strings.Repeat("0123456789abcdef", 10<<10)

// commitElsewhere has another node change, add and delete.
func commitElsewhere(b *stepBox, h *hub) {
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
func editHere(b *stepBox, _ *hub) {
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

// eachStep runs an act once for each step that it has; in a short time for every
// strideth only, and for each with GATESYNC_LONG (`make soak`).
func eachStep(t *testing.T, do act, stride int, run func(t *testing.T, n int) (b *stepBox, h *hub, where string), check func(t *testing.T, b *stepBox, h *hub, where string)) {
	if os.Getenv("GATESYNC_LONG") != "" {
		stride = 1
	}
	total := count(t, do)
	for n := 1; n <= total+2; n += stride {
		t.Run(fmt.Sprintf("step %d", n), func(t *testing.T) {
			t.Parallel()
			b, h, where := run(t, n)
			check(t, b, h, where)
			stagedEmpty(t, b.box)
			converged(t, b, h, where)
		})
	}
}

// converged: the tree is what the log says, byte by byte.
func converged(t *testing.T, b *stepBox, h *hub, where string) {
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
			t.Errorf("at %s: %s is missing", where, p)
		case n.Entry.Kind == manifest.File && manifest.DigestOf([]byte(have[len("644 "):])) != n.Entry.Digest:
			t.Errorf("at %s: %s holds %.40q", where, p, have)
		}
		return true
	})
	if seen != len(got) {
		t.Errorf("at %s: %d paths stand in the tree, %d in the log", where, len(got), seen)
	}
}

// TestPromise_NoTornFile_PowerCutWhileMaterializing cuts the power before each
// step on the way from a commit to the record of its materialization.
func TestPromise_NoTornFile_PowerCutWhileMaterializing(t *testing.T) {
	eachStep(t, commitElsewhere, 4, func(t *testing.T, n int) (*stepBox, *hub, string) {
		return cutAt(t, n, commitElsewhere)
	}, materialized)
}

// TestPromise_Converge_StepFailsWhileMaterializing: the same where a step only
// fails, and the next attempt does not.
func TestPromise_Converge_StepFailsWhileMaterializing(t *testing.T) {
	for err, stride := range map[unix.Errno]int{unix.EIO: 8, unix.ENOSPC: 40} { // a full disk is asked again after 5 s
		t.Run(unix.ErrnoName(err), func(t *testing.T) {
			eachStep(t, commitElsewhere, stride, func(t *testing.T, n int) (*stepBox, *hub, string) {
				return failAt(t, n, commitElsewhere, err)
			}, materialized)
		})
	}
}

// materialized: all is as it was committed, and nothing else has happened.
func materialized(t *testing.T, b *stepBox, h *hub, where string) {
	got := b.tree()
	for p, want := range afterBoth {
		if got[p] != want {
			t.Errorf("at %s: %s is %.40q", where, p, got[p])
		}
	}
	for _, c := range conflictsOf(t, b.box) {
		t.Errorf("at %s: a conflict out of nothing: %+v", where, c)
	}
	if last := h.commits[len(h.commits)-1]; last.ID.Node == "b" {
		t.Errorf("at %s: what the fault left was proposed: %+v", where, last)
	}
}

// TestPromise_NoLoss_PowerCutWhileCapturing cuts the power before each step on
// the way from a gateway's write to the advance of the ancestor. The gateway
// flushes nothing, so the cut empties files that were whole when they were
// captured. What was committed must win over that.
func TestPromise_NoLoss_PowerCutWhileCapturing(t *testing.T) {
	eachStep(t, editHere, 4, func(t *testing.T, n int) (*stepBox, *hub, string) {
		return cutAt(t, n, editHere)
	}, captured)
}

// TestPromise_Converge_StepFailsWhileCapturing: the same where a step only
// fails. Then nothing at all is lost.
func TestPromise_Converge_StepFailsWhileCapturing(t *testing.T) {
	eachStep(t, editHere, 8, func(t *testing.T, n int) (*stepBox, *hub, string) {
		return failAt(t, n, editHere, unix.EIO)
	}, func(t *testing.T, b *stepBox, h *hub, where string) {
		captured(t, b, h, where)
		got := b.tree()
		for p, want := range afterBoth {
			if got[p] != want {
				t.Errorf("at %s: %s is %.40q", where, p, got[p])
			}
		}
	})
}

// captured: what was committed whole stays, and lies with the others.
func captured(t *testing.T, b *stepBox, h *hub, where string) {
	whole := map[manifest.Path]bool{}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.commits {
		for _, ch := range c.Changes {
			want, ok := strings.CutPrefix(afterBoth[string(ch.Path)], "644 ")
			switch {
			case ok && ch.New.HasContent() && ch.New.Digest == manifest.DigestOf([]byte(want)):
				whole[ch.Path] = true
			case whole[ch.Path]:
				t.Errorf("at %s: %s was committed whole, and then what the fault left of it: %s", where, ch.Path, ch.New)
			}
			if ch.New.HasContent() && !b.far.Has(ch.New.Digest) {
				t.Errorf("at %s: the content of %s in revision %d lies nowhere", where, ch.Path, c.Revision)
			}
		}
	}
}

// TestAPowerCutEmptiesWhatNobodyFlushed: else the tests above test nothing.
func TestAPowerCutEmptiesWhatNobodyFlushed(t *testing.T) {
	for range 5 { // the kernel may flush on its own at any moment
		d := powercut.New(t)
		p := filepath.Join(d.Path, "f")
		must(t, os.WriteFile(p, []byte("whole"), 0o644))
		must(t, syncPath(d.Path))
		must(t, d.Snapshot())
		d.Cut()
		got, err := os.ReadFile(p)
		if must(t, err); !bytes.Equal(got, []byte("whole")) {
			return
		}
	}
	t.Error("it is whole each time")
}
