package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The pusher is killed at whatever stage, again and again: each file at a target
// is the old one or the new one, and another member brings the rest.
func TestPromise_NoTornFile_TargetsPusherKilled(t *testing.T) {
	t.Parallel()
	c := sshCluster(t, 3, sshAny(t))
	all := []*kept{keptAt(c, "gw9", "tls"), keptAt(c, "gw8", "stub")}
	content := func(round int) map[string]string {
		files := map[string]string{}
		for p, text := range some(40) {
			files[p] = text + fmt.Sprint(round)
		}
		for i := range 4 {
			files[fmt.Sprint("big", i)] = noise(1 << 20)
		}
		return files
	}
	old := content(0)
	for p, text := range old {
		write(t, c.nodes[0].tree, p, text)
	}
	c.nodes[0].waits()
	for _, k := range all {
		k.add("--limit", "4MB/s")
		k.equal(c.nodes[0])
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := 1; round <= size(2, 30); round++ {
		victim := all[round%2].pusher()
		author := c.except(victim)[0]
		fresh := content(round)
		for p, text := range fresh {
			write(t, author.tree, p, text)
		}
		author.waits()
		time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond) // any stage will do
		victim.kill()
		for range 5 {
			for _, k := range all {
				for p, text := range fresh {
					if got, err := os.ReadFile(filepath.Join(k.dst, p)); err != nil || string(got) != text && string(got) != old[p] {
						t.Fatalf("%s at %s is torn: %d bytes, %v", p, k.name, len(got), err)
					}
				}
			}
		}
		for _, k := range all {
			k.equal(author)
		}
		victim.start()
		c.waitVoters(3)
		old = fresh
	}
}

// A target that is off, one that was stopped and one whose disk is full say so,
// and hold up neither the cluster nor the one that is well; each is brought
// current once it can be.
func TestTargetsInTrouble(t *testing.T) {
	t.Parallel()
	needRoot(t)
	c := sshCluster(t, 3, sshAny(t))
	first := c.nodes[0]
	for p, text := range some(20) {
		write(t, first.tree, p, text)
	}
	first.waits()
	good, off, stopped, full := keptAt(c, "good", "tls"), keptAt(c, "off", "tls"), keptAt(c, "stopped", "tls"), keptAt(c, "full", "stub")
	disk := filepath.Join(filepath.Dir(full.dst), "disk")
	mount := &cluster{t: t}
	t.Cleanup(func() {
		for _, n := range c.running() {
			n.stop()
		}
		for _, undo := range mount.undo {
			undo()
		}
	})
	mount.mountTmpfs(disk, 16)
	full.dst, full.data = filepath.Join(disk, "dst"), filepath.Join(disk, "data")
	full.to = "ssh://there" + full.dst
	all := []*kept{good, off, stopped, full}
	for _, k := range all {
		k.add()
		k.equal(first)
	}
	off.tls.stop()
	if err := stopped.tls.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	write(t, first.tree, "big", noise(30<<20))
	for i := range 5 {
		name, n := fmt.Sprint("file", i), c.nodes[i%3]
		write(t, n.tree, name, name)
		t.Logf("%s stood at the good target after %s", name, good.arrives(name, name))
	}
	first.waits()
	for name, ok := range map[string]func(targetStatus) bool{
		"good":    func(s targetStatus) bool { return s.State == "current" && s.Error == "" },
		"off":     func(s targetStatus) bool { return s.State == "unreachable" && s.Error != "" },
		"stopped": func(s targetStatus) bool { return s.State != "current" && s.Error != "" },
		"full":    func(s targetStatus) bool { return s.State == "refused" && strings.Contains(s.Error, "no room") },
	} {
		k := &kept{name: name}
		eventually(t, 60*time.Second, name+" is shown as it is", func() error {
			s, err := k.on(first)
			if err == nil && !ok(s) {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})
	}
	if out := first.must("status"); !strings.Contains(out, "target full (refused)") {
		t.Errorf("status says nothing of it:\n%s", out)
	}
	// All is well again.
	if err := os.Remove(filepath.Join(first.tree, "big")); err != nil {
		t.Fatal(err)
	}
	first.waits()
	if err := stopped.tls.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	off.listen("--tree", "server="+off.dst, "--listen", off.tls.addr)
	for _, k := range all {
		k.equal(first)
	}
}
