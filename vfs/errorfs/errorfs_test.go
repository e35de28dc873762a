package errorfs

import (
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errInjected = errors.New("injected")

func open(t *testing.T, i Injector) *FS {
	t.Helper()
	return Wrap(openRoot(t), i)
}

// openRoot opens a root that two nodes have: the one that is gone has left a file
// staged.
func openRoot(t *testing.T) *vfs.Root {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tree")
	as := func(node string) *vfs.Root {
		root, err := vfs.OpenRoot(path, vfs.Options{Create: true, Node: node})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = root.Close() })
		return root
	}
	left, err := as("gone").Create("left", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	return as("self")
}

// everything calls each operation once, in an order in which all succeed, and
// returns by name what each returned.
func everything(f vfs.FS) map[string]error {
	errs := map[string]error{}
	did := func(op string, err error) { errs[op] = err }
	one := func(op string, _ any, err error) { errs[op] = err }

	did("Check", f.Check())
	n, err := f.Free()
	one("Free", n, err)
	if w, err := f.Create("s", 0o600); err != nil {
		did("Create", err)
	} else {
		did("Create", nil)
		n, err := w.Write([]byte("content"))
		one(WFileWrite, n, err)
		did(WFileChmod, w.Chmod(0o644))
		did(WFileTimes, w.Chtimes(1))
		did(WFileSync, w.Sync())
		st, err := w.Stat()
		one(WFileStat, st, err)
		did(WFileClose, w.Close())
	}
	did("WriteNote", f.WriteNote("note-a", []byte("n")))
	note, err := f.ReadNote("note-a")
	one("ReadNote", note, err)
	notes, err := f.ListNotes("note-")
	one("ListNotes", notes, err)
	did("RemoveNote", f.RemoveNote("note-a"))
	stagers, err := f.Stagers()
	one("Stagers", stagers, err)
	theirs, err := f.StagedBy("gone")
	one("StagedBy", theirs, err)
	did("TakeOver", f.TakeOver("gone", "left", "taken"))
	did("DropStager", f.DropStager("gone"))
	did("StageLink", f.StageLink("l", "target"))
	st, err := f.StatStaged("s")
	one("StatStaged", st, err)
	g, err := f.OpenStaged("s")
	one("OpenStaged", g, err)
	if err == nil {
		_ = g.Close()
	}
	target, err := f.ReadlinkStaged("l")
	one("ReadlinkStaged", target, err)
	list, err := f.ListStaged()
	one("ListStaged", list, err)
	did("SyncStaging", f.SyncStaging())
	did("Mkdir", f.Mkdir("d", 0o755))
	did("Place", f.Place("s", "d/f"))
	did("Refresh", f.Refresh("d"))
	did("Nudge", f.Nudge("d/f"))
	fresh, err := f.OpenFresh("d/f")
	one("OpenFresh", fresh, err)
	if err == nil {
		_ = fresh.Close()
	}
	did("LinkOut", f.LinkOut("d/f", "aside"))
	did("Exchange", f.Exchange("l", "d/f"))
	target, err = f.Readlink("d/f")
	one("Readlink", target, err)
	did("Replace", f.Replace("l", "d/f"))
	st, err = f.Lstat("d/f")
	one("Lstat", st, err)
	did("Chmod", f.Chmod("d/f", st, 0o600))
	did("SyncFile", f.SyncFile("d/f"))
	did("SyncDir", f.SyncDir("d"))
	did("SyncFS", f.SyncFS())
	entries, err := f.ReadDir("d")
	one("ReadDir", entries, err)
	if g, err := f.Open("d/f"); err != nil {
		did("Open", err)
	} else {
		did("Open", nil)
		n, err := g.Read(make([]byte, 1))
		one(FileRead, n, err)
		n, err = g.ReadAt(make([]byte, 1), 0)
		one(FileReadAt, n, err)
		st, err := g.Stat()
		one(FileStat, st, err)
		if l, err := g.Lease(); err != nil {
			did(FileLease, err)
		} else {
			did(FileLease, nil)
			give := func(op string, good bool) {
				if !good {
					did(op, errInjected)
					return
				}
				did(op, nil)
			}
			give(LeaseIntact, l.Intact())
			give(LeaseGive, l.Release())
		}
		did(FileSync, g.Sync())
		did(FileClose, g.Close())
	}
	did("TakeOut", f.TakeOut("d/f", "out"))
	did("RemoveStaged", f.RemoveStaged("out"))
	did("Rmdir", f.Rmdir("d"))
	did("WriteMarker", f.WriteMarker([]byte("{}")))
	b, err := f.ReadMarker()
	one("ReadMarker", b, err)
	_, err = f.MarkerPlace()
	did("MarkerPlace", err)
	return errs
}

// operations lists what the interfaces of vfs have, so that a new method
// cannot slip by.
func operations() (names []string) {
	for prefix, iface := range map[string]reflect.Type{
		"": reflect.TypeFor[vfs.FS](), "File.": reflect.TypeFor[vfs.File](),
		"WFile.": reflect.TypeFor[vfs.WFile](), "Lease.": reflect.TypeFor[vfs.Lease](),
	} {
		for i := range iface.NumMethod() {
			names = append(names, prefix+iface.Method(i).Name)
		}
	}
	untouched := []string{"Capabilities", "Path", "Close", "File.Fd"}
	return slices.DeleteFunc(names, func(op string) bool { return slices.Contains(untouched, op) })
}

func TestEveryOperationCanFailByName(t *testing.T) {
	var none Switch
	f := open(t, &none)
	if c := f.Capabilities(); !c.Exchange || !c.Leases {
		t.Skip("the filesystem lacks exchange or leases")
	}
	all := everything(f)
	for _, op := range operations() {
		if _, ok := all[op]; !ok {
			t.Errorf("%s is not tried: can it fail?", op)
		}
	}
	for op, err := range all {
		if err != nil {
			t.Errorf("%s without a fault: %v", op, err)
		}
	}
	for op := range all {
		if err := everything(open(t, Always(op, errInjected)))[op]; !errors.Is(err, errInjected) {
			t.Errorf("%s with a fault: %v", op, err)
		}
	}
}

func TestFailNthFailsThatOneAlone(t *testing.T) {
	f := open(t, FailNth("Mkdir", 2, errInjected))
	for i, p := range []manifest.Path{"a", "b", "c"} {
		if err := f.Mkdir(p, 0o755); errors.Is(err, errInjected) != (i == 1) {
			t.Errorf("Mkdir %s: %v", p, err)
		}
	}
	if list, err := f.ReadDir(""); err != nil || len(list) != 2 {
		t.Errorf("the failed one happened: %v %v", list, err)
	}
}

func TestCrashStopsEverythingFromThereOn(t *testing.T) {
	f := open(t, Crash(2))
	if err := f.Mkdir("a", 0o755); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := f.Mkdir("b", 0o755); !errors.Is(err, ErrCrashed) {
			t.Fatalf("after the crash: %v", err)
		}
	}
	if _, err := f.FS.Lstat("b"); err == nil {
		t.Fatal("it happened all the same")
	}
}

func TestShortWritesAndReadsAPart(t *testing.T) {
	full := errors.New("full")
	f := open(t, Chain(Nth(WFileWrite, 2, Always("", Short{3, full})), Nth(FileRead, 1, Always("", Short{2, nil}))))
	w, err := f.Create("s", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write([]byte("0123")); n != 4 || err != nil {
		t.Errorf("first write: %d %v", n, err)
	}
	if n, err := w.Write([]byte("456789")); n != 3 || !errors.Is(err, full) {
		t.Errorf("second write: %d %v", n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	g, err := f.OpenStaged("s")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	b := make([]byte, 100)
	if n, err := g.Read(b); n != 2 || err != nil {
		t.Errorf("first read: %d %v", n, err)
	}
	if rest, err := io.ReadAll(g); string(rest) != "23456" || err != nil {
		t.Errorf("the rest: %q %v", rest, err)
	}
}

func TestDelayWaitsBeforeTheOperation(t *testing.T) {
	waited := 0
	f := open(t, Delay("Mkdir", func() { waited++ }))
	if err := f.Mkdir("a", 0o755); err != nil || waited != 1 {
		t.Errorf("waited %d times: %v", waited, err)
	}
	if _, err := f.Lstat("a"); err != nil || waited != 1 {
		t.Errorf("waited %d times: %v", waited, err)
	}
}

func TestOnHitsOnePath(t *testing.T) {
	var trace Trace
	f := open(t, Chain(&trace, On("Mkdir", "b", errInjected)))
	if err := f.Mkdir("a", 0o755); err != nil {
		t.Error(err)
	}
	if err := f.Mkdir("b", 0o755); !errors.Is(err, errInjected) {
		t.Errorf("Mkdir b: %v", err)
	}
	if got := trace.Ops(); !slices.Equal(got, []string{"Mkdir a", "Mkdir b"}) {
		t.Errorf("trace %q", got)
	}
}

func TestHangBlocksUntilReleased(t *testing.T) {
	h := Hang("ReadDir")
	f := open(t, h)
	done := make(chan error)
	go func() { _, err := f.ReadDir(""); done <- err }()
	<-h.Entered()
	if _, err := f.Lstat(""); err != nil { // others go on
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Fatalf("ReadDir returned %v before Release", err)
	default:
	}
	h.Release()
	h.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestInjectedReadErrorStopsACopy(t *testing.T) {
	var s Switch
	f := open(t, &s)
	w, err := f.Create("s", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	g, err := f.OpenStaged("s")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s.Set(FailNth(FileRead, 2, errInjected))
	// The File may not offer a way round its Read (WriterTo of an *os.File).
	if n, err := io.Copy(io.Discard, g); !errors.Is(err, errInjected) || n == 0 || n == 100_000 {
		t.Errorf("copied %d: %v", n, err)
	}
}
