package syncer

import (
	"testing"
	"unsafe"

	"github.com/gatesync/gatesync/manifest"
)

// A hundred thousand files touched at once are as many works: each is small,
// and to find one costs nothing.
func TestWorksAreCheap(t *testing.T) {
	if size := unsafe.Sizeof(work{}); size > 384 {
		t.Errorf("a work takes %d bytes; what few of them need belongs behind a pointer", size)
	}
	m := newWorkMap()
	for _, p := range []manifest.Path{"a", "b", "c/d"} {
		m.ensure(p)
	}
	if n := testing.AllocsPerRun(100, func() { m.get("b") }); n > 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}
