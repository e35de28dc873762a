package syncer

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// onMount puts a box's tree on a mount of which single operations can hang.
func (b *box) onMount() (*vfs.Gate, *errorfs.Switch) {
	gate, faults := vfs.NewGate(b.root).WithPatience(500*time.Millisecond, time.Second), &errorfs.Switch{}
	b.change = func(c *Config) {
		c.OpenRoot = func() (vfs.FS, error) {
			r, err := vfs.OpenRoot(b.root, vfs.Options{})
			if err != nil {
				return nil, err
			}
			return vfs.Behind(gate, errorfs.Wrap(r, faults)), nil
		}
	}
	// A call that was left behind goes on when its hang is over, and must not
	// write while the directory is being removed.
	b.t.Cleanup(func() { b.until("what was stuck has come back", func() bool { return gate.Stuck() == 0 }) })
	return gate, faults
}

// hangable are the operations that every tree needs all the time; each of them
// may be the one that a mount hangs in.
func hangable() []string {
	some := []string{"Check", "ReadDir", "Lstat", errorfs.FileRead, errorfs.WFileWrite, "Exchange", "TakeOut", "SyncDir"}
	if os.Getenv("GATESYNC_LONG") == "" {
		return some
	}
	return append(some, "ReadMarker", "Open", errorfs.FileStat, errorfs.FileClose, "Free", "Create", errorfs.WFileSync,
		errorfs.WFileTimes, errorfs.WFileClose, "Place", "RemoveStaged", "SyncFile")
}

// countedHang knows how many calls are inside.
type countedHang struct {
	*errorfs.Hanging
	op     string
	inside atomic.Int32
}

func (h *countedHang) Op(op, p string) error {
	if op == h.op {
		h.inside.Add(1)
		defer h.inside.Add(-1)
	}
	return h.Hanging.Op(op, p)
}

// disturb makes work of every kind.
func disturb(t *testing.T, h *hub, b *box, round string) {
	b.write("mine-"+round, "written here")
	h.put(t, "from-elsewhere-"+round, "new")
	h.put(t, "changed", "by "+round)
	h.drop(t, "deleted-"+round)
	b.s.scanner.request("")
}

// A mount hangs in any operation, under work: status answers at once and names
// it, nothing piles up, nothing is taken for a deletion, and when the mount is
// back everything is done.
func TestPromise_Converge_MountHangs(t *testing.T) {
	for _, op := range hangable() {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			h := newHub()
			b := newBox(t, h, "a")
			gate, faults := b.onMount()
			for _, p := range []string{"changed", "deleted-1", "deleted-2"} {
				b.write(p, "before")
			}
			b.start()
			b.until("it has settled", func() bool { // on a busy machine a sound mount may seem to hang, too
				return b.s.Settle(ctxOf(t)) == nil
			})
			h.committed(t, "deleted-2", "before")
			hang := &countedHang{Hanging: errorfs.Hang(op), op: op}
			faults.Set(hang)
			disturb(t, h, b, "1")
			select {
			case <-hang.Entered():
			case <-time.After(time.Minute):
				t.Fatalf("%s is never called", op)
			}
			b.until("status names the hang", func() bool {
				begun := time.Now()
				st, err := b.s.Status(context.Background())
				if took := time.Since(begun); took > time.Minute || err != nil {
					t.Fatalf("status took %s: %v", took, err)
				}
				b.s.scanner.request("")
				return strings.Contains(st.Loop.RootLost, "does not answer")
			})
			time.Sleep(time.Second) // of those who were inside when it began, each loses its patience
			b.until("each has", func() bool { return gate.Stuck() == int(hang.inside.Load()) })
			stuck := gate.Stuck()
			disturb(t, h, b, "2")
			// On a busy machine a sound call may seem to hang for a moment, or one be on its
			// way into the hang since before: what piles up does so each time.
			for round := 1; ; round++ {
				for i := range 200 {
					b.s.Hint(manifest.Path(fmt.Sprint("hint-", i)))
				}
				time.Sleep(700 * time.Millisecond) // of retries by everybody: nothing tells that nothing comes
				n := gate.Stuck()
				if n <= stuck {
					break
				}
				if n > 8 || round == 3 {
					t.Errorf("%d calls are stuck, and %d before", n, stuck)
					break
				}
				stuck = n
			}
			hang.Release()
			for _, round := range []string{"1", "2"} {
				b.has("from-elsewhere-"+round, "new")
				b.gone("deleted-" + round)
				h.committed(t, "mine-"+round, "written here")
			}
			b.has("changed", "by 2")
			b.settle()
			if c := conflictsOf(t, b); len(c) != 0 {
				t.Errorf("conflicts %+v", c)
			}
		})
	}
}

// A syncer ends in time while its mount hangs, whatever it hangs in.
func TestPromise_Available_EndsWhileTheMountHangs(t *testing.T) {
	for _, op := range hangable() {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			h := newHub()
			b := newBox(t, h, "a")
			gate, faults := b.onMount()
			gate.WithPatience(time.Hour, time.Hour) // it is the end that makes it hurry
			for _, p := range []string{"changed", "deleted-1"} {
				b.write(p, "before")
			}
			b.start()
			b.settle()
			hang := errorfs.Hang(op)
			faults.Set(hang)
			defer hang.Release()
			disturb(t, h, b, "1")
			select {
			case <-hang.Entered():
			case <-time.After(time.Minute):
				t.Fatalf("%s is never called", op)
			}
			begun := time.Now()
			gate.Hurry()
			b.stop()
			<-b.done
			_ = b.s.Close() // the records close, the root may not
			b.stop = nil
			if took := time.Since(begun); took > 2*time.Minute {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// A mount that hangs from the start is waited for.
func TestPromise_Available_MountHangsFromTheStart(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "a")
	_, faults := b.onMount()
	hang := errorfs.Hang("ReadMarker")
	faults.Set(hang)
	b.write("x", "1")
	begun := time.Now()
	b.start()
	t.Logf("opening took %s", time.Since(begun))
	b.until("status names it", func() bool {
		st, err := b.s.Status(context.Background())
		return err == nil && strings.Contains(st.Loop.RootLost, "does not answer")
	})
	hang.Release()
	h.committed(t, "x", "1")
}

// What was opened is of no use for good (a stale handle, a mount that was taken
// away by force), although all is well at the path: it is opened anew.
func TestPromise_Converge_StaleRootIsOpenedAnew(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "a")
	var first errorfs.Switch
	var opened atomic.Int32
	b.change = func(c *Config) {
		c.OpenRoot = func() (vfs.FS, error) {
			r, err := vfs.OpenRoot(b.root, vfs.Options{})
			if opened.Add(1) > 1 || err != nil {
				return r, err
			}
			return errorfs.Wrap(r, &first), nil
		}
	}
	b.write("x", "1")
	b.start()
	b.settle()
	stale := fmt.Errorf("%w (%w)", vfs.ErrRootMissing, unix.ESTALE)
	first.Set(errorfs.Always("", stale))
	b.write("x", "2")
	h.put(t, "y", "new")
	b.has("y", "new")
	h.committed(t, "x", "2")
	if opened.Load() < 2 {
		t.Error("it was not opened anew")
	}
}
