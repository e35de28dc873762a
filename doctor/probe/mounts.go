package probe

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gatesync/gatesync/doctor"
	"github.com/gatesync/gatesync/vfs"
)

// Machine is this machine. The zero value is what is wanted; tests set less.
type Machine struct {
	// Proc is where the kernel tells things; "" is /proc.
	Proc string
	// Limit is how long one call into a filesystem may take; 0 is five seconds.
	Limit time.Duration
}

func (m Machine) path(name string) string { return filepath.Join(cmp.Or(m.Proc, "/proc"), name) }

func (m Machine) read(name string) ([]byte, error) { return os.ReadFile(m.path(name)) }

func (m Machine) limit() time.Duration { return cmp.Or(m.Limit, stepLimit) }

// Mounts lists what is mounted, in the order of mounting, with NFS's counters.
func (m Machine) Mounts() ([]doctor.Mount, error) {
	b, err := m.read("self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("which filesystems are mounted is not known: %w", err)
	}
	mounts := parseMountinfo(b)
	if b, err := m.read("self/mountstats"); err == nil {
		stats := parseMountstats(b)
		for i := range mounts {
			if mounts[i].NFS() {
				mounts[i].Stats = stats[mounts[i].Point]
			}
		}
	}
	return mounts, nil
}

// parseMountinfo reads /proc/self/mountinfo. What it cannot read it leaves out.
func parseMountinfo(b []byte) (mounts []doctor.Mount) {
	for line := range strings.Lines(string(b)) {
		m, err := vfs.ParseMount(line)
		if err != nil {
			continue
		}
		options := map[string]string{}
		for _, list := range []string{m.Own, m.Opts} {
			for _, opt := range strings.Split(list, ",") {
				if k, v, _ := strings.Cut(opt, "="); k != "" {
					options[k] = vfs.UnescapeMount(v)
				}
			}
		}
		mounts = append(mounts, doctor.Mount{Point: m.Point, Type: m.Type, Source: m.Source, Options: options})
	}
	return mounts
}

// parseMountstats reads /proc/self/mountstats, by mount point.
func parseMountstats(b []byte) map[string]*doctor.MountStats {
	out := map[string]*doctor.MountStats{}
	var cur *doctor.MountStats
	var waited uint64
	perOp := false
	end := func() {
		if cur != nil && cur.Calls > 0 {
			cur.Wait = time.Duration(waited/cur.Calls) * time.Millisecond
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) > 4 && f[0] == "device":
			end()
			cur, waited, perOp = &doctor.MountStats{}, 0, false
			out[vfs.UnescapeMount(f[4])] = cur
		case cur == nil || len(f) < 2:
		case f[0] == "age:":
			cur.Age = time.Duration(number(f[1])) * time.Second
		case f[0] == "xprt:" && len(f) > 5 && f[1] == "tcp":
			cur.Connections += number(f[4])
		case f[0] == "per-op":
			perOp = true
		case perOp && len(f) >= 9 && strings.HasSuffix(f[0], ":"):
			ops, sent := number(f[1]), number(f[2])
			cur.Calls += ops
			cur.Resent += sent - min(sent, ops)
			cur.Timeouts += number(f[3])
			waited += number(f[8])
		}
	}
	end()
	return out
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64) // 0 is as good as anything for what cannot be read
	return n
}

// mountOf finds the mount that a path (absolute, without symlinks) lies on: the
// latest of those with the longest mount point.
func mountOf(mounts []doctor.Mount, path string) (found doctor.Mount) {
	for _, m := range mounts {
		if contains(m.Point, path) && len(m.Point) >= len(found.Point) {
			found = m
		}
	}
	return found
}

// inside lists what is mounted below a path.
func inside(mounts []doctor.Mount, path string) (found []doctor.Mount) {
	for _, m := range mounts {
		if m.Point != path && contains(path, m.Point) {
			found = append(found, m)
		}
	}
	return found
}

// contains tells whether path is dir or lies in it.
func contains(dir, path string) bool {
	dir = strings.TrimSuffix(dir, "/") + "/"
	return strings.HasPrefix(path+"/", dir)
}
