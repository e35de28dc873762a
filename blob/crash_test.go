package blob

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"pgregory.net/rapid"
)

func TestTornTailIsCutAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, small)
	kept, last := [][]byte{content(1, 300), content(2, 0), content(3, 10)}, content(4, 90)
	for _, b := range append(kept, last) {
		put(t, s, b)
	}
	closeStore(t, s)
	path := packFiles(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := len(whole) - headerSize - len(last)
	for cut := start; cut <= len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := openAt(t, dir, small)
		for _, b := range kept {
			mustHold(t, s, b)
		}
		if has := s.Has(manifest.DigestOf(last)); has != (cut == len(whole)) {
			t.Fatalf("cut at %d of %d: Has = %v", cut, len(whole), has)
		}
		if torn := cut != start && cut != len(whole); torn != (len(s.Damage()) == 1) || torn && !s.Damage()[0].Cut {
			t.Fatalf("cut at %d of %d: damage %v", cut, len(whole), s.Damage())
		}
		put(t, s, last) // and it goes on from there
		closeStore(t, s)
		if healed, err := os.ReadFile(path); err != nil || !bytes.Equal(healed, whole) {
			t.Fatalf("cut at %d of %d: the pack is not what it was (%v)", cut, len(whole), err)
		}
	}
}

// A power cut may leave any bytes behind what was flushed: a tail of zeros, a
// header without its content, one page and not the one before it.
func TestPowerCutLosesNothingThatWasFlushed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := filepath.Join(t.TempDir(), "s")
		s := openAt(t, dir, small)
		sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 5, 200, 1000, 1024, 1500, 4000}), 1, 30)
		flushed, unflushed := sizes.Draw(rt, "flushed"), sizes.Draw(rt, "unflushed")
		seed := uint64(0)
		next := func(n int) []byte { seed++; return content(seed, n) }
		var safe, loose [][]byte
		for _, n := range flushed {
			b := next(n)
			put(t, s, b)
			safe = append(safe, b)
		}
		flush(t, s)
		durable := map[string]int64{} // file → length at the last flush
		for _, f := range packFiles(t, dir) {
			fi, err := os.Stat(f)
			if err != nil {
				rt.Fatal(err)
			}
			durable[filepath.Base(f)] = fi.Size()
		}
		for _, n := range unflushed {
			b := next(n)
			put(t, s, b)
			loose = append(loose, b)
		}
		crashed := copyDir(t, dir)
		for _, f := range packFiles(t, crashed) {
			if end, err := os.ReadFile(f); err != nil {
				rt.Fatal(err)
			} else if _, whole := sealed(bytes.NewReader(end), int64(len(end))); !whole {
				mangle(rt, f, durable[filepath.Base(f)])
			}
		}
		after := openAt(t, crashed, small)
		for _, b := range safe {
			mustHold(t, after, b)
		}
		for _, b := range loose { // may be gone, never torn
			if after.Has(manifest.DigestOf(b)) {
				mustHold(t, after, b)
			}
		}
		for _, b := range append(safe, loose...) {
			put(t, after, b)
			mustHold(t, after, b)
		}
		closeStore(t, after)
		closeStore(t, s)
	})
}

// mangle damages a file behind keep, at random.
func mangle(rt *rapid.T, path string, keep int64) {
	b, err := os.ReadFile(path)
	if err != nil {
		rt.Fatal(err)
	}
	tail := b[keep:]
	switch rapid.SampledFrom([]string{"cut", "zeros", "hole", "flip"}).Draw(rt, "damage") {
	case "cut":
		b = b[:keep+int64(rapid.IntRange(0, len(tail)).Draw(rt, "at"))]
	case "zeros":
		clear(tail[rapid.IntRange(0, len(tail)).Draw(rt, "at"):])
	case "hole":
		from := rapid.IntRange(0, len(tail)).Draw(rt, "from")
		clear(tail[from:min(len(tail), from+512)])
	case "flip":
		if len(tail) > 0 {
			tail[rapid.IntRange(0, len(tail)-1).Draw(rt, "at")] ^= 1
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		rt.Fatal(err)
	}
}

func TestUnflushedLargeBlobIsDroppedAtOpen(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, small)
	safe, lost := content(1, 5000), content(2, 5000)
	put(t, s, safe)
	flush(t, s)
	put(t, s, lost)
	after := openAt(t, copyDir(t, dir), small)
	mustHold(t, after, safe)
	if after.Has(manifest.DigestOf(lost)) {
		t.Fatal("answers for a file that may be torn")
	}
}

func TestDamageInTheMiddleCostsOneRecord(t *testing.T) {
	for _, sealedPack := range []bool{false, true} {
		dir := t.TempDir()
		s := openAt(t, dir, small)
		var all [][]byte
		for i := range 5 {
			all = append(all, content(uint64(i), 600))
		}
		// The hit record's content looks like a record itself, and one that
		// claims the rest of the pack.
		putHeader(all[2][100:], manifest.DigestOf([]byte("a lie")), 1700)
		for _, b := range all {
			put(t, s, b)
		}
		if sealedPack {
			for i := range 3 {
				put(t, s, content(uint64(100+i), 900))
			}
		}
		closeStore(t, s)
		path := packFiles(t, dir)[0]
		offset := int64(2 * (headerSize + 600))
		corrupt(t, path, offset+20) // in the digest
		s = openAt(t, dir, small)
		for i, b := range all {
			if i == 2 {
				if s.Has(manifest.DigestOf(b)) {
					t.Error("answers for the record that was hit")
				}
				continue
			}
			mustHold(t, s, b)
		}
		want := Damage{File: path, Offset: offset, Bytes: headerSize + 600}
		if d := s.Damage(); len(d) != 1 || d[0] != want {
			t.Errorf("sealed %v: damage %v, want %v", sealedPack, d, want)
		}
		put(t, s, all[2])
		closeStore(t, s)
		mustHold(t, openAt(t, dir, small), all[2])
	}
}

func TestFullPacksAreSealedAndNotReadThrough(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, small)
	for i := range 20 {
		put(t, s, content(uint64(i), 900))
	}
	closeStore(t, s)
	packs := packFiles(t, dir)
	if len(packs) < 4 {
		t.Fatalf("only %d packs", len(packs))
	}
	for i, path := range packs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, whole := sealed(bytes.NewReader(b), int64(len(b))); whole != (i < len(packs)-1) {
			t.Errorf("%s: sealed is %v", filepath.Base(path), whole)
		}
	}
}

// FuzzWalk feeds the decoder of packs with anything.
func FuzzWalk(f *testing.F) {
	rec := func(b []byte) []byte {
		out := append(make([]byte, headerSize), b...)
		putHeader(out, manifest.DigestOf(b), int64(len(b)))
		return out
	}
	f.Add([]byte{}, false)
	f.Add(append(rec([]byte("one")), rec([]byte("two"))...), false)
	f.Add(append(append(rec([]byte("one")), "junk gsb1 junk"...), rec(rec([]byte("inner")))...), true)
	huge := rec([]byte("short"))
	binary.LittleEndian.PutUint64(huge[4:], 1<<63)
	binary.LittleEndian.PutUint32(huge[44:], headerCRC(huge))
	f.Add(append(huge, rec(nil)...), false)
	f.Add(append(rec([]byte("x")), sealOf(49)...), true)
	f.Fuzz(func(t *testing.T, b []byte, verify bool) {
		size := int64(len(b))
		var at int64 // everything is told exactly once, in order
		end, err := walk(bytes.NewReader(b), size, verify, func(r record) {
			if r.offset-headerSize != at || r.size < 0 || r.end() > size {
				t.Fatalf("record %+v at %d of %d", r, at, size)
			}
			if verify && manifest.DigestOf(b[r.offset:r.end()]) != r.digest {
				t.Fatalf("record %+v does not verify", r)
			}
			at = r.end()
		}, func(offset, n int64) {
			if offset != at || n <= 0 || offset+n > size {
				t.Fatalf("damage %d+%d at %d of %d", offset, n, at, size)
			}
			at += n
		})
		if err != nil || at != size || end > size {
			t.Fatalf("walk ended at %d, told of %d bytes of %d: %v", end, at, size, err)
		}
		_, _ = sealed(bytes.NewReader(b), size)
	})
}
