package nfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// server is the file server: the kernel's own, on an ext4 of its own. All of
// its exported directory is under share; a subtest takes a directory of its
// own there, so that none finds what another has left.
type server struct {
	b     *bed
	addr  string
	image string // the disk, a file: what is in it was flushed
	cuts  int
	off   bool // its power is
}

const (
	serverAddr = "10.99.0.254" // at first
	disk       = "/srv"
	share      = disk + "/share"
	diskSize   = 256 << 20

	writable = "rw,sync,no_root_squash,no_subtree_check,fsid=0,insecure"
	readOnly = "ro,sync,no_root_squash,no_subtree_check,fsid=0,insecure"
)

func newServer(b *bed) *server {
	b.t.Helper()
	s := &server{b: b, addr: serverAddr, image: "/tmp/disk-0"}
	f, err := os.Create(s.image)
	b.check(err)
	b.check(errors.Join(f.Truncate(diskSize), f.Close()))
	b.must("mkfs.ext4", "-q", "-F", "-m", "0", s.image)
	s.mountDisk()
	for _, dir := range []string{share, disk + "/clients"} {
		b.check(os.MkdirAll(dir, 0o777))
	}
	b.check(os.Chmod(share, 0o777))
	s.bindClients()
	b.must("sync")
	b.must("rpcbind")
	b.must("rpc.statd", "--no-notify")
	s.export(writable)
	s.start()
	b.must("rpc.mountd")
	return s
}

// mountDisk mounts the disk such that nothing reaches it that nobody flushes.
func (s *server) mountDisk() {
	s.b.t.Helper()
	s.b.must("mount", "-t", "ext4", "-o", "loop,data=writeback,noauto_da_alloc,commit=300", s.image, disk)
}

// bindClients puts what a server has to know about its clients after a reboot
// (who held state) onto its disk.
func (s *server) bindClients() {
	s.b.must("mount", "--bind", disk+"/clients", "/var/lib/nfs/nfsdcltrack")
}

// path is a path on the server's own disk.
func (s *server) path(elem ...string) string {
	return filepath.Join(append([]string{share}, elem...)...)
}

// dir makes an exported directory.
func (s *server) dir(name string) string {
	s.b.t.Helper()
	s.b.check(os.Mkdir(s.path(name), 0o777))
	s.b.check(os.Chmod(s.path(name), 0o777))
	return name
}

// start runs the server's threads. After a stop, NFSv4 has a period of grace
// of ten seconds, in which clients claim what they had and nobody opens anew.
func (s *server) start() {
	s.b.t.Helper()
	s.b.must("rpc.nfsd", "-G", "10", "-L", "10", "8")
}

// stop ends the server's threads: nobody is answered any more.
func (s *server) stop() {
	s.b.t.Helper()
	s.b.must("rpc.nfsd", "0")
}

// export exports the share with other options from now on.
func (s *server) export(options string) {
	s.b.t.Helper()
	s.b.must("exportfs", "-o", options, "*:"+share)
	s.b.must("exportfs", "-f")
}

// unexport takes the share away: the handles that clients hold are stale.
func (s *server) unexport() {
	s.b.t.Helper()
	s.b.must("exportfs", "-u", "*:"+share)
	s.b.must("exportfs", "-f")
}

// replace removes an exported directory and puts a copy in its place, as after
// a restore from a backup: all handles that clients hold are stale for good,
// although every path is there. They have to mount anew. Nobody writes while
// it is copied.
func (s *server) replace(name string) {
	s.b.t.Helper()
	s.unexport()
	defer s.export(writable)
	old := s.path(name) + ".old"
	s.b.check(os.Rename(s.path(name), old))
	s.b.must("cp", "-a", old, s.path(name))
	s.b.check(os.RemoveAll(old))
	s.b.must("sync", "-f", disk) // no client can have flushed what was written here
}

// fill takes all the space of the server's disk; empty gives it back.
func (s *server) fill() (empty func()) {
	s.b.t.Helper()
	ballast := disk + "/ballast"
	f, err := os.Create(ballast)
	s.b.check(err)
	var st unix.Statfs_t
	s.b.check(unix.Fstatfs(int(f.Fd()), &st))
	if size := int64(st.Bavail)*st.Bsize - 4<<20; size > 0 {
		s.b.check(unix.Fallocate(int(f.Fd()), 0, 0, size))
	}
	// The rest as it comes, with what the file system needs of its own.
	for err == nil {
		_, err = f.Seek(0, 2)
		if err == nil {
			_, err = f.Write(make([]byte, 64<<10))
		}
		if err == nil {
			err = f.Sync()
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		s.b.t.Fatalf("filling the server's disk: %v", err)
	}
	_ = f.Close()
	return func() {
		s.b.t.Helper()
		s.b.check(os.Remove(ballast))
		s.b.must("sync", "-f", disk)
	}
}

// cutPower turns the server off and on again: its disk has what was flushed at
// that moment, and nothing else.
//
// There is one kernel here, so this is what it is instead of a real cut. First
// the server loses its address: no answer that it gives from now on reaches a
// client. Then its threads end, and the file that is its disk, to which only
// what is flushed goes (mountDisk), is copied and put in its place. What was
// flushed between the first and the last of these milliseconds survives without
// anybody having been told, as with a server whose cable goes before its power.
// The hosts still reach each other.
func (s *server) cutPower() {
	s.b.t.Helper()
	s.powerOff()
	s.powerOn()
}

// powerOff is the first half of cutPower: the server is away until powerOn.
func (s *server) powerOff() {
	s.b.t.Helper()
	s.off = true
	s.b.must("ip", "addr", "del", s.addr+"/24", "dev", "br0")
	s.stop()
	s.cuts++
	saved := fmt.Sprintf("/tmp/disk-%d", s.cuts)
	s.b.must("cp", "--sparse=always", s.image, saved)
	// The export and what is bound keep the old disk busy; it is nobody's now.
	_, _ = command("exportfs", "-f")
	s.b.must("umount", "-l", "/var/lib/nfs/nfsdcltrack")
	s.b.must("umount", "-l", disk)
	s.b.check(os.Remove(s.image))
	s.image = saved
}

func (s *server) powerOn() {
	s.b.t.Helper()
	s.mountDisk()
	s.bindClients()
	s.export(writable)
	s.start()
	s.b.must("ip", "addr", "add", s.addr+"/24", "dev", "br0")
	s.off = false
}

// move gives the server another address, as if another one had been set up
// with the same files: what is mounted from the old one never answers again.
func (s *server) move(addr string) {
	s.b.t.Helper()
	s.b.must("ip", "addr", "del", s.addr+"/24", "dev", "br0") // first: later ones go with it
	s.b.must("ip", "addr", "add", addr+"/24", "dev", "br0")
	s.addr = addr
}
