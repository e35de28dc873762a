package vfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Mount is what the kernel says of one mount. Asking costs no call into the
// filesystem that is mounted, so that it may be asked of one that hangs.
type Mount struct {
	ID     int    // of this mount: another one at the same place has another id
	Point  string // where it is mounted
	Type   string // "nfs4", "ext4", …
	Source string // what is mounted: "server:/export", "/dev/sda1"
	Own    string // options of this mount, as the kernel prints them
	Opts   string // options of the superblock, likewise
	Major  uint32
	Minor  uint32
}

// MountOf tells which mount a path lies on. It goes by the path's text:
// symlinks in it have to be resolved before.
func MountOf(path string) (Mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Mount{}, err
	}
	return mountIn(string(b), path)
}

// mountIn finds the mount of a path in the text of /proc/self/mountinfo. Of
// two at the same place the later one hides the earlier.
func mountIn(mountinfo, path string) (Mount, error) {
	path = filepath.Clean(path)
	var best Mount
	for line := range strings.Lines(mountinfo) {
		m, err := ParseMount(line)
		if err != nil {
			return Mount{}, err
		}
		if len(m.Point) >= len(best.Point) && under(path, m.Point) {
			best = m
		}
	}
	if best.Point == "" {
		return Mount{}, fmt.Errorf("no mount is known for %s", path)
	}
	return best, nil
}

func under(path, point string) bool {
	return point == "/" || path == point || strings.HasPrefix(path, point+"/")
}

// ParseMount reads a line of /proc/self/mountinfo (proc(5)): id, parent, major:minor, root, point, options,
// optional fields, "-", type, source, options of the superblock.
func ParseMount(line string) (m Mount, err error) {
	bad := fmt.Errorf("/proc/self/mountinfo has a line that cannot be read: %q", line)
	mine, super, ok := strings.Cut(strings.TrimSpace(line), " - ")
	f, g := strings.Fields(mine), strings.Fields(super)
	if !ok || len(f) < 6 || len(g) < 2 {
		return m, bad
	}
	major, minor, ok := strings.Cut(f[2], ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	id, err3 := strconv.Atoi(f[0])
	if !ok || errors.Join(err1, err2, err3) != nil {
		return m, bad
	}
	m = Mount{ID: id, Point: UnescapeMount(f[4]), Own: f[5], Type: g[0], Source: UnescapeMount(g[1]), Major: uint32(a), Minor: uint32(b)}
	if len(g) > 2 {
		m.Opts = g[2]
	}
	return m, nil
}

// UnescapeMount undoes how the kernel writes blanks and backslashes in its
// lists of mounts: \040.
func UnescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Local tells whether the filesystem is known to live on this machine alone.
// It decides what a call may cost, never what is true of a tree.
func (m Mount) Local() bool {
	switch m.Type {
	case "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "reiserfs", "vfat", "exfat", "ntfs3",
		"tmpfs", "ramfs", "devtmpfs", "overlay", "aufs", "squashfs", "erofs", "iso9660", "rootfs":
		return true
	}
	return false
}
