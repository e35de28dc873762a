package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/integration/tunnel"
)

// A site in which members and followers are cut off from one another but for what
// each test allows: one port, a proxy, NAT. Everything is said by nft, in network
// namespaces.
func TestPromise_Available_OnePortProxyAndNAT(t *testing.T) {
	t.Parallel()
	c, h := newHostCluster(t, 3)
	first := c.nodes[0]
	first.waitFormat(2, 2)
	write(t, first.tree, "begin.xml", "begin\n")
	c.waitEqual(time.Minute)

	t.Run("one port", func(t *testing.T) {
		c.in(t)
		for _, n := range c.nodes {
			noOddSockets(t, n)
		}
	})

	// A follower whose host reaches nothing but the proxy.
	t.Run("proxy", func(t *testing.T) {
		c.in(t)
		addr := hostAddr(1) + ":3128"
		p := newHostProxy(t, h.prefix+"1", addr, "gw:s3cret")
		f := c.add()
		h.nft(c.host(f), "add rule inet part i ct state established,related accept\nadd rule inet part i iif lo accept\nadd rule inet part i drop\n"+
			"add chain inet part o { type filter hook output priority 0; policy accept; }\nadd rule inet part o oif lo accept\nadd rule inet part o ip daddr "+hostAddr(1)+" tcp dport 3128 accept\nadd rule inet part o reject with tcp reset\n")
		join := append([]string{first.addr, "--token", first.token(), "--follower"}, c.joinFlags(f)...)
		if a := f.ask("join", join...); a.code != 1 || !strings.Contains(a.stderr, "refused") {
			t.Fatalf("without the proxy: exit code %d: %s", a.code, a.stderr)
		}
		f.vars = append(f.vars, "HTTPS_PROXY=http://"+addr)
		if a := f.ask("join", join...); a.code != 1 || !strings.Contains(a.stderr, "407") || !strings.Contains(a.stderr, "NO_PROXY") {
			t.Fatalf("without a password: exit code %d: %s", a.code, a.stderr)
		}
		f.vars = append(f.vars, "HTTPS_PROXY=http://gw:s3cret@"+addr)
		f.must("join", join...)
		f.start()
		c.passes(f, "proxy")
		out := f.must("status")
		if !strings.Contains(out, "through the proxy http://"+addr) || strings.Contains(out, "s3cret") {
			t.Errorf("status says\n%s", out)
		}
		if log := f.logTail(1000); strings.Count(log, "through the HTTP proxy") != 1 || strings.Contains(log, "s3cret") {
			t.Errorf("the log says %d times that there is a proxy, or shows its password", strings.Count(log, "through the HTTP proxy"))
		}
		if out := f.must("doctor"); !strings.Contains(out, "proxy http://"+addr) {
			t.Errorf("doctor does not name the proxy:\n%s", out)
		}
		c.pushFrom(f)

		// It does not let that port through any more: the error says so. Where it
		// is well again all goes on.
		p.refuses.Store(true)
		write(t, first.tree, "while-refused.xml", "later")
		f.term()
		f.launch()
		eventually(t, 30*time.Second, "it is said that the proxy refuses", func() error {
			if log := f.logTail(1000); !strings.Contains(log, "403") {
				return fmt.Errorf("the log does not say so")
			}
			return nil
		})
		p.refuses.Store(false)
		f.answers()
		eventually(t, time.Minute, "it goes on", func() error { return stands(f.tree, "while-refused.xml", "later") })
	})

	// A link-local address is of use with its zone only.
	t.Run("link-local", func(t *testing.T) {
		c.in(t)
		out, err := sh("ip", "-n", h.prefix+"2", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link")
		local, _, _ := strings.Cut(strings.TrimSpace(after(out, "inet6")), "/")
		if err != nil || local == "" {
			t.Skipf("needs IPv6 in network namespaces: %v %s", err, out)
		}
		c.push(first, c.nodes[1], "[::]:7951", "["+local+"%eth0]:7951")
	})

	// Followers in a private network, behind a router that masquerades.
	t.Run("NAT", func(t *testing.T) {
		c.in(t)
		f := c.add()
		h.behindNAT(c.host(f), f)
		c.admit(f, "--follower")
		c.passes(f, "NAT")
		c.pushFrom(f)
		noOddSockets(t, f)
	})
}

// passes writes on both sides of a follower's way out, and waits for it to arrive.
func (c *cluster) passes(f *node, what string) {
	c.t.Helper()
	eventually(c.t, time.Minute, "what was there comes", func() error { return stands(f.tree, "begin.xml", "begin\n") })
	write(c.t, f.tree, "from-"+what+".xml", "from behind")
	write(c.t, c.nodes[1].tree, "to-"+what+".xml", "from outside")
	for _, n := range append(c.nodes[:3:3], f) {
		eventually(c.t, time.Minute, "both stand on "+n.name, func() error {
			if err := stands(n.tree, "from-"+what+".xml", "from behind"); err != nil {
				return err
			}
			return stands(n.tree, "to-"+what+".xml", "from outside")
		})
	}
	f.waits()
	c.nodes[0].waits()
}

// after is what stands behind a word.
func after(text, word string) string {
	_, rest, _ := strings.Cut(text, word)
	return rest
}

// pushFrom pushes from a node to a receiver on the second host.
func (c *cluster) pushFrom(f *node) {
	c.t.Helper()
	c.push(f, c.nodes[1], hostAddr(2)+":7950", hostAddr(2)+":7950")
}

// push pushes from a node to a receiver that listens on the host of another one.
func (c *cluster) push(f, there *node, listen, to string) {
	c.t.Helper()
	b := newPushBed(c.t)
	r := b.receive(append(slices.Clone(there.enter), gatesync), listen, "--tree", "server="+b.dst)
	defer r.stop()
	token := filepath.Join(c.t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(r.token+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	f.must("push", to, "--token-file", token)
	if err := stands(b.dst, "begin.xml", "begin\n"); err != nil {
		c.t.Error(err)
	}
}

// noOddSockets checks sockets; a connection that is being closed goes away by itself.
func noOddSockets(t *testing.T, n *node) {
	t.Helper()
	eventually(t, 30*time.Second, n.name+" has no sockets but its own", func() error {
		if odd := sockets(t, n); len(odd) > 0 {
			return fmt.Errorf("%s", strings.Join(odd, "\n"))
		}
		return nil
	})
}

// sockets lists what a node's host listens on, or is connected by, that is not the
// one port between nodes or the loopback's HTTP.
func sockets(t testing.TB, n *node) (odd []string) {
	t.Helper()
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6", "udplite", "raw", "raw6", "sctp"} {
		enter := append(slices.Clone(n.enter), "sh", "-c", "cat /proc/net/"+proto+" 2>/dev/null || true")
		out, err := sh(enter...)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) < 4 || !strings.HasSuffix(f[0], ":") {
				continue
			}
			if f[3] == "06" || strings.HasPrefix(proto, "tcp") && (portIn(f[1]) == 7946 || portIn(f[2]) == 7946) {
				continue // the port; or a connection that is long closed
			}
			if strings.HasPrefix(proto, "tcp") && portIn(f[1]) == 7947 && strings.HasPrefix(f[1], "0100007F:") {
				continue
			}
			odd = append(odd, proto+": "+strings.TrimSpace(line))
		}
	}
	return odd
}

// portIn reads the port of an address as /proc/net writes it.
func portIn(addr string) uint64 {
	_, port, _ := strings.Cut(addr, ":")
	n, _ := strconv.ParseUint(port, 16, 16)
	return n
}

// behindNAT moves a node into a private network of its own behind its host, which
// becomes a router that masquerades and lets nothing new in.
func (h *hosts) behindNAT(host int, n *node) {
	h.t.Helper()
	router := h.prefix + strconv.Itoa(host)
	inner := router + "-nat"
	h.ip("netns", "add", inner)
	h.t.Cleanup(func() { n.stop(); h.ip("netns", "del", inner) })
	h.ip("-n", router, "link", "add", "nat0", "type", "veth", "peer", "name", "eth0", "netns", inner)
	h.ip("-n", router, "addr", "add", "192.168.77.1/24", "dev", "nat0")
	h.ip("-n", router, "link", "set", "nat0", "up")
	h.ip("-n", inner, "addr", "add", "192.168.77.2/24", "dev", "eth0")
	h.ip("-n", inner, "link", "set", "eth0", "up")
	h.ip("-n", inner, "link", "set", "lo", "up")
	h.ip("-n", inner, "route", "add", "default", "via", "192.168.77.1")
	if out, err := sh("nsenter", "--net=/run/netns/"+router, "--", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"); err != nil {
		h.t.Skipf("needs a kernel whose network namespaces can forward (a container has to be privileged): %v %s", err, out)
	}
	h.nft(host, "add table ip nat\nadd chain ip nat post { type nat hook postrouting priority 100; }\nadd rule ip nat post oifname eth0 masquerade\n"+
		"add chain inet part f { type filter hook forward priority 0; policy drop; }\nadd rule inet part f ct state established,related accept\nadd rule inet part f iifname nat0 accept\n")
	n.enter = []string{"nsenter", "--net=/run/netns/" + inner, "--"}
	n.addr = "192.168.77.2:7946"
}

// inHost runs fn in a network namespace: sockets that it makes belong there. The
// thread comes back from there, for daemons that it has started die with it.
func inHost(ns string, fn func()) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	f, err := os.Open("/run/netns/" + ns)
	if err == nil {
		err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		_ = f.Close()
	}
	if err == nil {
		fn()
		err = unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
	}
	if err == nil {
		runtime.UnlockOSThread() // else nobody else shall use it
	}
	return err
}

// hostProxy is an HTTP proxy on a host.
type hostProxy struct {
	tunnel.Proxy
	refuses atomic.Bool
}

// newHostProxy listens in a namespace until the test ends.
func newHostProxy(t testing.TB, host, addr, auth string) *hostProxy {
	t.Helper()
	p := &hostProxy{}
	p.Auth = auth
	p.Instead = func() string {
		if p.refuses.Load() {
			return "HTTP/1.1 403 Forbidden\r\n\r\n"
		}
		return ""
	}
	p.Dial = func(hostport string) (c net.Conn, err error) {
		if there := inHost(host, func() { c, err = net.DialTimeout("tcp", hostport, 5*time.Second) }); there != nil {
			return nil, there
		}
		return c, err
	}
	var l net.Listener
	var lerr error
	if err := inHost(host, func() { l, lerr = net.Listen("tcp", addr) }); err != nil || lerr != nil {
		t.Fatal(err, lerr)
	}
	p.Serve(t, l)
	return p
}
