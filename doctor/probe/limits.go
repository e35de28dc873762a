package probe

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/gatesync/gatesync/doctor"
)

// Limits reads the kernel's limits; of the process pid, or of this one where
// pid is 0.
func (m Machine) Limits(pid int) doctor.Limits {
	l := doctor.Limits{
		Watches:   m.sysctl("max_user_watches"),
		Instances: m.sysctl("max_user_instances"),
		Queued:    m.sysctl("max_queued_events"),
		Of:        "shell",
	}
	who := "self"
	if pid != 0 {
		who, l.Of = strconv.Itoa(pid), "daemon"
	}
	b, err := m.read(who + "/limits")
	if err != nil {
		return l
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if f := strings.Fields(rest); len(f) >= 2 {
				l.OpenFiles, l.OpenHard = limit(f[0]), limit(f[1])
			}
		}
	}
	return l
}

func (m Machine) sysctl(name string) int64 {
	b, err := m.read("sys/fs/inotify/" + name)
	if err != nil {
		return 0
	}
	return int64(number(strings.TrimSpace(string(b))))
}

func limit(s string) int64 {
	if s == "unlimited" {
		return 1 << 40
	}
	return int64(number(s))
}

// Owner tells whom a process belongs to; 0 for one that is not there.
func (m Machine) Owner(pid int) uint32 {
	fi, err := os.Stat(m.path(strconv.Itoa(pid)))
	if err != nil {
		return 0
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Uid
}
