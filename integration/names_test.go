package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Everything a file system can hold and a gateway may put there: odd names,
// modes, empty things, links, and one kind of entry in place of another.
func TestPromise_Converge_OddEntries(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b := c.nodes[0], c.nodes[1]
	long := strings.Repeat("n", 255)
	deep := strings.Repeat("d/", 100) + "leaf.xml"
	for _, p := range []string{
		"latin1-\xe9\xff.xml", "new\nline.xml", "tab\t.xml", " leading", "-dash", "*glob?", "Case.xml", "case.xml", "CASE.xml",
		"quote\"'`$(x).xml", "ümlaut.xml", "u\u0308mlaut.xml", long, long[:200] + "/" + long, deep, ".hidden/.file",
	} {
		write(t, a.tree, p, "content of "+p)
	}
	write(t, a.tree, "zero.xml", "")
	write(t, a.tree, "swap/file-to-dir", "file")
	write(t, a.tree, "swap/dir-to-file/inside.xml", "inside")
	write(t, a.tree, "swap/file-to-link", "file")
	for _, p := range []string{"empty/dir", "modes"} {
		if err := os.MkdirAll(filepath.Join(a.tree, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o640, 0o644, 0o755, 0o400, 0o700} {
		p := fmt.Sprintf("modes/%o", mode)
		write(t, a.tree, p, p)
		if err := os.Chmod(filepath.Join(a.tree, p), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": "zero.xml", "swap/up": "../zero.xml", "dangling": "nowhere", "dirlink": "empty/dir"} {
		if err := os.Symlink(target, filepath.Join(a.tree, link)); err != nil {
			t.Fatal(err)
		}
	}
	c.waitTree(30*time.Second, c.read(a))

	// Kinds change on another node.
	remove(t, b.tree, "swap/file-to-dir", "swap/dir-to-file", "swap/file-to-link")
	write(t, b.tree, "swap/file-to-dir/now/inside.xml", "inside")
	write(t, b.tree, "swap/dir-to-file", "file")
	if err := os.Symlink("dir-to-file", filepath.Join(b.tree, "swap/file-to-link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(b.tree, "modes/644"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.waitTree(30*time.Second, c.read(b))

	// A case-only rename, and a name given back and forth.
	rename(t, a.tree, "Case.xml", "cAsE.xml")
	rename(t, a.tree, "zero.xml", "swap/zero.xml")
	write(t, a.tree, "zero.xml", "no longer empty")
	c.waitTree(30*time.Second, c.read(a))
	c.waitEqual(30 * time.Second)
}

// What may not be replicated stays where it is, is told, and harms nobody:
// links that lead out of the root, pipes, sockets, dangerous modes.
func TestPromise_OwnTree_UnfitEntries(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a := c.nodes[0]
	write(t, a.tree, "fine.xml", "fine\n")
	want := c.waitEqual(30 * time.Second)
	secret := filepath.Join(c.dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"absolute": secret, "outside": "../../secret"} {
		if err := os.Symlink(target, filepath.Join(a.tree, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(a.tree, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "three unfit entries are told", func() error {
		if n := a.held(); n != 3 {
			return fmt.Errorf("held: %d", n)
		}
		return nil
	})
	out := a.must("held")
	for _, name := range []string{"absolute", "outside", "pipe"} {
		if !strings.Contains(out, name) {
			t.Errorf("held does not name %s:\n%s", name, out)
		}
	}
	// They keep nobody from anything else.
	write(t, a.tree, "next.xml", "next\n")
	want["next.xml"] = c.read(a)["next.xml"]
	c.waitTree(30*time.Second, want, c.except(a)...)

	// A link that a peer plants over a directory leads nobody out of its root.
	write(t, a.tree, "dir/file.xml", "inside\n")
	eventually(t, 30*time.Second, "the file in the directory", func() error { return stands(c.nodes[2].tree, "dir/file.xml", "inside\n") })
	outside := filepath.Join(c.dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	remove(t, c.nodes[2].tree, "dir")
	if err := os.Symlink(outside, filepath.Join(c.nodes[2].tree, "dir")); err != nil {
		t.Fatal(err)
	}
	write(t, a.tree, "dir/file.xml", "edited\n")
	write(t, a.tree, "dir/second.xml", "second\n")
	eventually(t, 30*time.Second, "the edit on the sound peer", func() error { return stands(c.nodes[1].tree, "dir/second.xml", "second\n") })
	c.nodes[2].ask("wait", "--timeout", "2s")
	if names := top(t, outside); len(names) > 0 {
		t.Errorf("written through a link to outside of the root: %v", names)
	}

	// Dangerous bits do not spread.
	write(t, a.tree, "setuid.sh", "#!/bin/sh\n")
	if err := syscall.Chmod(filepath.Join(a.tree, "setuid.sh"), 0o6777); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the script on a peer", func() error { return stands(c.nodes[1].tree, "setuid.sh", "#!/bin/sh\n") })
	eventually(t, 30*time.Second, "the mode within the policy", func() error {
		info, err := os.Stat(filepath.Join(c.nodes[1].tree, "setuid.sh"))
		if err != nil {
			return err
		}
		if m := info.Mode(); m&(os.ModeSetuid|os.ModeSetgid|0o002) != 0 || m&0o100 == 0 {
			return fmt.Errorf("mode %v", m)
		}
		return nil
	})
}

// Directories appear full, deep and fast, and are moved: nothing in them is missed.
func TestPromise_Converge_DirectoriesFullOfFiles(t *testing.T) {
	c := newCluster(t, 3)
	// Directories appear already full: what was written in them before a watch
	// could be set must not be missed.
	staged := filepath.Join(c.dir, "staged")
	for i := range 40 {
		for j := range 5 {
			write(t, staged, fmt.Sprintf("d%d/e%d/f.xml", i, j), fmt.Sprintf("%d %d", i, j))
		}
	}
	if err := os.Rename(staged, filepath.Join(c.nodes[0].tree, "moved-in")); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		write(t, c.nodes[1].tree, fmt.Sprintf("fast/%d/%d/%d/f.xml", i, i, i), "x")
	}
	eventually(t, 60*time.Second, "all 260 files everywhere", func() error {
		for _, n := range c.nodes {
			s, err := c.reader.read(n.tree)
			if err != nil {
				return err
			}
			if got := fileCount(s); got != 260 {
				return fmt.Errorf("%s has %d files", n.name, got)
			}
		}
		return nil
	})
	// A directory that was moved is still watched, under its new name.
	rename(t, c.nodes[0].tree, "moved-in", "moved-again")
	c.waitTree(30*time.Second, c.read(c.nodes[0]))
	took := time.Hour
	for i := 0; took > 10*time.Second && i < 5; i++ { // a busy machine is not slow each time
		text := fmt.Sprintf("after the move, %d\n", i)
		write(t, c.nodes[0].tree, "moved-again/d7/e3/f.xml", text)
		took = eventually(t, 30*time.Second, "an edit in the moved directory", func() error {
			return stands(c.nodes[2].tree, "moved-again/d7/e3/f.xml", text)
		})
	}
	if took > 10*time.Second {
		t.Errorf("an edit in a moved directory took %v: it is not watched any more", took)
	}
	c.waitEqual(30 * time.Second)
}

// A file of several gigabytes streams through; it never stands in memory.
func TestPromise_Converge_HugeFile(t *testing.T) {
	c := newCluster(t, 3)
	a := c.nodes[0]
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	mb := size(600, 3000)
	f, err := os.Create(filepath.Join(a.tree, "huge.bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range mb {
		block[i%len(block)]++
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	took := c.waitTree(3*time.Minute, c.read(a))
	t.Logf("%d MB stood everywhere after %v", mb, took.Round(time.Millisecond))
	for _, n := range c.nodes {
		if kb := memory(t, n.daemon.Process.Pid, "VmHWM"); kb > 300<<10 {
			t.Errorf("%s took %d MB of memory at its peak", n.name, kb>>10)
		} else {
			t.Logf("%s: at most %d MB of memory", n.name, kb>>10)
		}
	}
}

// memory reads one figure, in KiB, of what the kernel says about a process.
func memory(t testing.TB, pid int, field string) (kb int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), field+":")
	if _, err := fmt.Sscan(rest, &kb); !ok || err != nil {
		t.Fatalf("no %s of process %d", field, pid)
	}
	return kb
}
