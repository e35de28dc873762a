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

// parseMountinfo reads /proc/self/mountinfo (proc(5)). What it cannot read it
// leaves out.
func parseMountinfo(b []byte) (mounts []doctor.Mount) {
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		m := doctor.Mount{Point: unescape(f[4]), Type: g[0], Source: unescape(g[1]), Options: map[string]string{}}
		lists := []string{f[5]}
		if len(g) > 2 {
			lists = append(lists, g[2])
		}
		for _, list := range lists {
			for _, opt := range strings.Split(list, ",") {
				k, v, _ := strings.Cut(opt, "=")
				m.Options[k] = unescape(v)
			}
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// unescape undoes the kernel's \040 for a space and its like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
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
			out[unescape(f[4])] = cur
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
