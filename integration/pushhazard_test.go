package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// WSO2 documents a script around rsync for what gatesync's push does. Its
// hazards were found by running it on real trees; each has its test here.

// Its list of two directories wipes the second one: what is pushed to one tree
// touches no other.
func TestPushHazard_TwoDirectories(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	other := filepath.Join(filepath.Dir(b.dst), "tenants")
	r := b.listen("--tree", "server="+b.dst, "--tree", "tenants="+other)
	files(t, b.src, some(40))
	for _, tree := range []string{"server", "tenants"} {
		if p, a := b.push("--tree", tree); a.code != 0 || p.Tree != tree || p.Added != 45 {
			t.Fatalf("%s: exit code %d: %+v\n%s", tree, a.code, p, a.stderr)
		}
	}
	before := snapshotOf(t, other)
	// One that knows only one of both is no deletion of the other.
	files(t, b.src, map[string]string{"d1/f1.xml": "<changed/>"})
	if _, a := b.push("--tree", "server"); a.code != 0 {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
	if now := snapshotOf(t, other); now != before {
		t.Fatalf("the other tree was touched: %s", now)
	}
	// Which of both is meant has to be said.
	if _, a := b.push(); a.code != 1 || !strings.Contains(a.stderr, "server, tenants") || !strings.Contains(a.stderr, "--tree") {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
	// The wrong folder for a tree is noticed before it has emptied it.
	files(t, b.src, map[string]string{"d0": "", "d1": "", "d2": "", "d3": "", "d4": "", "wrong": "folder"})
	p, a := b.push("--tree", "tenants")
	if a.code != 4 || p.Deleted != 0 || len(p.what("held")) != 40 {
		t.Fatalf("exit code %d: %+v", a.code, p)
	}
	r.stop()
}

// The loser of its lock deletes the winner's lock: a pusher that is refused
// leaves the other one alone, and a third one is refused as well.
func TestPushHazard_TwoPushers(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, map[string]string{"big": noise(2 << 20)})
	slow := b.command("--limit", "200KB/s") // slow enough for three others to be refused meanwhile
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "content is on its way", func() error {
		left, err := os.ReadDir(filepath.Join(b.data, "partial"))
		if err == nil && len(left) == 0 {
			err = fmt.Errorf("none has come")
		}
		return err
	})
	data := b.data
	for _, other := range []string{data, data + "2", data + "2"} { // with its data directory, and without
		b.data = other
		if _, a := b.push(); a.code != 1 || !strings.Contains(a.stderr, "try again when it has ended") {
			t.Fatalf("with data directory %s: exit code %d: %s", other, a.code, a.stderr)
		}
	}
	b.data = data
	if err := slow.Wait(); err != nil {
		t.Fatal(err)
	}
	b.same()
}

// Its `pushd` fails under dash: no shell's dialect matters, and no name breaks
// the command.
func TestPushHazard_AnyShellAnyName(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	b.dst = filepath.Join(filepath.Dir(b.dst), `it's a "place" $HOME ; rm -rf x & *`)
	b.to = "ssh://there" + strings.NewReplacer("%", "%25", " ", "%20", `"`, "%22", ";", "%3B").Replace(b.dst)
	files(t, b.src, map[string]string{"a b/$(touch x)": "1", "new\nline": "2", "-rf": "3", "caf\xe9": "4"})
	b.must()
}

// An empty source wipes the target: here it is held.
func TestPromise_NoSurpriseDelete_PushOfAnEmptySource(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, some(3)) // few: emptied is emptied, whatever its size
	b.must()
	before := snapshotOf(t, b.dst)
	files(t, b.src, map[string]string{"d0": "", "d1": "", "d2": ""})
	p, a := b.push()
	if a.code != 4 || len(p.what("held")) != 3 {
		t.Fatalf("exit code %d: %+v", a.code, p)
	}
	if now := snapshotOf(t, b.dst); now != before {
		t.Fatalf("the target was touched: %s", now)
	}
	if err := os.RemoveAll(b.src); err != nil { // not even there
		t.Fatal(err)
	}
	if _, a := b.push("--delete=yes"); a.code != 1 {
		t.Fatalf("no source at all: exit code %d", a.code)
	}
	if now := snapshotOf(t, b.dst); now != before {
		t.Fatalf("the target was touched: %s", now)
	}
}

// A file that was made on a worker is deleted: here it is held, and removed
// only on a person's word, and then kept aside.
func TestPromise_NoLoss_PushMeetsWhatWasMadeThere(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, some(30))
	b.must()
	files(t, b.dst, map[string]string{"d1/made-there.xml": "precious"})
	files(t, b.src, map[string]string{"d1/f6.xml": ""})
	p, a := b.push()
	if a.code != 4 || p.Deleted != 1 || !slices.Equal(p.what("held"), []string{"d1/made-there.xml"}) {
		t.Fatalf("exit code %d: %+v", a.code, p)
	}
	if err := stands(b.dst, "d1/made-there.xml", "precious"); err != nil {
		t.Fatal(err)
	}
	if p := b.must("--delete=yes"); !slices.Equal(p.what("kept"), []string{"d1/made-there.xml"}) {
		t.Fatalf("%+v", p)
	}
	list := runIn(t, "conflicts", "--data-dir", b.data)
	id := strings.Fields(strings.Split(list, "\n")[1])[0]
	if got := runIn(t, "conflicts", "--data-dir", b.data, "show", id); got != "precious" {
		t.Fatalf("kept: %q\n%s", got, list)
	}
	runIn(t, "conflicts", "--data-dir", b.data, "drop", id)
	if list := runIn(t, "conflicts", "--data-dir", b.data); !strings.Contains(list, "no conflicts") {
		t.Fatalf("%s", list)
	}
}

// The same size and mtime with other content is not copied: digests decide, at
// both ends.
func TestPushHazard_SameSizeAndTime(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, map[string]string{"here": "one", "there": "one"})
	b.must()
	when := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, root := range []string{b.src, b.dst} {
		if err := os.Chtimes(filepath.Join(root, "here"), when, when); err != nil {
			t.Fatal(err)
		}
	}
	b.must()
	write(t, b.src, "here", "two")
	if err := os.Chtimes(filepath.Join(b.src, "here"), when, when); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(b.dst, "there"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, b.dst, "there", "two")
	if err := os.Chtimes(filepath.Join(b.dst, "there"), st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if p := b.must(); p.Changed != 2 || !slices.Equal(p.what("kept"), []string{"there"}) {
		t.Fatalf("%+v", p)
	}
}

// APIs arrive before their sequences: here after them.
func TestPushHazard_Order(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	var dirs []string
	for _, d := range []string{"api", "sequences", "endpoints"} {
		files(t, b.src, map[string]string{"synapse-configs/default/" + d + "/first.xml": "<x/>"})
		dirs = append(dirs, filepath.Join(b.dst, "synapse-configs/default", d))
	}
	b.must("--preset", "wso2")
	w, err := fsnotify.NewBufferedWatcher(1000)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, d := range dirs {
		if err := w.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		for _, d := range []string{"api", "sequences", "endpoints"} {
			files(t, b.src, map[string]string{fmt.Sprintf("synapse-configs/default/%s/f%d.xml", d, i): "<x/>"})
		}
	}
	b.must("--preset", "wso2")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var order []string
	for seen := map[string]bool{}; len(seen) < 30; {
		select {
		case <-ctx.Done():
			t.Fatalf("saw only %v", seen)
		case ev := <-w.Events:
			if ev.Has(fsnotify.Create) && !seen[ev.Name] {
				seen[ev.Name] = true
				order = append(order, filepath.Base(filepath.Dir(ev.Name)))
			}
		}
	}
	if order = slices.Compact(order); !slices.Equal(order, []string{"endpoints", "sequences", "api"}) {
		t.Fatalf("in the order %v", order)
	}
}
