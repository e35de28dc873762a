package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A gateway in a container: as nobody, without a capability, on a root file system
// that is read-only but for the data directory and the tree, without /tmp; and one
// without inotify. Both are members like any other, and the second one says what it
// lacks.
func TestPromise_Converge_InAContainer(t *testing.T) {
	t.Parallel()
	needRoot(t, "util-linux:unshare", "util-linux:setpriv")
	c := emptyCluster(t)
	if err := os.Chmod(c.dir, 0o755); err != nil { // MkdirTemp's are for root alone
		t.Fatal(err)
	}
	binary := filepath.Join(c.dir, "gatesync")
	if out, err := exec.Command("cp", gatesync, binary).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// What may be written to is mounted onto itself, and stays when / is remounted.
	const container = `set -e
` + letGo + `
mount --bind "$1" "$1"; mount --bind "$2" "$2"
mount -o remount,bind,ro /
for m in $(awk '$5 != "/" && ($4 == "tmpfs" || $5 ~ "^/(tmp|run|var|dev/shm)") {print $5}' /proc/self/mountinfo); do
  case "$m" in "$1"|"$2") ;; *) mount -o remount,bind,ro "$m" || true ;; esac
done
shift 2
cd /
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all "$@"`
	const bare = `echo 0 > /proc/sys/user/max_inotify_instances && exec "$0" "$@"`
	c.place = func(n *node) {
		n.bin = binary
		switch len(c.nodes) {
		case 1:
			for _, dir := range []string{n.data, n.tree} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(dir, 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
			n.enter = []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", container, "sh", n.data, n.tree}
		case 2:
			n.enter = []string{"unshare", "--user", "--map-root-user", "sh", "-c", bare}
		}
	}
	if out, err := sh("unshare", "--user", "--map-root-user", "sh", "-c", bare, "true"); err != nil {
		t.Skipf("needs user namespaces (util-linux, and a kernel that allows them): %v %s", err, out)
	}
	c.boot(3)
	boxed, deaf := c.nodes[1], c.nodes[2]

	// It is what it is meant to be.
	out, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", boxed.daemon.Process.Pid))
	if err != nil || !regexp.MustCompile(`(?m)^Uid:\s+65534\s+65534`).Match(out) || !regexp.MustCompile(`(?m)^CapBnd:\s+0+$`).Match(out) {
		t.Errorf("the daemon is not as an ordinary user: %v\n%s", err, out)
	}
	for _, dir := range []string{"/tmp", "/", filepath.Dir(boxed.data)} {
		probe := append(boxed.enter[:len(boxed.enter):len(boxed.enter)], "touch", filepath.Join(dir, "gatesync-probe"))
		if _, err := sh(probe...); err == nil {
			t.Errorf("%s can be written to", dir)
		}
	}

	for i, n := range c.nodes {
		write(t, n.tree, fmt.Sprintf("d%d/by-%d.xml", i, i), fmt.Sprintf("written beside %s\n", n.name))
		if n == boxed { // its gateway runs as the same user
			for _, p := range []string{"", fmt.Sprintf("/by-%d.xml", i)} { // not -R: what the daemon stages comes and goes
				if err := os.Chown(filepath.Join(n.tree, fmt.Sprintf("d%d", i)+p), 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	c.waitEqual(time.Minute)
	for i, n := range c.nodes { // an edit, and a deletion, of what came from elsewhere
		from := c.nodes[(i+1)%3]
		dir := fmt.Sprintf("d%d", (i+1)%3)
		write(t, n.tree, dir+"/more.xml", n.name)
		if n == boxed {
			if err := os.Chown(filepath.Join(n.tree, dir, "more.xml"), 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, time.Minute, "it stands where it came from", func() error { return stands(from.tree, dir+"/more.xml", n.name) })
	}
	c.waitEqual(time.Minute)
	s, err := deaf.status()
	if err != nil {
		t.Fatal(err)
	}
	if tree := s.Trees[0]; tree.Watched != 0 || !strings.Contains(strings.Join(tree.Notices, " "), "inotify") {
		t.Errorf("without inotify %d directories are watched, and it is said: %q", tree.Watched, tree.Notices)
	}
	// Once it is allowed to, it watches, without a restart.
	if out, err := sh("nsenter", "--user", "--target", fmt.Sprint(deaf.daemon.Process.Pid), "sh", "-c", "echo 128 > /proc/sys/user/max_inotify_instances"); err != nil {
		t.Fatal(out)
	}
	eventually(t, time.Minute, "it watches", func() error {
		s, err := deaf.status()
		if err == nil && (s.Trees[0].Watched == 0 || strings.Contains(strings.Join(s.Trees[0].Notices, " "), "inotify")) {
			err = fmt.Errorf("%d directories are watched, notices %q", s.Trees[0].Watched, s.Trees[0].Notices)
		}
		return err
	})
	boxed.must("verify")
	boxed.must("doctor")
}

// Every address an IPv6 one: init, join, status, a target, a push.
func TestPromise_Converge_IPv6(t *testing.T) {
	t.Parallel()
	c := emptyCluster(t)
	c.place = func(n *node) {
		n.addr, n.http = strings.Replace(n.addr, "127.0.0.1", "[::1]", 1), strings.Replace(n.http, "127.0.0.1", "[::1]", 1)
	}
	c.boot(3)
	for _, n := range c.nodes {
		write(t, n.tree, n.name+".xml", "of "+n.name)
	}
	c.waitEqual(time.Minute)
	s, err := c.nodes[1].status()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Members {
		if !strings.HasPrefix(m.Address, "[::1]:") {
			t.Errorf("%s is at %s", m.Name, m.Address)
		}
	}
	if out := c.nodes[0].must("status"); !strings.Contains(out, "[::1]:") {
		t.Errorf("status shows no address:\n%s", out)
	}
	c.nodes[2].must("doctor")

	b := newPushBed(t)
	r := b.listenOn("[::1]:0", "--tree", "server="+b.dst)
	if !strings.HasPrefix(r.addr, "[::1]:") {
		t.Errorf("the target says that it is at %s", r.addr)
	}
	token := filepath.Join(c.dir, "token")
	if err := os.WriteFile(token, []byte(r.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.nodes[0].must("push", r.addr, "--token-file", token)
	if err := stands(b.dst, "gw2.xml", "of gw2"); err != nil {
		t.Error(err)
	}
	// Over ssh the address goes to ssh without its brackets.
	said := filepath.Join(filepath.Dir(b.dst), "said")
	writeScript(t, b.ssh, "#!/bin/sh\necho \"$@\" > "+said+"\n"+strings.TrimPrefix(sshStub, "#!/bin/sh\n"))
	b.dst += "-ssh"
	b.data, b.to = b.data+"-ssh", "ssh://me@[2001:db8::9]:2222"+b.dst
	write(t, b.src, "f", "content")
	b.must()
	if out, _ := os.ReadFile(said); !strings.Contains(string(out), "2222") || !strings.Contains(string(out), "me") || !bytes.Contains(out, []byte(" 2001:db8::9 ")) {
		t.Errorf("ssh was called with %q", out)
	}
}

// A limit of the settings bounds what a node sends to all members together, and
// what `push` sends.
func TestLimit(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	first := c.nodes[0]
	first.term()
	first.vars = append(first.vars, "GATESYNC_LIMIT=2MB/s")
	first.start()
	big := noise(12 << 20)
	write(t, first.tree, "big.war", big)
	first.waits()
	begin := time.Now()
	second := c.join()
	write(t, first.tree, "small.xml", "small")
	eventually(t, time.Minute, "the small file comes", func() error { return stands(second.tree, "small.xml", "small") })
	eventually(t, 2*time.Minute, "the large file comes", func() error {
		if content(second.tree, "big.war") != big {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	// 12 MB at 2 MB a second; a lower bound holds on a busy machine too.
	if took := time.Since(begin); took < 5*time.Second {
		t.Errorf("12 MB at 2 MB/s took %v", took)
	}
	b := newPushBed(t)
	r := b.listen("--tree", "server="+b.dst)
	token := filepath.Join(c.dir, "token")
	if err := os.WriteFile(token, []byte(r.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	first.must("push", r.addr, "--token-file", token)
	if took := time.Since(begin); took < 5*time.Second {
		t.Errorf("12 MB at 2 MB/s were pushed in %v", took)
	}
	if content(b.dst, "big.war") != big {
		t.Error("the target has it not")
	}
}
