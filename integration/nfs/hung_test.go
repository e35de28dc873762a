package nfs

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A tree on a hard mount whose server is away: every call into it hangs.
//
// The daemon ends on SIGTERM while its calls hang, starts on the hung mount and
// answers, and takes the tree up again when the mount is back, or when another
// one stands in its place.
func TestPromise_Available_HungMountV4(t *testing.T) { hungMount(t, v4hard) }
func TestPromise_Available_HungMountV3(t *testing.T) { hungMount(t, v3hard) }

func hungMount(t *testing.T, f flavour) {
	b := newBed(t)
	m := b.hosts[0].mount(b.server.dir("own"), f)
	c := b.cluster([]string{m.path, "", ""})
	n, two, three := c.nodes[0], c.nodes[1], c.nodes[2]
	for i := range 20 {
		b.check(write(two.tree, fmt.Sprintf("d%d/%d.xml", i%3, i), sealed("before")))
	}
	c.waitEqual(60 * time.Second)
	before := n.goroutines()

	const beside, started, mine = "beside a hung mount\n", "beside a node that started on a hung mount\n", "written into the hung mount\n"
	b.server.stop()
	watching := n.watch()
	// Something to do in the hung tree for each of the node's parts.
	for i := range 20 {
		b.check(write(two.tree, fmt.Sprintf("d%d/%d.xml", i%3, i), sealed("while it hangs")))
	}
	go func() { _ = write(n.tree, "mine.xml", mine) }()
	c.passes(20*time.Second, two, "pass.xml", beside, three)
	n.says(30*time.Second, "does not answer")
	time.Sleep(size(5*time.Second, 3*time.Minute)) // as long as it hangs
	t.Logf("goroutines: %d before, %d while it hangs", before, eventuallyFew(n, before+10))
	watching.end()
	t.Logf("ended %v after SIGTERM, with a mount that hangs", n.term(6*time.Second))

	start := time.Now()
	n.start()
	t.Logf("answers %v after its start on a mount that hangs", time.Since(start))
	watching = n.watch()
	c.passes(20*time.Second, two, "again.xml", started, three)
	eventually(t, 30*time.Second, "the node has the log", func() error {
		s, err := n.status()
		if err == nil && s.Revision < two.revision() {
			err = fmt.Errorf("at revision %d of %d", s.Revision, two.revision())
		}
		return err
	})
	time.Sleep(2 * time.Second) // as long as it is asked
	watching.end()
	t.Logf("ended again %v after SIGTERM", n.term(6*time.Second))
	n.start()

	if f.version == "3" {
		// The old mount hangs for ever; a person puts another one in its place.
		b.server.move("10.99.0.253")
		b.server.start()
		b.check(m.detach())
		m.again()
	} else {
		b.server.start()
	}
	back := time.Now()
	if f.version != "3" { // there it hangs in the old mount for ever
		// NFSv4 tries what hung again after pauses of up to 15 s.
		eventually(t, 90*time.Second, "what hung is written, and passes", func() error { return stands(three.tree, "mine.xml", mine) })
	}
	c.waitEqual(45 * time.Second) // within the minute that opening a root may take
	t.Logf("equal %v after the mount is back", time.Since(back).Round(time.Millisecond))
	c.content(30 * time.Second)
	eventuallyFew(n, before+10)
	b.check(errors.Join(stands(three.tree, "pass.xml", beside), stands(three.tree, "again.xml", started)))
	t.Logf("ended at last %v after SIGTERM", n.term(5*time.Second))
}
