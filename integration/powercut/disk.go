package powercut

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is one file system. Snapshot may be called from any goroutine, Cut by
// the test's own one.
type Disk struct {
	// Path is where it is mounted.
	Path string

	tb    testing.TB
	dir   string
	quiet sync.RWMutex
	cuts  int
	image string
	saved string // the snapshot; "": none
}

// size leaves room for small trees; a snapshot costs as much time as it holds.
const size = 48 << 20

// New makes an empty disk, which goes away with the test.
func New(tb testing.TB) *Disk {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("NEEDS ROOT: a power cut is made with a loop device; run the tests as root")
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		tb.Skip("NEEDS the Debian package e2fsprogs: a power cut is made with an ext4 of its own")
	}
	d := &Disk{tb: tb, dir: tb.TempDir()}
	d.Path, d.image = filepath.Join(d.dir, "disk"), filepath.Join(d.dir, "image")
	d.must(os.Mkdir(d.Path, 0o755))
	f, err := os.Create(d.image)
	d.must(err)
	d.must(f.Truncate(size))
	d.must(f.Close())
	d.run("mkfs.ext4", "-q", "-F", "-m", "0", d.image)
	d.mount()
	tb.Cleanup(func() { _ = unix.Unmount(d.Path, unix.MNT_DETACH) })
	return d
}

// During runs op, in which something may be flushed: no snapshot is taken in
// the middle of it. A cut in the middle of one flush is that file system's to
// survive, and a copy that takes milliseconds is no single moment of it.
func (d *Disk) During(op func()) {
	d.quiet.RLock()
	defer d.quiet.RUnlock()
	op()
}

// Snapshot notes what a cut at this moment leaves.
func (d *Disk) Snapshot() error {
	d.quiet.Lock()
	defer d.quiet.Unlock()
	d.cuts++
	saved := filepath.Join(d.dir, fmt.Sprintf("image-%d", d.cuts))
	if err := copyFile(saved, d.image); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	d.saved = saved
	return nil
}

// Cut puts the disk back to the last snapshot, as the machine finds it when it
// has power again. What is still open on it belongs to the old life.
func (d *Disk) Cut() {
	d.tb.Helper()
	if d.saved == "" {
		d.tb.Fatal("powercut: there is no snapshot")
	}
	// Detached, not unmounted: a child that another test is starting may hold
	// our descriptors until its exec.
	d.must(unix.Unmount(d.Path, unix.MNT_DETACH))
	d.must(os.Remove(d.image))
	d.image, d.saved = d.saved, ""
	d.mount()
}

func (d *Disk) mount() {
	d.tb.Helper()
	d.run("mount", "-t", "ext4", "-o", "loop,data=writeback,noauto_da_alloc,commit=300", d.image, d.Path)
}

func (d *Disk) run(name string, args ...string) {
	d.tb.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.tb.Fatalf("powercut: %s: %v: %s", name, err, out)
	}
}

func (d *Disk) must(err error) {
	d.tb.Helper()
	if err != nil {
		d.tb.Fatal("powercut: ", err)
	}
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
