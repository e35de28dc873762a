package nfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// findings is what `doctor` has found, a line each.
func (n *node) findings() (list []string) {
	n.host.b.t.Helper()
	a := n.ask("doctor", "--json")
	var d struct {
		Checks []struct {
			Findings []struct{ Severity, Check, Subject, What string } `json:"findings"`
		} `json:"checks"`
	}
	if err := json.Unmarshal([]byte(a.stdout), &d); err != nil {
		n.host.b.t.Fatalf("doctor on %s: %v: %s%s", n.name, err, a.stdout, a.stderr)
	}
	for _, c := range d.Checks {
		for _, f := range c.Findings {
			list = append(list, fmt.Sprintf("%s: %s: %s: %s", f.Severity, f.Check, f.Subject, f.What))
		}
	}
	return list
}

// lockOnce takes a lock and lets go of it.
func lockOnce(dir string) error {
	f, err := os.Create(filepath.Join(dir, ".lock"))
	if err != nil {
		return err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// A doctor on a real mount names what is wrong with it, and nothing else; a
// server that does not answer is a finding, soon, and no hang. Meanwhile
// materialize gives the gateway its copy.
func TestDoctorOnAMount(t *testing.T) {
	b := newBed(t)
	for _, f := range []struct {
		flavour
		more  string
		wants []string // beside what is said of every NFS mount
	}{
		{v4hard, "actimeo=3", nil},
		{v3hard, "actimeo=3", []string{"NFS 3"}},
		{v4soft, "noac", []string{"problem: mounts: /mnt/gw1/v4.2-soft: soft with timeo=10", "noac: every look"}},
		{v3soft, "nolock,actimeo=120", []string{"soft with timeo=10", "nolock", "cached for up to 120 s", "NFS 3"}},
	} {
		t.Run(f.name, func(t *testing.T) {
			b.in(t)
			name := b.server.dir(f.name)
			b.check(os.Chmod(b.server.path(name), 0o755))
			m := b.hosts[0].mount(name, f.flavour, f.more)
			b.check(within(60*time.Second, func() error { return lockOnce(m.path) })) // the server's period of grace is over
			c := b.cluster([]string{m.path, "", ""})
			n := c.nodes[0]
			c.passes(30*time.Second, c.nodes[1], "apis/a.xml", "a\n", n)
			// A member that a slow guest holds up for seconds is a finding, too, for that long.
			eventually(t, 60*time.Second, "the doctor finds what there is, and nothing else", func() (err error) {
				got := n.findings()
				for _, want := range append(f.wants, "names cannot be exchanged there", "no read leases there", "the other members' trees are other directories") {
					if !strings.Contains(strings.Join(got, "\n"), want) {
						err = errors.Join(err, fmt.Errorf("no %q", want))
					}
				}
				for _, x := range got {
					known := strings.HasPrefix(x, "note: ") || strings.Contains(x, "data directory: ") // the guest's disks lie in memory
					for _, want := range append(f.wants, "max_user_watches", "soft: after", "a lock taken here", "no locks there") {
						known = known || strings.Contains(x, want)
					}
					if !known {
						err = errors.Join(err, fmt.Errorf("also found: %s", x))
					}
				}
				t.Logf("%s\n%s", f.name, strings.Join(got, "\n"))
				return err
			})
			if left, err := filepath.Glob(filepath.Join(m.path, ".gatesync", "doctor-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
	t.Run("shared", func(t *testing.T) {
		b.in(t)
		name := b.server.dir("shared")
		b.check(os.Chmod(b.server.path(name), 0o755))
		c := b.cluster([]string{b.hosts[0].mount(name, v4hard).path, b.hosts[1].mount(name, v3hard).path, ""})
		eventually(t, 60*time.Second, "both know that it is one directory", func() error {
			for i, other := range []string{"gw2", "gw1"} {
				got := strings.Join(c.nodes[i].findings(), "\n")
				if !strings.Contains(got, "one directory, shared with "+other) || strings.Contains(got, "problem: shared") {
					return fmt.Errorf("%s found: %s", c.nodes[i].name, got)
				}
			}
			return nil
		})
	})
	t.Run("squash", func(t *testing.T) {
		b.in(t)
		m := b.hosts[0].mount(b.server.dir("squash"), v4hard)
		n := b.cluster([]string{m.path}).nodes[0]
		b.server.export(strings.Replace(writable, "no_root_squash", "root_squash", 1))
		defer b.server.export(writable)
		eventually(t, 30*time.Second, "root is nobody", func() error {
			got := strings.Join(n.findings(), "\n")
			if !strings.Contains(got, "root_squash") {
				return fmt.Errorf("found: %s", got)
			}
			return nil
		})
	})
}

// A hard mount whose server is gone: the doctor says so within half a minute,
// and the gateway has a copy of its tree at once, with the daemon and without.
func TestPromise_NoLoss_MaterializeWhileTheMountHangs(t *testing.T) {
	b := newBed(t)
	m := b.hosts[0].mount(b.server.dir("gw"), v4hard)
	c := b.cluster([]string{m.path, "", ""})
	n := c.nodes[0]
	for i := range 20 {
		b.check(write(n.tree, fmt.Sprintf("apis/%d.xml", i), fmt.Sprintf("%d\n", i)))
	}
	c.passes(60*time.Second, c.nodes[1], "last.xml", "last\n", c.nodes...)
	n.must("wait", "--timeout", "60s")
	want := c.waitEqual(60 * time.Second)
	b.server.stop()
	err := within(2*time.Second, func() error { _, err := os.ReadFile(filepath.Join(m.path, "apis", "none")); return err })
	if err == nil {
		t.Error("the server still answers")
	}
	begun := time.Now()
	got := strings.Join(n.findings(), "\n")
	if took := time.Since(begun); took > time.Minute || !strings.Contains(got, "does not answer (") {
		t.Errorf("the doctor took %v and found\n%s", took, got)
	}
	for _, running := range []bool{true, false} {
		if !running {
			n.kill()
		}
		dir := filepath.Join(filepath.Dir(n.data), fmt.Sprint("copy-", running))
		a := n.ask("materialize", "--to", dir)
		if a.code != 0 || a.took > time.Minute {
			t.Fatalf("daemon %v: %+v", running, a)
		}
		t.Logf("daemon %v: a copy after %v: %s", running, a.took, a.stdout)
		copied, err := readTree(dir)
		if err == nil {
			err = want.Differs(copied)
		}
		if err != nil {
			t.Errorf("daemon %v: %v", running, err)
		}
	}
	b.server.start()
}
