package syncer

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// replaceRoot puts a copy of the shared directory in its place, as `cp -a` makes
// one.
func (m *moored) replaceRoot() {
	m.a.t.Helper()
	old := m.a.root + ".old"
	must(m.a.t, os.Rename(m.a.root, old))
	for tries := 0; ; tries++ {
		out, err := exec.Command("cp", "-a", old, m.a.root+".new").CombinedOutput()
		if err == nil {
			break
		}
		if tries > 20 {
			m.a.t.Fatalf("%v: %s", err, out)
		}
		must(m.a.t, os.RemoveAll(m.a.root+".new")) // a node has just exchanged a note of its own there
	}
	must(m.a.t, os.Rename(m.a.root+".new", m.a.root))
	must(m.a.t, os.RemoveAll(old))
}

// A shared directory that was replaced by a copy of itself is one directory
// again within seconds, whoever was stopped meanwhile. What is in it as it is
// committed is not held or put aside.
func TestPromise_NoLoss_CopyOfASharedRoot(t *testing.T) {
	for name, off := range map[string][]int{"both run": nil, "both are stopped": {0, 1}, "the steward is stopped": {0}, "another one is stopped": {1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			copyShared(t, off)
		})
	}
}

func copyShared(t *testing.T, off []int) {
	m := moor(t)
	both := []*box{m.a, m.b}
	m.a.write("f", "one")
	m.b.write("d/g", "two")
	m.c.write("d/h", "from elsewhere")
	for p, content := range map[string]string{"f": "one", "d/g": "two", "d/h": "from elsewhere"} {
		for _, x := range []*box{m.a, m.b, m.c} {
			x.until(p, func() bool { return x.read(p) == content })
		}
	}
	m.follow(m.commits())
	for _, i := range off {
		both[i].halt()
	}
	made := m.a.s.root.name()
	m.replaceRoot()
	for _, i := range off {
		both[i].start()
	}
	for _, x := range both {
		_ = x.s.Rescan(ctxOf(t))
	}
	m.a.until("the two have one directory again", func() bool {
		one := m.together()
		for _, x := range both {
			x.s.root.beat()
			// What is written before all was looked at is as unknown as the rest.
			if st, err := x.s.Status(ctxOf(t)); err != nil || st.Loop.Joiner || !st.Loop.Scanned || st.Loop.Unsettled > 0 {
				return false
			}
		}
		return m.b.s.root.name() != made && m.a.s.root.name() == m.b.s.root.name() && one
	})
	m.b.write("n", "new")
	m.c.until("a write passes", func() bool {
		for _, x := range both { // not even the steward's watches may stand yet; it scans each minute
			_ = x.s.Rescan(ctxOf(t))
		}
		return m.together() && m.c.read("n") == "new"
	})
	m.c.write("o", "back")
	m.a.until("a write comes back", func() bool { return m.together() && m.a.read("o") == "back" })
	for _, x := range both {
		if list := conflictsOf(t, x); len(list) > 0 {
			t.Errorf("%s keeps %+v", x.node.id, list)
		}
		st, err := x.s.Status(ctxOf(t))
		must(t, err)
		if len(st.Loop.Notes) > 0 {
			t.Errorf("%s holds %+v", x.node.id, st.Loop.Notes)
		}
	}
	noDeletions(t, m.bay.hub)
}

// together tells whether a and b agree that they have one directory, and names
// a steward where there is none, as the leader does.
func (m *moored) together() bool {
	a, _ := m.a.s.placer.current()
	b, _ := m.b.s.placer.current()
	if a.Mount == "" || a.Mount != b.Mount || a.Unknown || b.Unknown {
		return false
	}
	if a.Steward == "" {
		m.bay.name("a")
	}
	return m.a.s.scans() || m.b.s.scans()
}

// A node that could not leave its nonce, or not read the others', when it opened
// the root (a mount that has just come back) finds out a little later.
func TestNonceThatCouldNotBeLeftAtOnce(t *testing.T) {
	for what, ops := range map[string][]string{"writing": {"WriteNote"}, "reading": {"ListNotes"}, "both": {"WriteNote", "ListNotes"}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			m := moor(t)
			m.b.halt()
			var broken atomic.Bool
			broken.Store(true)
			change := m.b.change
			m.b.change = func(c *Config) {
				change(c)
				open := c.OpenRoot
				c.OpenRoot = func() (vfs.FS, error) {
					r, err := open()
					if err != nil {
						return nil, err
					}
					return errorfs.Wrap(r, errorfs.Func(func(op, _ string) error {
						if broken.Load() && slices.Contains(ops, op) {
							return errors.New("EIO")
						}
						return nil
					})), nil
				}
			}
			m.b.start()
			m.b.until("it knows that it does not know", func() bool {
				at, _ := m.b.s.placer.current()
				return at.Unknown && strings.Contains(at.Why, "EIO")
			})
			broken.Store(false)
			m.b.until("the two have one directory", m.together)
		})
	}
}
