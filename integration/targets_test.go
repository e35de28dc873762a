package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kept is a target that a cluster keeps current.
type kept struct {
	*pushBed
	c    *cluster
	name string
	tls  *receiver // nil: over ssh
}

// keptAt makes a target, which is nobody's yet. Its receiver listens, or is
// started by what stands in for ssh, or by a real sshd.
func keptAt(c *cluster, name, how string) *kept {
	c.t.Helper()
	k := &kept{pushBed: newPushBed(c.t), c: c, name: name}
	k.src = c.nodes[0].tree
	c.t.Cleanup(func() { // before the target's directory goes
		for _, n := range c.running() {
			n.stop()
		}
	})
	switch how {
	case "tls":
		k.tls = k.listen("--tree", "server="+k.dst)
	case "sshd":
		k.sshd()
	}
	return k
}

// add has the cluster keep it current.
func (k *kept) add(flags ...string) {
	k.c.t.Helper()
	args := []string{"add", k.name, k.to}
	if k.tls != nil {
		args = append(args, "--token", k.tls.token)
	} else {
		args = append(args, "--tree", "server", "--remote-binary", k.binary, "--remote-data-dir", k.data, "--remote-free-reserve", "1MB")
	}
	n := k.c.running()[0]
	eventually(k.c.t, 20*time.Second, "a log that knows targets", func() error {
		if a := n.ask("targets", append(args, flags...)...); a.code != 0 {
			return fmt.Errorf("exit code %d: %s", a.code, a.stderr)
		}
		return nil
	})
}

// sshCluster is a cluster whose members reach targets as these beds do.
func sshCluster(t testing.TB, count int, ssh string) *cluster {
	c := emptyCluster(t)
	c.place = func(n *node) { n.vars = append(n.vars, "GATESYNC_SSH="+ssh) }
	c.boot(count)
	return c
}

// sshAny runs what stands in for ssh, wherever it lies.
func sshAny(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ssh")
	writeScript(t, file, sshStub)
	return file
}

// on is how a node shows it.
func (k *kept) on(n *node) (targetStatus, error) {
	s, err := n.status()
	if err != nil {
		return targetStatus{}, err
	}
	for _, t := range s.Targets {
		if t.Name == k.name {
			return t, nil
		}
	}
	return targetStatus{}, fmt.Errorf("%s shows no target %s", n.name, k.name)
}

// pusher is the node that pushes to it.
func (k *kept) pusher() *node {
	k.c.t.Helper()
	var found *node
	eventually(k.c.t, 20*time.Second, "somebody pushes to "+k.name, func() error {
		at, err := k.on(k.c.running()[0])
		for _, n := range k.c.nodes {
			if n.name == at.Pusher {
				found = n
			}
		}
		if err == nil && found == nil {
			err = fmt.Errorf("%+v", at)
		}
		return err
	})
	return found
}

// takenOver waits until a node knows that another one pushes than before.
func (k *kept) takenOver(by *node, before targetStatus) {
	k.c.t.Helper()
	eventually(k.c.t, 30*time.Second, by.name+" knows who has taken over", func() error {
		after, err := k.on(by)
		if err == nil && (after.Epoch <= before.Epoch || after.Pusher == before.Pusher) {
			err = fmt.Errorf("%+v, before %+v", after, before)
		}
		return err
	})
}

// arrives waits until a file stands at the target, and tells how long it took.
func (k *kept) arrives(path, content string) time.Duration {
	k.c.t.Helper()
	begun := time.Now()
	eventually(k.c.t, 60*time.Second, path+" stands at "+k.name, func() error {
		b, err := os.ReadFile(filepath.Join(k.dst, path))
		if err == nil && string(b) != content {
			err = fmt.Errorf("%d bytes that are other ones", len(b))
		}
		if err != nil {
			at, _ := k.on(k.c.running()[0])
			err = fmt.Errorf("%w; %+v", err, at)
		}
		return err
	})
	return time.Since(begun)
}

// equal waits until the target is what a node's tree is.
func (k *kept) equal(n *node) {
	k.c.t.Helper()
	eventually(k.c.t, 60*time.Second, k.name+" is as the cluster", func() error {
		out, err := exec.Command("diff", "-r", "--no-dereference", "-x", ".gatesync", n.tree, k.dst).CombinedOutput()
		if err != nil {
			at, _ := k.on(n)
			return fmt.Errorf("%w; %+v: %.500s", err, at, out)
		}
		return nil
	})
}

// What is committed anywhere arrives at targets by itself, over TLS and over a
// real sshd; when the member dies that pushes, another one takes over.
func TestTargetsAreKeptCurrent(t *testing.T) {
	t.Parallel()
	bed := newPushBed(t)
	bed.sshd()
	c := sshCluster(t, 3, bed.ssh)
	bed.src = c.nodes[0].tree
	first := c.nodes[0]
	for p, text := range some(60) {
		write(t, first.tree, p, text)
	}
	first.waits()
	tls, ssh := keptAt(c, "gw9", "tls"), &kept{pushBed: bed, c: c, name: "gw8"}
	tls.add()
	ssh.add()
	tls.equal(first)
	ssh.equal(first)
	for _, n := range c.nodes {
		write(t, n.tree, "from/"+n.name, n.name)
		t.Logf("a file written on %s stood at the targets after %s and %s", n.name, tls.arrives("from/"+n.name, n.name), ssh.arrives("from/"+n.name, n.name))
	}
	for _, n := range c.nodes {
		eventually(t, 20*time.Second, n.name+" knows that both are current", func() error {
			s, err := n.status()
			if err == nil && (len(s.Targets) != 2 || s.Targets[0].State != "current" || s.Targets[1].State != "current" ||
				s.Targets[0].Revision != s.Revision || s.Targets[1].Revision != s.Revision) {
				err = fmt.Errorf("revision %d: %+v", s.Revision, s.Targets)
			}
			return err
		})
	}
	if out := first.must("targets", "list", "--json"); strings.Contains(out, tls.tls.token) || strings.Contains(first.must("status", "--json"), "gs1-") {
		t.Error("the token is shown")
	}
	if v, err := first.metric(`gatesync_target_current{target="gw9"}`); err != nil || v != 1 {
		t.Errorf("the metric says %v: %v", v, err)
	}

	// Many deletions are meant: the cluster's own guard has let them through.
	// What was made over there stays.
	write(t, tls.dst, "made-here", "mine")
	if err := os.RemoveAll(filepath.Join(first.tree, "d1")); err != nil {
		t.Fatal(err)
	}
	first.must("approve")
	for _, k := range []*kept{tls, ssh} {
		eventually(t, 60*time.Second, "the deletions arrive", func() error {
			_, err := os.Stat(filepath.Join(k.dst, "d1"))
			if err == nil {
				return fmt.Errorf("d1 stands at %s", k.name)
			}
			return nil
		})
	}
	if b, err := os.ReadFile(filepath.Join(tls.dst, "made-here")); string(b) != "mine" {
		t.Errorf("what was made there: %q, %v", b, err)
	}
	_ = os.Remove(filepath.Join(tls.dst, "made-here"))

	for i, k := range []*kept{tls, ssh} {
		victim := k.pusher()
		before, err := k.on(victim)
		if err != nil {
			t.Fatal(err)
		}
		victim.kill()
		other := c.running()[0]
		name, text := fmt.Sprintf("after/death%d", i), fmt.Sprint(i)
		write(t, other.tree, name, text)
		t.Logf("after the death of %s, the pusher of %s, a new file stood there after %s", victim.name, k.name, k.arrives(name, text))
		k.takenOver(other, before)
		victim.start()
		c.waitVoters(3)
	}
	if out := first.must("wait", "--targets", "--timeout", patience.String()); !strings.Contains(out, "gw8, gw9") {
		t.Errorf("wait --targets said %s", out)
	}
	tls.equal(first)
	ssh.equal(first)

	// Removed: nothing is pushed any more, what stands there stays.
	first.must("targets", "remove", "gw9")
	write(t, first.tree, "later", "x")
	ssh.arrives("later", "x")
	if _, err := os.Stat(filepath.Join(tls.dst, "later")); err == nil {
		t.Error("a target that was removed is pushed to")
	}
	if a := first.ask("targets", "remove", "gw9"); a.code != 1 || !strings.Contains(a.stderr, "no target") {
		t.Errorf("removing it twice: exit code %d: %s", a.code, a.stderr)
	}
}

// A pusher that was stopped in the middle of a push, and goes on after another
// one has taken over, is refused by the target; nothing is torn, whichever way.
func TestPromise_NoTornFile_TargetsPusherStopped(t *testing.T) {
	t.Parallel()
	c := sshCluster(t, 3, sshAny(t))
	first := c.nodes[0]
	old := some(40)
	for p, text := range old {
		write(t, first.tree, p, text)
	}
	first.waits()
	for _, k := range []*kept{keptAt(c, "gw8", "stub"), keptAt(c, "gw9", "tls")} {
		k.add()
		k.equal(first)
		k.add("--limit", "1MB/s") // slow enough to be stopped in the middle
		old := pusherStopped(t, c, k)
		t.Logf("%s: another one had brought all %s after the stop", k.name, old)
		first.must("targets", "remove", k.name)
	}
}

func pusherStopped(t *testing.T, c *cluster, k *kept) time.Duration {
	t.Helper()
	victim := k.pusher()
	before, err := k.on(victim)
	if err != nil {
		t.Fatal(err)
	}
	author := c.except(victim)[0]
	files := map[string]string{"big-" + k.name: noise(6 << 20)}
	for p, text := range some(40) {
		files[p] = text + k.name
	}
	for p, text := range files {
		write(t, author.tree, p, text)
	}
	eventually(t, 30*time.Second, "the push is under way", func() error {
		at, err := k.on(author)
		if err == nil && at.State != "pushing" {
			err = fmt.Errorf("%+v", at)
		}
		return err
	})
	author.waits() // so that only the push is slow
	stop := func(sig syscall.Signal) {
		if err := victim.daemon.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	stop(syscall.SIGSTOP)
	defer stop(syscall.SIGCONT)
	begun := time.Now()
	running := c.except(victim)
	eventually(t, 60*time.Second, "another one brings it all", func() error {
		for p, text := range files {
			b, err := os.ReadFile(filepath.Join(k.dst, p))
			if err != nil || string(b) != text {
				at, _ := k.on(running[0])
				return fmt.Errorf("%s: %d bytes, %v; %+v", p, len(b), err, at)
			}
		}
		return nil
	})
	took := time.Since(begun)
	k.takenOver(running[0], before)
	write(t, author.tree, "newer-"+k.name, "newer")
	k.arrives("newer-"+k.name, "newer")
	eventually(t, 30*time.Second, "the push of it is over", func() error {
		at, err := k.on(author)
		if err == nil && at.State != "current" {
			err = fmt.Errorf("%+v", at)
		}
		return err
	})
	want := snapshotOf(t, k.dst)
	stop(syscall.SIGCONT)
	eventually(t, 30*time.Second, "the old pusher knows of its successor", func() error {
		at, err := k.on(victim)
		if err == nil && at.Epoch <= before.Epoch {
			err = fmt.Errorf("%+v", at)
		}
		return err
	})
	victim.waits()
	if now := snapshotOf(t, k.dst); now != want {
		t.Errorf("the target was touched after the old pusher went on:\n%s\nwas\n%s", now, want)
	}
	return took
}
