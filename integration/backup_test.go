package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/gen"
)

// A backup is made while a node writes. On three fresh machines it is a
// cluster again: all of them hold one tree, each file as some writer left it,
// and everything that stood before the backup began.
func TestPromise_NoLoss_BackupAndRestoreCluster(t *testing.T) {
	t.Parallel()
	old := newCluster(t, 3)
	if _, _, err := gen.WriteTo(filepath.Join(old.nodes[0].tree, "apis"), gen.Tree(gen.Params{Seed: 3, Configs: size(400, 5000), Archives: 2, Archive: 3 << 20})); err != nil {
		t.Fatal(err)
	}
	before := old.waitEqual(60 * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	wrote := make(chan int, 1)
	go func() {
		n := 0
		for ; sleep(ctx, 5*time.Millisecond) == nil; n++ {
			name := filepath.Join(old.nodes[1].tree, fmt.Sprintf("load-%d.xml", n))
			if err := os.WriteFile(name, fmt.Appendf(nil, "written under load %d\n", n), 0o644); err != nil {
				break
			}
		}
		wrote <- n
	}()
	if err := sleep(t.Context(), 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(old.dir, "backup")
	old.nodes[2].must("backup", file) // of a follower, or of the leader: all the same
	cancel()
	n := <-wrote
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the CA's key: %v, %v", info.Mode(), err)
	}
	old.nodes[0].must("backup", "--check", file)
	token := old.nodes[0].token("--ttl", "1h")
	for _, m := range old.nodes {
		m.term()
	}
	stopped := filepath.Join(old.dir, "stopped")
	old.nodes[0].must("backup", stopped) // without a daemon

	c := emptyCluster(t)
	first := c.add()
	if err := os.MkdirAll(filepath.Join(first.data, "rest"), 0o755); err != nil {
		t.Fatal(err)
	}
	if a := first.ask("restore-cluster", append([]string{file}, c.joinFlags(first)...)...); a.code != 1 || !strings.Contains(a.stderr, "not empty") {
		t.Errorf("into a directory that is not empty: %+v", a)
	}
	if err := os.RemoveAll(first.data); err != nil {
		t.Fatal(err)
	}
	write(t, first.tree, "stood-here.xml", "before\n")
	first.must("restore-cluster", append([]string{file}, c.joinFlags(first)...)...)
	first.start()
	second := c.add()
	if a := second.ask("join", append([]string{first.addr, "--token", token}, c.joinFlags(second)...)...); a.code == 0 {
		t.Error("a token of the old life is still good")
	}
	c.admit(second)
	third := c.add()
	write(t, third.tree, "own.xml", "a joiner's\n")
	c.admit(third)
	c.waitVoters(3)
	third.waitHeld(10 * time.Second) // a joiner of this life, no returner of another
	third.must("approve")
	first.waitHeld(10 * time.Second)
	remove(t, first.tree, "stood-here.xml")
	got := c.waitEqual(60 * time.Second)
	for path, what := range before {
		if got[path] != what {
			t.Errorf("%s is %q, and was %q before the backup", path, got[path], what)
		}
	}
	load := 0
	for path := range got {
		if strings.HasPrefix(path, "load-") {
			load++
			want := fmt.Sprintf("written under load %s\n", strings.TrimSuffix(strings.TrimPrefix(path, "load-"), ".xml"))
			if err := stands(first.tree, path, want); err != nil {
				t.Error(err)
			}
		}
	}
	t.Logf("%d files under load, %d of them in the backup; %d bytes", n, load, info.Size())
	write(t, c.nodes[2].tree, "after.xml", "x\n")
	c.waitEqual(30 * time.Second)

	// A node of the old life is no member any more, and hears what to do.
	gone := old.nodes[0]
	gone.must("backup", "--check", stopped)
}
