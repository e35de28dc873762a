package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// mountTmpfs mounts a small tmpfs for as long as the cluster stands.
func (c *cluster) mountTmpfs(dir string, megabytes int) {
	c.t.Helper()
	needRoot(c.t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := unix.Mount("gatesync-it", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0755", megabytes)); err != nil {
		c.t.Skipf("needs to mount a tmpfs (a container has to be privileged): %v", err)
	}
	c.undo = append(c.undo, func() { unmount(c.t, dir) })
}

// mountLoop mounts an ext4 file system of its own, which can be frozen.
func (c *cluster) mountLoop(dir string, megabytes int64) {
	c.t.Helper()
	needRoot(c.t, "e2fsprogs:mkfs.ext4", "mount:losetup", "util-linux:fsfreeze")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	image := filepath.Clean(dir) + ".img"
	f, err := os.Create(image)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(megabytes<<20), f.Close()); err != nil {
		c.t.Fatal(err)
	}
	if _, err := sh("mkfs.ext4", "-q", "-F", "-m", "0", image); err != nil {
		c.t.Fatal(err)
	}
	if _, err := sh("mount", "-o", "loop", image, dir); err != nil {
		c.t.Skipf("needs loop devices (a container has to be privileged): %v", err)
	}
	c.undo = append(c.undo, func() { unmount(c.t, dir) })
}

// letGo, for a shell in a mount namespace of its own, lets go of the disks of other
// tests: they would stay mounted there although their test has unmounted them.
const letGo = `{ awk '$5 ~ "/gs-[0-9]+/" {print $5}' /proc/self/mountinfo | while read -r m; do umount -l "$m" || true; done; }`

// unmount tries for a moment: the kernel lets go of a dead daemon's files a
// little later.
func unmount(t testing.TB, dir string) {
	err := poll(context.Background(), patience, func() error { return unix.Unmount(dir, 0) })
	if err != nil {
		t.Errorf("unmount %s: %v", dir, err)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

// freeze makes every write to a mounted file system hang in the kernel, until
// thaw or the end of the test.
func freeze(t testing.TB, dir string) (thaw func()) {
	t.Helper()
	if _, err := sh("fsfreeze", "--freeze", dir); err != nil {
		t.Fatal(err)
	}
	frozen := true
	thaw = func() {
		if frozen {
			frozen = false
			if _, err := sh("fsfreeze", "--unfreeze", dir); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// remount changes a mount's flags: unix.MS_RDONLY, or 0 for writable. It is busy
// while somebody has a file open for writing.
func remount(t testing.TB, dir string, flags uintptr) {
	t.Helper()
	err := poll(context.Background(), patience, func() error { return unix.Mount("", dir, "", unix.MS_REMOUNT|flags, "") })
	if err != nil {
		t.Fatalf("remount %s: %v", dir, err)
	}
}

// fill takes all the space of the file system of dir, but for what is left
// over; empty gives it back.
func fill(t testing.TB, dir string, leave int64) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, ".gatesync-it-ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	const chunk = 64 << 10 // for what a file system needs of its own
	size := int64(st.Bavail)*st.Bsize - leave - 4<<20
	if size > 0 {
		err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	}
	for end := max(size, 0); err == nil && leave == 0; end += chunk {
		_, err = f.WriteAt(make([]byte, chunk), end)
	}
	if errors.Is(err, unix.ENOSPC) {
		err = nil
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatalf("fill %s with %d bytes: %v", dir, size, err)
	}
	emptied := false
	empty = func() {
		if emptied {
			return
		}
		emptied = true
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(empty)
	return empty
}
