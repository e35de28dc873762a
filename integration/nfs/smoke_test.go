package nfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What this bed does to a mount is what a real server does.
func TestSmoke(t *testing.T) {
	b := newBed(t)
	for _, f := range size([]flavour{v4hard, v3soft}, flavours()) {
		t.Run(f.name, func(t *testing.T) { b.in(t); smoke(b, f) })
	}
	t.Run("cluster", func(t *testing.T) {
		b.in(t)
		var trees []string
		for i, f := range []flavour{v4hard, v3hard, v4soft} {
			trees = append(trees, b.hosts[i].mount(b.server.dir("tree-"+b.hosts[i].name), f).path)
		}
		c := b.cluster(trees)
		for _, n := range c.nodes {
			t.Logf("%s → the others: %v", n.name, c.passes(20*time.Second, n, "d/"+n.name+".xml", "written on "+n.name+"\n", c.others(n)...))
		}
		c.waitEqual(10 * time.Second)
		if r := c.leader().revision(); r < 4 {
			t.Errorf("three writes after the tree's own made revision %d", r)
		}
		for _, n := range c.nodes {
			t.Logf("%s ended %v after SIGTERM", n.name, n.term(5*time.Second))
		}
	})
}

// smoke tries each thing that the bed can do once.
func smoke(b *bed, f flavour) {
	t, name := b.t, b.server.dir(f.name)
	one, two := b.hosts[0].mount(name, f), b.hosts[1].mount(name, f)
	put := func(path, text string) {
		t.Helper()
		eventually(t, 30*time.Second, "a write passes the server", func() error {
			if err := write(one.path, path, text); err != nil {
				return err
			}
			return stands(two.path, path, text)
		})
	}
	put("a", "one\n")
	if one.rpcs() == 0 {
		t.Error("the mount has made no call to the server")
	}

	b.server.stop()
	err := within(2*time.Second, func() error { return write(one.path, "stopped", "two\n") })
	if err == nil {
		t.Error("a write came through while the server was stopped")
	}
	b.server.start()
	put("again", "two\n")

	b.hosts[0].pull()
	if err := within(2*time.Second, func() error { return write(one.path, "pulled", "three\n") }); err == nil {
		t.Error("a write came through a cable that was pulled")
	}
	b.hosts[0].plug()
	put("plugged", "three\n")

	b.hosts[0].netem("delay", "30ms")
	start := time.Now()
	b.must("ping", "-q", "-c", "1", b.hosts[0].addr())
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("a ping over a line with 30 ms of delay took %v", took)
	}
	b.hosts[0].netem()

	b.server.export(readOnly)
	if err := write(one.path, "read-only", "x"); !errors.Is(err, unix.EROFS) {
		t.Errorf("a write to a read-only export: %v", err)
	}
	b.server.export(writable)
	put("writable", "four\n")

	empty := b.server.fill()
	if err := write(one.path, "full", string(make([]byte, 1<<20))); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a write to a full server: %v", err)
	}
	empty()
	put("emptied", "five\n")

	b.server.unexport()
	if _, err := os.ReadDir(one.path); !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.EACCES) {
		t.Errorf("a listing of what is not exported any more: %v", err)
	}
	b.server.export(writable)
	put("exported", "six\n")
	b.server.replace(name)
	// Over v3 it looks like a deletion.
	if _, err := os.ReadFile(filepath.Join(one.path, "exported")); !errors.Is(err, unix.ESTALE) && !(f.version == "3" && errors.Is(err, unix.ENOENT)) {
		t.Errorf("a read through a stale handle: %v", err)
	}
	for _, m := range []*mount{one, two} {
		b.check(m.detach())
		m.again()
	}
	put("replaced", "seven\n")

	flushed, unflushed := b.server.path(name, "flushed"), b.server.path(name, "unflushed")
	b.must("sh", "-c", "echo flushed >"+flushed+" && sync "+flushed+" && sync "+filepath.Dir(flushed)+" && echo unflushed >"+unflushed)
	put("before the cut", "eight\n")
	b.server.cutPower()
	if err := stands(b.server.path(name), "flushed", "flushed\n"); err != nil {
		t.Errorf("after the power cut: %v", err)
	}
	if b, _ := os.ReadFile(unflushed); len(b) > 0 {
		t.Errorf("after the power cut there is what was not flushed: %q", b)
	}
	eventually(t, 30*time.Second, "what was written before the power cut", func() error { return stands(two.path, "before the cut", "eight\n") })
	put("after the cut", "nine\n")

	b.check(one.detach())
	if err := stands(one.path, "after the cut", ""); err != nil {
		t.Errorf("after the unmount: %v", err)
	}
	one.again()
	put("mounted again", "ten\n")
	b.check(one.unmount())
	one.path += "-elsewhere"
	one.again()
	put("mounted elsewhere", "eleven\n")
}
