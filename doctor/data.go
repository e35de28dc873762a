package doctor

import (
	"fmt"
	"strings"
)

func checkData(s *sheet, f Facts) {
	d := f.Data
	if d.Err != "" {
		s.problem(d.Path, "name the right one with --data-dir, and run this as the daemon's user", "it cannot be looked at: %s", d.Err)
		return
	}
	for _, part := range d.Damaged {
		s.problem(d.Path, "`gatesync run` says how it heals or what to do; check the disk", "a part cannot be read: %s", part)
	}
	if d.DaemonHung {
		s.problem(d.Path, "look at its log and at its disks; if it hangs in a dead mount, SIGTERM still ends it", "the daemon (process %d) holds the directory and does not answer", d.DaemonPID)
	}
	if d.Mode&0o077 != 0 {
		s.problem(d.Path, "chmod 700 "+d.Path, "other users may look into it (mode %s): it holds the key of the cluster's CA", d.Mode)
	}
	if d.KeyMode&0o077 != 0 {
		s.problem(d.Path, "chmod 600 the key", "other users may read this node's private key (mode %s)", d.KeyMode)
	}
	if d.DaemonPID != 0 && d.DaemonUID != d.UID {
		s.warn(d.Path, fmt.Sprintf("chown -R it to user %d, or run the daemon as user %d", d.DaemonUID, d.UID), "the daemon runs as user %d, the directory is user %d's", d.DaemonUID, d.UID)
	}
	dataMount(s, d)
	dataRoom(s, d)
}

func dataMount(s *sheet, d Data) {
	switch {
	case d.Mount.Network():
		s.problem(d.Path, "stop the daemon, move the directory to a local disk, start it there", "it lies on a network filesystem (%s, %s): a hang or a lost flush there stops or harms the log", d.Mount.Type, d.Mount.Source)
	case d.Mount.Type == "tmpfs" || d.Mount.Type == "ramfs":
		s.problem(d.Path, "move it to a disk", "it lies in memory (%s): after a reboot this node has forgotten what it voted for", d.Mount.Type)
	case strings.HasPrefix(d.Mount.Type, "fuse"):
		s.warn(d.Path, "move it to a local disk", "it lies on a FUSE filesystem (%s): whether a flush is one is up to that program", d.Mount.Type)
	case d.Mount.Type == "overlay":
		s.warn(d.Path, "give the container a volume for it", "it lies in a container's own layer: it goes with the container")
	}
	if _, ro := d.Mount.Options["ro"]; ro {
		s.problem(d.Path, "see the kernel's log for why, then remount it read-write", "its filesystem is read-only")
	}
	if v, ok := d.Mount.Options["barrier"]; ok && v == "0" {
		s.problem(d.Path, "mount it without barrier=0", "its filesystem does not flush (barrier=0)")
	}
	if _, ok := d.Mount.Options["nobarrier"]; ok {
		s.problem(d.Path, "mount it without nobarrier", "its filesystem does not flush (nobarrier)")
	}
}

func dataRoom(s *sheet, d Data) {
	switch {
	case d.Free < d.Reserve:
		s.problem(d.Path, "make room, or lower free_reserve in gatesync.yaml", "%s are free, less than the reserve of %s: no content is taken", size(d.Free), size(d.Reserve))
	case d.Free < 2*d.Reserve:
		s.warn(d.Path, "make room", "%s are free; below %s no content is taken", size(d.Free), size(d.Reserve))
	}
	if d.Files > 0 && d.FreeFiles < 10_000 {
		s.warn(d.Path, "make room for files: the filesystem's inodes are nearly used up", "%d files can still be made there", d.FreeFiles)
	}
}

// size prints bytes for people.
func size(n int64) string {
	v := float64(n)
	for _, unit := range []string{"B", "KB", "MB", "GB"} {
		if v < 1024 {
			return fmt.Sprintf("%.4g %s", v, unit)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.4g TB", v)
}
