package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var buckets = []string{"a", "b"}

// history makes a file by some transactions: bucket a has n values, b has few.
func history(t testing.TB, file string, n int) contents {
	t.Helper()
	db := mustOpen(t, file)
	defer mustClose(t, db)
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	want := contents{"b/one": "1", "b/two": ""}
	want.put(t, db)
	for round := range 3 {
		some := contents{}
		for i := range n {
			if round == 0 || rnd.IntN(5) == 0 {
				some[fmt.Sprintf("a/%06d", i)] = strings.Repeat(fmt.Sprint(rnd.IntN(1000)), rnd.IntN(40))
			}
		}
		if n > 50 {
			some["a/big"] = strings.Repeat("big", 9000) // pages that overflow
		}
		some.put(t, db)
		maps.Copy(want, some)
	}
	gone := fmt.Sprintf("%06d", n/2)
	if err := db.Update(func(tx *Tx) error { return tx.Bucket("a").Delete([]byte(gone)) }); err != nil {
		t.Fatal(err)
	}
	delete(want, "a/"+gone)
	return want
}

// survives opens damaged bytes as a file and uses it: everything is as it was,
// or the error names the file.
func survives(t testing.TB, dir string, b []byte, want contents, what string) {
	t.Helper()
	file := filepath.Join(dir, "damaged")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db, _, err := Open(file, buckets...)
	if err != nil {
		var damaged *DamagedError
		if !errors.As(err, &damaged) || damaged.File != file {
			t.Fatalf("%s: %v", what, err)
		}
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, b) {
			t.Fatalf("%s: the damaged file was changed", what)
		}
		return
	}
	got, err := read(db)
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("%s: opened, and holds %d values that are not the %d (%v)", what, len(got), len(want), err)
	}
	more := contents{"a/new": "x", "b/one": "2"}
	more.put(t, db)
	mustClose(t, db)
	db = mustOpen(t, file)
	defer mustClose(t, db)
	want = maps.Clone(want)
	maps.Copy(want, more)
	if got, err := read(db); err != nil || !maps.Equal(got, want) {
		t.Fatalf("%s: written to, and holds other values (%v)", what, err)
	}
}

// TestEveryFlippedByteIsNoticed flips each byte of a small file.
func TestEveryFlippedByteIsNoticed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	want := history(t, file, 20)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(2, 3))
	passed := 0
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= byte(1 + rnd.IntN(255))
		if checkContent(bytes.NewReader(b), int64(len(b)), buckets) != nil {
			if rnd.IntN(100) == 0 {
				survives(t, dir, b, want, fmt.Sprintf("byte %d", i))
			}
			continue
		}
		passed++
		if passed%50 == 0 || i < 100 {
			survives(t, dir, b, want, fmt.Sprintf("byte %d", i))
		}
	}
	t.Logf("of %d bytes %d mean nothing", len(whole), passed)
	if passed == len(whole) {
		t.Error("no flip was noticed")
	}
}

// TestDamageOfManyPagesIsNoticed does to a file of several levels what disks
// do: single bits, lost and misplaced pages, cut tails.
func TestDamageOfManyPagesIsNoticed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	want := history(t, file, 1500)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	pages := len(whole) / page
	rnd := rand.New(rand.NewPCG(4, 5))
	at := func() int { return rnd.IntN(pages) * page }
	damage := map[string]func(b []byte) []byte{
		"a bit":               func(b []byte) []byte { b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8); return b },
		"a bit of a header":   func(b []byte) []byte { b[at()+rnd.IntN(400)] ^= 1 << rnd.IntN(8); return b },
		"a page of zeros":     func(b []byte) []byte { clear(b[at():][:page]); return b },
		"a misplaced page":    func(b []byte) []byte { copy(b[at():][:page], whole[at():][:page]); return b },
		"a torn page":         func(b []byte) []byte { clear(b[at()+page/2:][:page/2]); return b },
		"a cut":               func(b []byte) []byte { return b[:rnd.IntN(len(b))] },
		"a cut between pages": func(b []byte) []byte { return b[:at()] },
		"noise":               func(b []byte) []byte { i := at(); noise(rnd, b[i:][:page]); return b },
	}
	begun := time.Now()
	for round := 0; round < 40 && time.Since(begun) < 5*time.Second; round++ {
		for name, do := range damage {
			survives(t, dir, do(slices.Clone(whole)), want, name)
		}
	}
}

func noise(rnd *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
}

// TestAStalePageIsNoticed: each page alone is sound, but one is older than the
// others: a write that the disk lost.
func TestAStalePageIsNoticed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	history(t, file, 1500)
	older, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	db := mustOpen(t, file)
	for i := range 300 { // pages are used again only after a while
		more := contents{fmt.Sprintf("a/%06d", i*5): fmt.Sprint("newer", i)}
		more.put(t, db)
	}
	want, err := read(db)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page, noticed := os.Getpagesize(), 0
	for at := 2 * page; at < min(len(older), len(whole)); at += page {
		b := slices.Clone(whole)
		copy(b[at:][:page], older[at:][:page])
		if checkContent(bytes.NewReader(b), int64(len(b)), buckets) != nil {
			noticed++
		} else {
			survives(t, dir, b, want, fmt.Sprintf("stale page %d", at/page))
		}
	}
	if noticed == 0 {
		t.Error("no stale page was noticed")
	}
}

// TestDamageWhileOpenIsAnError: a file that is cut short under its memory map
// raises no signal, and a flipped value is not read.
func TestDamageWhileOpenIsAnError(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"cut":     func(file string) error { return os.Truncate(file, int64(2*os.Getpagesize())) },
		"emptied": func(file string) error { return os.Truncate(file, 0) },
		"flipped": func(file string) error {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			b = bytes.ReplaceAll(b, []byte("bigbig"), []byte("bigfig"))
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(b, 0)
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "f")
			history(t, file, 1500)
			db := mustOpen(t, file)
			defer func() { _ = db.Close() }()
			if err := damage(file); err != nil {
				t.Fatal(err)
			}
			if _, err := read(db); !errors.Is(err, ErrDamaged) {
				t.Errorf("read: %v", err)
			}
			if err := db.Update(func(tx *Tx) error { return tx.Bucket("a").Put([]byte("big"), []byte("other")) }); !errors.Is(err, ErrDamaged) {
				t.Errorf("write: %v", err)
			}
		})
	}
}

// TestSalvageFindsTheRest: what is found is as it once was, and most is found.
func TestSalvageFindsTheRest(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	want := history(t, file, 1500)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(6, 7))
	for round := range 30 {
		b := slices.Clone(whole)
		clear(b[:2*os.Getpagesize()]) // both meta pages
		for range 10 {
			b[rnd.IntN(len(b))] ^= 0x10
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		err := Salvage(file, "a", func(k, _ []byte) {
			if _, ok := want["a/"+string(k)]; !ok && string(k) != "000750" { // that one was deleted
				t.Fatalf("found %q, which was never there", k)
			}
			found[string(k)] = true
		})
		if err != nil || len(found) < 1000 {
			t.Fatalf("round %d: found %d of 1500 (%v)", round, len(found), err)
		}
	}
}

// stumblingDisk fails the first reads.
type stumblingDisk struct {
	io.ReaderAt
	fails int
}

func (s *stumblingDisk) ReadAt(b []byte, offset int64) (int, error) {
	if s.fails--; s.fails >= 0 {
		return 0, &os.PathError{Op: "read", Path: "f", Err: unix.EIO}
	}
	return s.ReaderAt.ReadAt(b, offset)
}

// A disk that stumbles once has damaged nothing.
func TestOneFailedReadIsNoDamage(t *testing.T) {
	for fails, lost := range map[int]bool{0: false, 1: false, 2: false, 3: true} {
		b := make([]byte, 4)
		_, err := insistent{&stumblingDisk{strings.NewReader("text"), fails}}.ReadAt(b, 0)
		if errors.Is(err, unix.EIO) != lost || !lost && string(b) != "text" {
			t.Errorf("after %d failures: %q, %v", fails, b, err)
		}
	}
}
