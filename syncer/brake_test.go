package syncer

import (
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// What was deleted before a restart counts with what is deleted after it.
func TestPromise_NoSurpriseDelete_RestartInBetween(t *testing.T) {
	h := newHub()
	b := newBox(t, h, "b")
	b.change = func(c *Config) {
		c.Loop = DefaultLoopConfig("", "")
		c.Loop.MaxDelete = manifest.DeleteLimit{Count: 1, Percent: 30}
		c.Loop.Window = time.Hour // however slow this machine is
	}
	b.start()
	for _, p := range []string{"f1", "f2", "f3", "f4"} {
		b.write(p, p)
		h.committed(t, p, p)
	}
	b.settle()
	b.remove("f1")
	h.await(t, "the first deletion is committed", func(m *manifest.Manifest) bool { return m.Entry("f1").Absent() })
	b.settle()
	b.halt()
	b.start()
	b.settle()
	b.remove("f2")
	b.until("the second one is held", func() bool {
		st, err := b.s.Status(ctxOf(t))
		return err == nil && st.Loop.Notes["f2"].Guard == GuardMassDelete
	})
	if h.tree.Entry("f2").Absent() {
		t.Error("half of the tree was deleted within the window, and nobody was asked")
	}
}
