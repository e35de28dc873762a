package vfs

import (
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// leased opens a root where leases work, with a file f.
func leased(t *testing.T) (*Root, string) {
	r := open(t)
	if !r.Leases() {
		t.Skip("no leases on this filesystem")
	}
	write(t, r, "f", "old")
	return r, filepath.Join(r.path, "f")
}

func openF(t *testing.T, r *Root) File {
	t.Helper()
	f, err := r.Open("f")
	ok(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestLeaseIsRefusedWhileSomebodyWrites(t *testing.T) {
	r, path := leased(t)
	f := openF(t, r)
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	ok(t, err)
	_, err = f.Lease()
	is(t, "with a writer", err, ErrWriter)
	ok(t, w.Close())
	l, err := f.Lease()
	ok(t, err)
	_, err = f.Lease()
	is(t, "a second one", err, ErrLeased)
	if !l.Intact() || !l.Release() || !l.Release() || l.Intact() {
		t.Error("an undisturbed lease: Intact until released, Release tells the same twice")
	}
	again, err := f.Lease()
	ok(t, err)
	if !again.Release() {
		t.Error("leased again")
	}
}

// A gateway that opens a leased file for writing must not wait for us.
func TestWriterIsLetInAtOnce(t *testing.T) {
	r, path := leased(t)
	f := openF(t, r)
	for i := range 20 {
		l, err := f.Lease()
		ok(t, err)
		start := time.Now()
		w, err := os.OpenFile(path, os.O_WRONLY, 0) // blocks until the lease is given up
		ok(t, err)
		if waited := time.Since(start); waited > 10*time.Second {
			t.Fatalf("round %d: the writer waited %v", i, waited)
		}
		if l.Intact() || l.Release() {
			t.Fatal("the lease calls itself intact although somebody has the file open")
		}
		_, err = f.Lease()
		is(t, "while he writes", err, ErrWriter)
		ok(t, w.Close())
	}
}

func TestTruncateBreaksALease(t *testing.T) {
	r, path := leased(t)
	l, err := openF(t, r).Lease()
	ok(t, err)
	ok(t, os.Truncate(path, 1))
	if l.Release() {
		t.Error("intact after a truncate")
	}
}

func TestLostSignalIsMadeUpForByThePoll(t *testing.T) {
	r, path := leased(t)
	l, err := openF(t, r).Lease()
	ok(t, err)
	signal.Stop(r.leases.signals) // as if it never came
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	ok(t, err)
	ok(t, w.Close())
	if l.Intact() {
		t.Error("intact")
	}
}

func TestManyLeasesAndWriters(t *testing.T) {
	r, _ := leased(t)
	var wg sync.WaitGroup
	for i := range 8 {
		name := string(rune('a' + i))
		write(t, r, name, "x")
		wg.Go(func() {
			path := filepath.Join(r.path, name)
			for range 20 {
				f, err := r.Open(manifest.Path(name))
				if err != nil {
					t.Error(err)
					return
				}
				l, err := f.Lease()
				if err != nil {
					t.Error(err)
					_ = f.Close()
					return
				}
				if err := os.WriteFile(path, []byte("y"), 0o644); err != nil {
					t.Error(err)
				}
				if l.Release() {
					t.Error("intact under a writer")
				}
				_ = f.Close()
			}
		})
	}
	wg.Wait()
}

func TestCloseGivesLeasesBack(t *testing.T) {
	r, path := leased(t)
	f := openF(t, r)
	l, err := f.Lease()
	ok(t, err)
	ok(t, f.Close())
	if l.Intact() {
		t.Error("intact after its file's Close")
	}
	g := openF(t, r)
	l, err = g.Lease()
	ok(t, err)
	ok(t, r.Close())
	if l.Intact() || l.Release() {
		t.Error("intact after the Root's Close")
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0) // nobody is there any more to let him in
	ok(t, err)
	ok(t, w.Close())
	if _, err := g.Lease(); err == nil {
		t.Error("leased after the Root's Close")
	}
}

func TestCalibrationTurnsWriterIntoNoLease(t *testing.T) {
	r, path := leased(t)
	r.caps.Leases = false // as on NFSv4
	f := openF(t, r)
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	ok(t, err)
	defer w.Close()
	_, err = f.Lease()
	is(t, "where leases do not work", err, ErrNoLease)
	// NFSv4 grants one now and then, and breaks it when the file is moved.
	ok(t, os.WriteFile(filepath.Join(filepath.Dir(path), "g"), nil, 0o600))
	g, err := r.Open("g")
	ok(t, err)
	defer g.Close()
	_, err = g.Lease()
	is(t, "where leases do not work, and one would be granted", err, ErrNoLease)
}

func TestExchangeKeepsALease(t *testing.T) {
	r, _ := leased(t)
	if !r.Capabilities().Exchange {
		t.Skip("no exchange on this filesystem")
	}
	l, err := openF(t, r).Lease()
	ok(t, err)
	stage(t, r, "s", "new")
	ok(t, r.Exchange("s", "f"))
	if !l.Intact() {
		t.Error("a rename broke the lease")
	}
	w, err := os.OpenFile(filepath.Join(r.Staging(), "s"), os.O_WRONLY, 0)
	ok(t, err)
	ok(t, w.Close())
	if l.Release() {
		t.Error("intact although the displaced file was opened for writing")
	}
}

func BenchmarkLease(b *testing.B) {
	r := open(b)
	write(b, r, "f", "x")
	f, err := r.Open("f")
	ok(b, err)
	defer f.Close()
	for b.Loop() {
		l, err := f.Lease()
		ok(b, err)
		l.Release()
	}
}
