package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/gen"
)

// Three nodes start empty; a whole gateway appears on one of them.
func TestPromise_Converge_ThreeEmptyNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	start := time.Now()
	files, bytes, err := gen.WriteTo(c.nodes[1].tree, gen.Tree(gen.Params{
		Seed: 1, Configs: 2000, Archives: 20, Archive: size[int64](1<<20, 4<<20),
	}))
	if err != nil {
		t.Fatal(err)
	}
	written := time.Since(start)
	want := c.read(c.nodes[1])
	if fileCount(want) != files {
		t.Fatalf("%d files stand in the tree, %d were written", fileCount(want), files)
	}
	c.waitTree(2*time.Minute, want)
	t.Logf("%d files, %d MB written in %v, equal everywhere %v after the first", files, bytes>>20, written.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))

	// And so it stays: nothing comes after.
	c.waitEqual(time.Minute)
	c.waitTree(time.Second, want)
	s, err := c.nodes[2].status()
	if err != nil {
		t.Fatal(err)
	}
	if tr := s.Trees[0]; tr.Files != files || tr.Held != 0 || tr.Conflicts != 0 || tr.Applied != s.Revision {
		t.Errorf("status says %+v at revision %d, want %d files and nothing open", tr, s.Revision, files)
	}
	for _, n := range c.nodes {
		n.must("verify")
	}
}

// Different files are written on all three nodes at once, in shared and own
// directories, in place and by rename, over and over.
func TestPromise_NoLoss_WritersOnAllNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	span := size(15*time.Second, time.Minute)
	end := time.Now().Add(span)
	wants := make([]map[string]string, len(c.nodes))
	var writers sync.WaitGroup
	for i, n := range c.nodes {
		wants[i] = map[string]string{}
		writers.Go(func() {
			if err := scribble(t, n, i, end, wants[i]); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	total := 0
	for i, n := range c.nodes {
		total += len(wants[i])
		for path, want := range wants[i] {
			if err := stands(n.tree, path, want); err != nil {
				t.Errorf("on its own node: %v", err)
			}
		}
	}
	c.waitEqual(2 * time.Minute)
	for _, n := range c.nodes {
		for _, want := range wants {
			for path, text := range want {
				if err := stands(n.tree, path, text); err != nil {
					t.Error(err)
				}
			}
		}
		if got := fileCount(c.read(n)); got != total {
			t.Errorf("%s has %d files, %d were written", n.name, got, total)
		}
		if left := n.conflicts(); len(left) > 0 {
			t.Errorf("%s has conflicts where nobody wrote the same file: %v", n.name, left)
		}
	}
	t.Logf("%d files after %v", total, span)
}

// scribble writes node i's files until end and notes what must stand at last.
func scribble(t *testing.T, n *node, i int, end time.Time, want map[string]string) error {
	rng := rand.New(rand.NewPCG(uint64(i), 0))
	for k := 0; time.Now().Before(end); k++ {
		path := fmt.Sprintf("shared/%d/gw%d-%d.xml", rng.IntN(10), i, rng.IntN(100))
		if k%3 == 0 {
			path = fmt.Sprintf("own%d/%d.xml", i, rng.IntN(50))
		}
		text := string(gen.Config(gen.Params{Seed: uint64(i), MinConfig: 100, MaxConfig: 9000}, k).Data)
		switch {
		case k%10 == 9 && want[path] != "":
			if err := os.Remove(filepath.Join(n.tree, path)); err != nil {
				return err
			}
			delete(want, path)
			continue
		case k%2 == 0:
			if err := writeFile(n.tree, path, text); err != nil {
				return err
			}
		default:
			// As editors do: beside it, then over it. The name beside is gone in the end.
			if err := writeFile(n.tree, path+".tmp", text); err != nil {
				return err
			}
			if err := os.Rename(filepath.Join(n.tree, path+".tmp"), filepath.Join(n.tree, path)); err != nil {
				return err
			}
		}
		want[path] = text
		if err := sleep(t.Context(), time.Duration(rng.IntN(20))*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
