package syncer

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// collide makes a conflict: an edit that could not be proposed, and another
// that was committed first.
func collide(t *testing.T) (*hub, *box, string) {
	t.Helper()
	h, b := committedFile(t, nil, "f", "old")
	h.setRefuse(errors.New("no quorum"))
	b.write("f", "mine")
	b.until("the edit waits", func() bool {
		st, err := b.s.Status(ctxOf(t))
		return err == nil && st.Loop.Unsent > 0
	})
	h.put(t, "f", "theirs")
	h.setRefuse(nil)
	b.has("f", "theirs")
	oneConflict(t, b, "f", "mine")
	return h, b, conflictsOf(t, b)[0].ID
}

func (h *hub) setRefuse(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = err
}

func TestConflictIsRestored(t *testing.T) {
	h, b, id := collide(t)
	if err := b.s.RestoreConflict(ctxOf(t), id); err != nil {
		t.Fatal(err)
	}
	h.committed(t, "f", "mine")
	b.has("f", "mine")
	if c := conflictsOf(t, b); len(c) != 0 {
		t.Errorf("left: %+v", c)
	}
	stagedEmpty(t, b)
}

func TestConflictIsDroppedAndSurvivesARestart(t *testing.T) {
	_, b, id := collide(t)
	b.halt()
	b.start()
	oneConflict(t, b, "f", "mine")
	live := map[manifest.Digest]bool{}
	must(t, b.s.Live(func(_ manifest.Path, e manifest.Entry, _ string) { live[e.Digest] = true }))
	if !live[manifest.DigestOf([]byte("mine"))] {
		t.Error("the collection of blobs would take it")
	}
	must(t, b.s.DropConflict(id))
	if err := b.s.DropConflict(id); !errors.Is(err, ErrNoConflict) {
		t.Errorf("dropped twice: %v", err)
	}
}

func TestDifferencesAreADryRun(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b").start()
	for _, p := range []string{"same", "changed", "gone", "theirs"} {
		b.write(p, "old "+p)
		h.committed(t, p, "old "+p)
	}
	b.settle()
	b.halt()
	b.write("changed", "new")
	b.write("added", "new")
	b.remove("gone")
	h.put(t, "theirs", "from elsewhere")
	h.put(t, "arriving", "from elsewhere")
	before := h.revision()
	b.s = b.open()
	defer b.s.Close()
	got := map[string]string{}
	must(t, b.s.Differences(ctxOf(t), func(d Difference) error {
		got[string(d.Path)] = fmt.Sprintf("%s local=%v", d.What, d.Local)
		return nil
	}))
	want := map[string]string{
		"changed": "change local=true", "added": "add local=true", "gone": "delete local=true",
		"theirs": "change local=false", "arriving": "add local=false",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if h.revision() != before || b.read("theirs") != "old theirs" {
		t.Error("a dry run did something")
	}
}

func TestVerifyFindsSilentCorruption(t *testing.T) {
	_, b := committedFile(t, nil, "f", "content")
	b.write("g", "fine")
	b.node.committed(t, "g", "fine")
	b.settle()
	b.halt()
	// The same size and times, other bytes: no stat tells.
	st, err := os.Stat(b.path("f"))
	must(t, err)
	must(t, os.WriteFile(b.path("f"), []byte("CONTENT"), 0o644))
	must(t, os.Chtimes(b.path("f"), st.ModTime(), st.ModTime()))
	b.s = b.open()
	defer b.s.Close()
	var drifts []string
	done, err := b.s.Verify(ctxOf(t), func(d Drift) error {
		drifts = append(drifts, string(d.Path)+" "+d.What)
		return nil
	})
	must(t, err)
	if len(drifts) != 1 || !strings.HasPrefix(drifts[0], "f ") || done.Drifts != 1 || done.Entries != 2 {
		t.Errorf("drifts %v, %+v", drifts, done)
	}
}

func TestBigFileDelaysNobodyAndStopsAtOnce(t *testing.T) {
	var sw errorfs.Switch
	h, b := committedFile(t, &sw, "f", "old")
	hold := make(chan struct{}) // the big one, until its node is to end
	var late atomic.Int32       // pieces of it that were written all the same
	entered := make(chan struct{}, 1000)
	big := strings.Repeat("0123456789abcdef", (bigFile+1<<20)/16)
	slow := make(chan string, 1)
	sw.Set(errorfs.Func(func(op, name string) error {
		if op != errorfs.WFileWrite {
			return nil
		}
		select {
		case slow <- name: // the first to write is the big one
		default:
		}
		first := <-slow
		slow <- first
		if name == first {
			token(entered)
			<-hold
			late.Add(1)
		}
		return nil
	}))
	h.put(t, "big", big)
	<-entered
	h.put(t, "f", "small and quick")
	b.has("f", "small and quick")
	if _, err := os.Stat(b.path("big")); err == nil {
		t.Error("the big file was there first: the test tests nothing")
	}
	b.stop()
	close(hold)
	b.halt()
	if _, err := os.Stat(b.path("big")); err == nil || late.Load() > 2 {
		t.Errorf("%d pieces of the big file were written after the node was to end; %v", late.Load(), err)
	}
	sw.Set(nil)
	b.start()
	b.has("big", big)
	stagedEmpty(t, b)
}
