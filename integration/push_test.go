package integration

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// receiver is a `receive --listen` that runs.
type receiver struct {
	t     testing.TB
	cmd   *exec.Cmd
	addr  string
	token string
}

// listen starts a listening target, and makes it the one that is pushed to.
func (b *pushBed) listen(args ...string) *receiver {
	b.t.Helper()
	return b.listenAs(gatesync, args...)
}

// listenOn is listen on another address.
func (b *pushBed) listenOn(addr string, args ...string) *receiver {
	b.t.Helper()
	return b.receive([]string{gatesync}, addr, args...)
}

func (b *pushBed) listenAs(binary string, args ...string) *receiver {
	b.t.Helper()
	// Not a port that the kernel may give to who dials while the target is off.
	return b.receive([]string{binary}, freeAddr(b.t), args...)
}

// receive runs a listening target, with the words before it that enter its host.
func (b *pushBed) receive(line []string, addr string, args ...string) *receiver {
	b.t.Helper()
	line = append(line, "receive", "--listen", addr, "--data-dir", b.data, "--free-reserve", "1MB")
	line = append(line, args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), b.vars...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	r := &receiver{t: b.t, cmd: cmd}
	lines := bufio.NewReader(out)
	first, _ := lines.ReadString('\n')
	second, err := lines.ReadString('\n')
	if err != nil || len(strings.Fields(first)) < 3 {
		b.t.Fatalf("receive said %q, %q: %v", first, second, err)
	}
	r.addr, r.token = strings.TrimSuffix(strings.Fields(first)[2], ","), strings.Fields(second)[1]
	b.to, b.vars = r.addr, append(b.vars, "GATESYNC_TOKEN="+r.token)
	b.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return r
}

// stop ends it as an operator would.
func (r *receiver) stop() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Fatalf("receive ended with %v", err)
	}
}

func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return string(b)
}

// runIn runs a command of the binary that has to succeed.
func runIn(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(gatesync, args...).Output()
	if err != nil {
		t.Fatalf("gatesync %q: %v", args, err)
	}
	return string(out)
}

// snapshotOf is everything below a directory, as text.
func snapshotOf(t testing.TB, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$1" && find . -path ./.gatesync -prune -o -printf '%p %y %m %T@ %i ' -type f -exec sha256sum {} \; -o -print | sort`, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// A target on a port of its own: only who has the token, and only with whom
// the token is about.
func TestPushToAPort(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, some(50))
	r := b.listen("--tree", "server="+b.dst)
	if p := b.must(); p.Added != 55 {
		t.Fatalf("%+v", p)
	}
	files(t, b.src, map[string]string{"d1/f1.xml": "<changed/>"})
	if p, a := b.push("--dry-run"); a.code != 3 || len(p.what("change")) != 1 {
		t.Fatalf("exit code %d: %+v", a.code, p)
	}
	if p := b.must(); p.Changed != 1 || p.wire() > 2000 {
		t.Fatalf("%+v", p)
	}
	// Whoever has another token is told so, in either direction.
	other := newPushBed(t)
	other.listen("--tree", "server="+other.dst)
	other.to = r.addr
	if _, a := other.push(); a.code != 1 || !strings.Contains(a.stderr, "fingerprint") {
		t.Fatalf("another target's token: exit code %d: %s", a.code, a.stderr)
	}
	b.vars = append(b.vars, "GATESYNC_TOKEN=")
	if _, a := b.push(); a.code != 2 || !strings.Contains(a.stderr, "--token") {
		t.Fatalf("no token: exit code %d: %s", a.code, a.stderr)
	}
	// It is the same target after a restart.
	r.stop()
	again := b.listen("--tree", "server="+b.dst)
	if again.token != r.token {
		t.Fatal("another token after a restart")
	}
	b.must()
}

// Rubbish on its input costs a target nothing but that session.
func TestReceiveStdioRubbish(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, some(5))
	b.must()
	before := snapshotOf(t, b.dst)
	for name, text := range map[string]string{
		"nothing": "", "text": "GET / HTTP/1.1\r\n\r\n", "noise": noise(100_000), "zeros": string(make([]byte, 10_000)),
		"a huge frame": "\x01\xff\xff\xff\xff", "half a hello": "\x01\x00\x00\x00\x40abc", "a bad hello": "\x01\x00\x00\x00\x03\xff\xff\xff",
		"an empty hello": "\x01\x00\x00\x00\x00", "a tree first": "\x04\x00\x00\x00\x00", "beats": strings.Repeat("\x00\x00\x00\x00\x00", 1000),
	} {
		cmd := exec.Command(gatesync, "receive", "--stdio", "--tree", "tree="+b.dst, "--data-dir", b.data)
		cmd.Stdin = strings.NewReader(text)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		start := time.Now()
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 || strings.Contains(stderr.String(), "panic") {
			t.Errorf("%s: %v: %s", name, err, stderr.String())
		}
		if took := time.Since(start); took > patience {
			t.Errorf("%s: it took %s", name, took)
		}
	}
	if now := snapshotOf(t, b.dst); now != before {
		t.Fatalf("the target was touched: %s", now)
	}
	b.must()
}

// What is no target over there is told apart, with what to do about it.
func TestPushToNoTarget(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, some(1))
	for what, c := range map[string]struct{ script, says string }{
		"no binary":        {"echo 'sh: 1: gatesync: not found' >&2; exit 127", "--remote-binary"},
		"ssh fails":        {"echo 'Permission denied (publickey).' >&2; exit 255", "Permission denied"},
		"an older one":     {"echo 'unknown command \"receive\"' >&2; exit 2", "same version"},
		"chatter":          {"echo welcome to this host; exit 0", "welcome to this host"},
		"another protocol": {`printf '\000gatesync push\000\002\000\000\000\013\010\077\022\007v99.9.9'; cat >/dev/null`, "v99.9.9"},
	} {
		writeScript(t, b.ssh, "#!/bin/sh\n"+c.script+"\n")
		if _, a := b.push(); a.code != 1 || !strings.Contains(a.stderr, c.says) {
			t.Errorf("%s: exit code %d: %s", what, a.code, a.stderr)
		}
	}
	// A login shell that talks before is no obstacle.
	writeScript(t, b.ssh, strings.Replace(sshStub, "while", "echo Debian GNU/Linux 12; while", 1))
	b.must()
	// A port that is no target's.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH\r\n")
			_ = c.Close()
		}
	}()
	b.listen("--tree", "server="+b.dst)
	b.to = l.Addr().String()
	if _, a := b.push(); a.code != 1 || !strings.Contains(a.stderr, "not a gatesync port") {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
}

// What a cluster has committed goes to a target that is no member.
func TestPushOfACluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	n := c.nodes[0]
	for p, text := range some(30) {
		write(t, n.tree, p, text)
	}
	write(t, n.tree, "api/edited.xml", strings.Repeat("<log level='full'/>\n", 400)+noise(50))
	n.waits()
	b := newPushBed(t)
	b.src = n.tree
	b.listen("--tree", "server="+b.dst)
	push := func(code int) {
		t.Helper()
		cmd := n.command("push", "--data-dir", n.data, b.to, "--json")
		cmd.Env = append(cmd.Env, b.vars...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != code {
			t.Fatalf("%v: %s", err, out)
		}
		if code == 0 {
			b.same()
		}
		t.Logf("%.400s", out)
	}
	push(0)
	text, err := os.ReadFile(filepath.Join(n.tree, "api/edited.xml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, n.tree, "api/edited.xml", "<!-- edited -->"+string(text))
	if err := os.Remove(filepath.Join(n.tree, "d1/f1.xml")); err != nil {
		t.Fatal(err)
	}
	n.waits()
	push(0)
	fmt.Fprintln(io.Discard, n.must("status"))
}
