package nfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// host is one of the machines that mount the share.
type host struct {
	b      *bed
	name   string // gw1, …
	number int
	locks  bool // it has what NFSv3 needs for locks
}

func newHost(b *bed, number int) *host {
	b.t.Helper()
	h := &host{b: b, name: fmt.Sprintf("gw%d", number), number: number}
	ns, uts, cable := h.name, "/run/uts-"+h.name, h.cable()
	b.must("ip", "netns", "add", ns)
	b.check(os.WriteFile(uts, nil, 0o644))
	// The client's name in NFSv4 comes from its host's name.
	b.must("unshare", "--uts="+uts, "hostname", h.name)
	b.must("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", ns)
	b.must("ip", "link", "set", cable, "master", "br0", "up")
	b.must("ip", "-n", ns, "addr", "add", h.addr()+"/24", "dev", "eth0")
	b.must("ip", "-n", ns, "link", "set", "eth0", "up")
	b.must("ip", "-n", ns, "link", "set", "lo", "up")
	return h
}

func (h *host) addr() string  { return fmt.Sprintf("10.99.0.%d", h.number) }
func (h *host) cable() string { return "cable-" + h.name }

// command is a command that runs on the host. (`ip netns exec` would hide what
// is mounted later.)
func (h *host) command(words ...string) *exec.Cmd {
	line := append([]string{"--net=/run/netns/" + h.name, "--uts=/run/uts-" + h.name, "--"}, words...)
	return exec.Command("nsenter", line...)
}

func (h *host) must(words ...string) string {
	h.b.t.Helper()
	out, err := h.run(words...)
	h.b.check(err)
	return out
}

func (h *host) run(words ...string) (string, error) {
	out, err := h.command(words...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("on %s: %s: %w: %s", h.name, strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// pull pulls the host's cable out of the switch, plug puts it back.
func (h *host) pull() { h.b.t.Helper(); h.b.must("ip", "link", "set", h.cable(), "down") }
func (h *host) plug() { h.b.t.Helper(); h.b.must("ip", "link", "set", h.cable(), "up") }

// netem makes what comes to the host late, lost or torn, in the words of
// tc-netem(8); none named: as it was.
func (h *host) netem(words ...string) {
	h.b.t.Helper()
	if len(words) == 0 {
		h.b.must("tc", "qdisc", "del", "dev", h.cable(), "root")
		return
	}
	h.b.must(append([]string{"tc", "qdisc", "replace", "dev", h.cable(), "root", "netem"}, words...)...)
}

// flavour is a way to mount the share.
type flavour struct {
	name    string
	version string // of the protocol: 4.2, 3
	options string
}

// The four that operators use. A soft mount gives EIO after three tries of a
// second; with hard ones whoever waits waits for ever.
var (
	v4hard = flavour{"v4.2-hard", "4.2", "hard"}
	v4soft = flavour{"v4.2-soft", "4.2", "soft,timeo=10,retrans=2"}
	v3hard = flavour{"v3-hard", "3", "hard"}
	v3soft = flavour{"v3-soft", "3", "soft,timeo=10,retrans=2"}
)

func flavours() []flavour { return []flavour{v4hard, v4soft, v3hard, v3soft} }

// mount is a directory of the share as one host sees it.
type mount struct {
	host *host
	path string // where
	name string // of the directory on the server
	flavour
}

// mount mounts a directory of the share (see server.dir; "" is all of it) at
// /mnt/HOST/NAME until the test ends. More options go after the flavour's.
func (h *host) mount(name string, f flavour, more ...string) *mount {
	h.b.t.Helper()
	m := &mount{host: h, path: "/mnt/" + h.name + "/" + name, name: name, flavour: f}
	if len(more) > 0 {
		m.options += "," + strings.Join(more, ",")
	}
	m.again()
	h.b.t.Cleanup(m.gone)
	return m
}

// again mounts it once more: over what stands there, or at the path that a
// test has put in m.
func (m *mount) again() {
	m.host.b.t.Helper()
	m.host.b.check(os.MkdirAll(m.path, 0o755))
	source := m.host.b.server.addr + ":/" + m.name
	if m.version == "3" {
		source = m.host.b.server.addr + ":" + m.host.b.server.path(m.name)
		m.host.startLocks()
	}
	m.host.must("mount", "-t", "nfs", source, m.path, "-o", "vers="+m.version+",proto=tcp,"+m.options)
}

// unmount takes it away; it fails where somebody uses it (EBUSY).
func (m *mount) unmount() error { return unix.Unmount(m.path, 0) }

// detach takes it away lazily: what is open stays open, the path is empty at
// once.
func (m *mount) detach() error { return unix.Unmount(m.path, unix.MNT_DETACH) }

// gone takes away all that is mounted there. What waits for a server that is
// away is ended with an error. Of a server that is off for good nothing is
// unmounted: NFSv4 would wait to give its delegations back, and the guest ends.
func (m *mount) gone() {
	if m.host.b.server.off {
		return
	}
	var err error
	for range 10 {
		if err = unix.Unmount(m.path, unix.MNT_DETACH|unix.MNT_FORCE); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.EINVAL) { // nothing is mounted there any more
		m.host.b.t.Errorf("unmount %s: %v", m.path, err)
	}
}

// startLocks runs what the locks of NFSv3 need on a client's side. rpcbind
// wants a socket in /run, so that it gets a view of its own of that.
func (h *host) startLocks() {
	h.b.t.Helper()
	if h.locks {
		return
	}
	h.locks = true
	h.must("unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib/nfs && "+
		"mkdir -p /run/rpcbind /var/lib/nfs/sm /var/lib/nfs/sm.bak && rpcbind && exec rpc.statd --no-notify")
}

// rpcs counts the calls that a mount has made to the server so far.
func (m *mount) rpcs() (count int) {
	m.host.b.t.Helper()
	for _, n := range m.calls() {
		count += n
	}
	return count
}

// calls counts them by what they ask for.
func (m *mount) calls() map[string]int {
	m.host.b.t.Helper()
	b, err := os.ReadFile("/proc/self/mountstats")
	m.host.b.check(err)
	_, stats, found := strings.Cut(string(b), " mounted on "+m.path+" with fstype nfs")
	if !found {
		m.host.b.t.Fatalf("no mount at %s in\n%s", m.path, b)
	}
	stats, _, _ = strings.Cut(stats, "\ndevice ")
	_, ops, _ := strings.Cut(stats, "per-op statistics")
	count := map[string]int{}
	for line := range strings.Lines(ops) {
		var op string
		var n int
		if k, _ := fmt.Sscanf(line, " %s %d", &op, &n); k == 2 && n > 0 {
			count[strings.TrimSuffix(op, ":")] += n
		}
	}
	return count
}
