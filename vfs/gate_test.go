package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// at makes a gate whose mount is what the test says.
func at(mount *int) *Gate {
	g := NewGate("/mnt/nfs/exchange")
	g.mountOf = func(string) (Mount, error) { return Mount{ID: *mount}, nil }
	g.mount = *mount
	return g
}

// A call that hangs is left behind; whoever comes while it hangs is told at
// once, and nothing is started for him.
func TestGateIsShutWhileACallIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mount := 1
		g := at(&mount)
		release := make(chan struct{})
		begun := time.Now()
		err := g.Do("stat", func() error { <-release; return nil })
		var hung *HungError
		if !errors.Is(err, ErrHung) || !errors.As(err, &hung) || hung.Op != "stat" || !hung.Since.Equal(begun) {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(begun); took != gatePatience {
			t.Errorf("waited %s", took)
		}
		before := runtime.NumGoroutine()
		for range 100 {
			now := time.Now()
			if err := g.Do("open", func() error { t.Error("it was started"); return nil }); !errors.Is(err, ErrHung) || time.Since(now) > 0 {
				t.Fatalf("the next call: %v after %s", err, time.Since(now))
			}
		}
		if n := runtime.NumGoroutine(); n > before || g.Stuck() != 1 {
			t.Errorf("%d goroutines, before the retries %d; %d stuck", n, before, g.Stuck())
		}
		close(release)
		synctest.Wait()
		if err := g.Do("open", func() error { return nil }); err != nil || g.Hung() != nil || g.Stuck() != 0 {
			t.Errorf("after the mount was back: %v, %v, %d stuck", err, g.Hung(), g.Stuck())
		}
	})
}

// What a call brings too late is handed over to be closed; the caller never
// sees it, nor anything that it does.
func TestGateHandsOverWhatCameTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mount := 1
		g := at(&mount)
		var closed []int
		got, err := Pass(g, "open", func() (int, error) { time.Sleep(time.Hour); return 7, nil }, func(v int) { closed = append(closed, v) })
		if got != 0 || !errors.Is(err, ErrHung) {
			t.Fatalf("got %d %v", got, err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if len(closed) != 1 || closed[0] != 7 {
			t.Errorf("handed over %v", closed)
		}
	})
}

// Another mount at the same place is not the one that hangs.
func TestGateOpensForAnotherMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mount := 1
		g := at(&mount)
		release := make(chan struct{})
		hang := func() error { <-release; return nil }
		if err := g.Do("stat", hang); !errors.Is(err, ErrHung) {
			t.Fatal(err)
		}
		mount = 2
		if err := g.Do("stat", func() error { return nil }); err != nil {
			t.Errorf("the new mount: %v", err)
		}
		if err := g.Do("stat", hang); !errors.Is(err, ErrHung) {
			t.Error(err)
		}
		if err := g.Hung(); err == nil || g.Stuck() != 2 {
			t.Errorf("the new one hangs too: %v, %d stuck", err, g.Stuck())
		}
		close(release)
		synctest.Wait()
	})
}

// Whoever waits for what may take long learns soon that another mount stands there;
// as long as none does he waits.
func TestGateWaitsLongForOneMountOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := 1
		g := at(&first)
		var mount atomic.Int64
		mount.Store(1)
		g.mountOf = func(string) (Mount, error) { return Mount{ID: int(mount.Load())}, nil }
		release := make(chan struct{})
		hang := func() error { <-release; return nil }
		begun := time.Now()
		if err := g.Long("open root", hang); !errors.Is(err, ErrHung) || time.Since(begun) != gateLong {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		mount.Store(2)
		begun = time.Now()
		time.AfterFunc(12*time.Second, func() { mount.Store(3) })
		if err := g.Long("open root", hang); !errors.Is(err, ErrHung) || time.Since(begun) != 3*gatePatience {
			t.Errorf("another mount was there after 12 s: %v after %s", err, time.Since(begun))
		}
		if err := g.Do("open root", func() error { return nil }); err != nil {
			t.Errorf("the new mount: %v", err)
		}
		close(release)
		synctest.Wait()
	})
}

// Before the program ends nobody waits for long any more.
func TestGateHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mount := 1
		g := at(&mount)
		release := make(chan struct{})
		begun := time.Now()
		time.AfterFunc(100*time.Millisecond, g.Hurry)
		if err := g.Long("fsync", func() error { <-release; return nil }); !errors.Is(err, ErrHung) {
			t.Error(err)
		}
		if took := time.Since(begun); took > 100*time.Millisecond+gateHurry {
			t.Errorf("it waited %s", took)
		}
		g.Hurry()
		close(release)
		synctest.Wait()
	})
}

func TestGatePassesAnswersOn(t *testing.T) {
	g := NewGate(t.TempDir())
	own := errors.New("own")
	if v, err := Pass(g, "x", func() (int, error) { return 3, own }, nil); v != 3 || !errors.Is(err, own) {
		t.Errorf("got %d %v", v, err)
	}
	var none *Gate
	if v, err := PassLong(none, "x", func() (int, error) { return 3, own }, nil); v != 3 || !errors.Is(err, own) || none.Hung() != nil || none.Stuck() != 0 {
		t.Errorf("without a gate: %d %v", v, err)
	}
	none.Hurry()
}

func TestMountIn(t *testing.T) {
	text := strings.Join([]string{
		`22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw`,
		`40 22 0:35 / /mnt/nfs rw,relatime shared:20 - nfs4 10.0.0.9:/export rw,vers=4.2,hard`,
		`41 40 0:36 / /mnt/nfs/with\040blank rw - tmpfs tmp rw`,
		`50 22 0:40 / /srv/a rw - xfs /dev/sdb rw`,
		`51 50 0:41 / /srv/a rw master:3 - nfs 10.0.0.9:/a rw,soft`,
		``,
	}, "\n")
	for _, c := range []struct {
		path  string
		id    int
		local bool
	}{
		{"/mnt/nfs/exchange", 40, false}, {"/mnt/nfs", 40, false}, {"/mnt/nfsx", 22, true}, {"/mnt", 22, true},
		{"/mnt/nfs/with blank/x", 41, true}, {"/srv/a/b", 51, false}, {"/srv/a/", 51, false}, {"/", 22, true},
	} {
		m, err := mountIn(text, c.path)
		if err != nil || m.ID != c.id || m.Local() != c.local {
			t.Errorf("%s: %+v %v, want mount %d", c.path, m, err, c.id)
		}
	}
	if m, err := mountIn(text, "/mnt/nfs"); err != nil || m.Source != "10.0.0.9:/export" || m.Opts != "rw,vers=4.2,hard" || m.Major != 0 || m.Minor != 35 {
		t.Errorf("%+v %v", m, err)
	}
	for _, bad := range []string{"x", "a 1 8:1 / / rw - ext4 d rw", "22 1 81 / / rw - ext4 d rw", "22 1 8:1 / / rw ext4 d rw"} {
		if m, err := mountIn(bad, "/"); err == nil {
			t.Errorf("%q gave %+v", bad, m)
		}
	}
}

func TestMountOfThisMachine(t *testing.T) {
	dir := t.TempDir()
	m, err := MountOf(dir)
	if err != nil || m.Point == "" || m.Type == "" {
		t.Fatalf("%+v %v", m, err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	g := NewGate(link)
	if err := g.Resolve(); err != nil {
		t.Fatal(err)
	}
	if m, err := g.Mount(); err != nil || m.Type != "proc" || m.Local() {
		t.Errorf("a symlink to /proc: %+v %v", m, err)
	}
}

// What could not be closed while the mount hung is closed once it answers.
func TestGateMakesUpForClosings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mount := 1
		g := at(&mount)
		release := make(chan struct{})
		if err := g.Do("stat", func() error { <-release; return nil }); !errors.Is(err, ErrHung) {
			t.Fatal(err)
		}
		closed := 0
		for range 3 {
			if err := g.Close("close", func() error { closed++; return nil }); !errors.Is(err, ErrHung) {
				t.Errorf("closed while it hangs: %v", err)
			}
		}
		if closed != 0 {
			t.Error("it was started all the same")
		}
		close(release)
		synctest.Wait()
		if closed != 3 {
			t.Errorf("%d of 3 were closed", closed)
		}
		if err := g.Close("close", func() error { closed++; return nil }); err != nil || closed != 4 {
			t.Errorf("a closing of today: %v", err)
		}
	})
}

// A root that was opened on a mount which hangs is told to be replaced once
// another mount has taken its place, and what still hangs in the old one does
// not shut the gate to the new one, also if somebody goes on in the old one.
func TestGatedRootOfAMountThatWasReplaced(t *testing.T) {
	dir := t.TempDir()
	open := func() *Root {
		r, err := OpenRoot(dir, Options{Staging: filepath.Join(dir, "staging")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	below, anew := open(), open()
	synctest.Test(t, func(t *testing.T) {
		mount := 1
		g := at(&mount)
		old := Behind(g, &hangingFree{Root: below, release: make(chan struct{})}).(*gated)
		if _, err := old.Free(); !errors.Is(err, ErrHung) {
			t.Fatal(err)
		}
		if err := old.Check(); !errors.Is(err, ErrHung) {
			t.Errorf("while it hangs: %v", err)
		}
		mount = 2
		if err := old.Check(); !errors.Is(err, ErrRootReplaced) {
			t.Errorf("the old root, with another mount in its place: %v", err)
		}
		fresh := Behind(g, anew)
		if err := fresh.Check(); err != nil {
			t.Errorf("the new root: %v", err)
		}
		if _, err := old.Free(); !errors.Is(err, ErrHung) || g.Stuck() != 1 {
			t.Errorf("going on in the old one: %v, %d stuck", err, g.Stuck())
		}
		if err := fresh.Check(); err != nil {
			t.Errorf("the new root, after that: %v", err)
		}
		close(old.FS.(*hangingFree).release)
		synctest.Wait()
	})
}

type hangingFree struct {
	*Root
	release chan struct{}
}

func (h *hangingFree) Free() (int64, error) { <-h.release; return h.Root.Free() }
