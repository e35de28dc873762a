package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// needRoot skips a test that needs root and tools which are not there. CI has
// both and fails on a skip.
func needRoot(t testing.TB, packages ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: run it as root, as CI does")
	}
	for _, p := range packages {
		name, tool, _ := strings.Cut(p, ":")
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: apt-get install %s", tool, name)
		}
	}
}

// sh runs a command and returns what it said.
func sh(words ...string) (string, error) {
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// hosts are network namespaces with an address each, on a bridge in a
// namespace of its own: nothing of this machine's own network is touched.
type hosts struct {
	t      testing.TB
	prefix string
	count  int
}

var hostsMade atomic.Int64

const hostsPrefix = "gatesync-it-"

// newHosts lays the bridge. Machines on which that is not possible skip.
func newHosts(t testing.TB) *hosts {
	t.Helper()
	needRoot(t, "iproute2:ip", "nftables:nft", "util-linux:nsenter")
	sweepHosts()
	h := &hosts{t: t, prefix: fmt.Sprintf("%s%d-%d-", hostsPrefix, os.Getpid(), hostsMade.Add(1))}
	if _, err := sh("ip", "netns", "add", h.prefix+"0"); err != nil {
		t.Skipf("needs network namespaces (a container has to be privileged): %v", err)
	}
	h.ip("-n", h.prefix+"0", "link", "add", "br0", "type", "bridge")
	h.ip("-n", h.prefix+"0", "link", "set", "br0", "up")
	return h
}

// sweepHosts removes what a killed run has left behind.
func sweepHosts() {
	left, _ := filepath.Glob("/run/netns/" + hostsPrefix + "*")
	for _, path := range left {
		pid := regexp.MustCompile(`\d+`).FindString(filepath.Base(path))
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			_, _ = sh("ip", "netns", "del", filepath.Base(path))
		}
	}
}

func (h *hosts) ip(words ...string) {
	h.t.Helper()
	if _, err := sh(append([]string{"ip"}, words...)...); err != nil {
		h.t.Fatal(err)
	}
}

// close takes everything down, once nothing runs there.
func (h *hosts) close() {
	for i := range h.count + 1 {
		if _, err := sh("ip", "netns", "del", h.prefix+strconv.Itoa(i)); err != nil {
			h.t.Error(err)
		}
	}
}

func hostAddr(host int) string { return fmt.Sprintf("10.99.0.%d", host) }

// add makes the next host, numbered from 1, and moves a node there.
func (h *hosts) add(n *node) {
	h.t.Helper()
	h.count++
	num := strconv.Itoa(h.count)
	ns := h.prefix + num
	h.ip("netns", "add", ns)
	h.ip("-n", h.prefix+"0", "link", "add", "v"+num, "type", "veth", "peer", "name", "eth0", "netns", ns)
	h.ip("-n", h.prefix+"0", "link", "set", "v"+num, "master", "br0", "up")
	h.ip("-n", ns, "addr", "add", hostAddr(h.count)+"/24", "dev", "eth0")
	h.ip("-n", ns, "link", "set", "eth0", "up")
	h.ip("-n", ns, "link", "set", "lo", "up")
	h.nft(h.count, "add table inet part\nadd chain inet part i { type filter hook input priority 0; policy accept; }\n")
	n.enter = []string{"nsenter", "--net=/run/netns/" + ns, "--"}
	n.addr, n.http = hostAddr(h.count)+":7946", "127.0.0.1:7947"
}

func (h *hosts) nft(host int, script string) {
	h.t.Helper()
	cmd := exec.Command("nsenter", "--net=/run/netns/"+h.prefix+strconv.Itoa(host), "--", "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("nft on host %d: %v: %s", host, err, out)
	}
}

// cut pulls a host's cable, mend puts it back.
func (h *hosts) cut(host int) {
	h.t.Helper()
	h.ip("-n", h.prefix+"0", "link", "set", "v"+strconv.Itoa(host), "down")
}

func (h *hosts) mend(host int) {
	h.t.Helper()
	h.ip("-n", h.prefix+"0", "link", "set", "v"+strconv.Itoa(host), "up")
}

// deafen lets a host no longer hear another; it can still send to it. hear
// ends all of its deafness.
func (h *hosts) deafen(host, to int) {
	h.t.Helper()
	h.nft(host, "add rule inet part i ip saddr "+hostAddr(to)+" drop\n")
}

func (h *hosts) hear(host int) {
	h.t.Helper()
	h.nft(host, "flush chain inet part i\n")
}

// mendAll ends every partition.
func (h *hosts) mendAll() {
	h.t.Helper()
	for i := 1; i <= h.count; i++ {
		h.mend(i)
		h.hear(i)
	}
}

// newHostCluster is newCluster with a host of its own for each node.
func newHostCluster(t testing.TB, count int) (*cluster, *hosts) {
	t.Helper()
	h := newHosts(t)
	c := emptyCluster(t)
	c.undo = append(c.undo, h.close)
	c.place = h.add
	c.boot(count)
	return c, h
}

// host is the number of a node's host.
func (c *cluster) host(n *node) int {
	for i, m := range c.nodes {
		if m == n {
			return i + 1
		}
	}
	return 0
}
