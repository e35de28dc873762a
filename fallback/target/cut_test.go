package target_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/fallback/target"
)

// cutter ends a stream after so many bytes in one direction.
type cutter struct {
	io.ReadWriteCloser
	in, out int // that may still pass; -1: all
}

var errCut = errors.New("cut by the test")

func (c *cutter) Read(b []byte) (int, error) {
	if c.in < 0 {
		return c.ReadWriteCloser.Read(b)
	}
	n, err := c.ReadWriteCloser.Read(b[:min(len(b), max(c.in, 1))])
	if c.in -= n; c.in <= 0 {
		c.in = 0
		_ = c.Close()
		return 0, errCut
	}
	return n, err
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.out < 0 {
		return c.ReadWriteCloser.Write(b)
	}
	n, err := c.ReadWriteCloser.Write(b[:min(len(b), c.out)])
	if c.out -= n; err == nil && n < len(b) {
		_ = c.Close()
		err = errCut
	}
	return n, err
}

// Wherever a stream is cut, in either direction, a file is the old one or the
// new one, and the next push makes the rest.
func TestPromise_NoTornFile_PushCutAnywhere(t *testing.T) {
	b := newBed(t)
	version := func(n int) map[string]string {
		files := map[string]string{"big": noise(uint64(n), 1<<20+200_000)}
		for i := range 12 {
			files[fmt.Sprintf("d%d/f%d.xml", i%3, i)] = strings.Repeat(fmt.Sprintf("<log n='%d'/>", i), 100) + fmt.Sprint(n)
		}
		files[fmt.Sprintf("new%d", n)] = "new"
		files[fmt.Sprintf("new%d", n-1)] = ""
		return files
	}
	write(t, b.src, version(0))
	b.opts.Delete = target.DeleteYes
	b.must()
	n := 0
	try := func(in, out int) (whole bool) {
		n++
		old, fresh := read(t, b.dst), version(n)
		write(t, b.src, fresh)
		b.through = func(c io.ReadWriteCloser) io.ReadWriteCloser { return &cutter{c, in, out} }
		_, err := b.push()
		b.through = nil
		for p, text := range read(t, b.dst) {
			if was, ok := old[p]; text != fresh[p] && (!ok || text != was) && !strings.HasSuffix(p, "/") {
				t.Fatalf("cut after %d bytes in, %d out (%v): %s is torn", in, out, err, p)
			}
		}
		if err == nil {
			b.same()
			return true
		}
		b.must()
		return false
	}
	points := []int{0, 1, 16, 17, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 5000, 10_000, 100_000, 500_000, 1_000_000, 1_200_000}
	for _, at := range points {
		try(-1, at)
		if whole := try(at, -1); whole && at > 20_000 {
			break
		}
	}
	left, err := os.ReadDir(filepath.Join(b.data, "partial"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// What came of a large file before a cut is not sent again.
func TestPushResumesALargeFile(t *testing.T) {
	b := newBed(t)
	const size = 4 << 20
	write(t, b.src, map[string]string{"big": noise(1, size)})
	b.through = func(c io.ReadWriteCloser) io.ReadWriteCloser { return &cutter{c, -1, size / 2} }
	if _, err := b.push(); err == nil {
		t.Fatal("it was not cut")
	}
	b.through = func(c io.ReadWriteCloser) io.ReadWriteCloser { return &cutter{c, -1, size / 4} }
	if _, err := b.push(); err == nil {
		t.Fatal("it was not cut again")
	}
	b.through = nil
	if s := b.must(); s.Sent > size/2 { // of each cut a piece on its way is lost
		t.Fatalf("%d bytes were sent for the last quarter", s.Sent)
	}
}
