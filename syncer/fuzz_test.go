package syncer

import (
	"encoding/json"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// FuzzCodec: no bytes in the record file make a decoder panic or allocate more
// than they are; what is decoded is written and read back as the same.
func FuzzCodec(f *testing.F) {
	link := linkTo("../x")
	a := Ancestor{
		Entry:    manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: 5, MTime: -1, Digest: manifest.DigestOf([]byte("x"))},
		Revision: 7, Author: "n-1", Stamp: Stamp{Ino: 1 << 63, Size: 5, MTime: 1, CTime: 2, Racy: true},
	}
	f.Add(encodeAncestor(a))
	f.Add(encodeAncestor(Ancestor{Entry: link}))
	f.Add(encodeNote(Note{Guard: GuardUnfit, Why: "why", Time: 3, Entry: link, Base: 9}))
	f.Add(encodeConflict(Conflict{Path: "a/b", Lost: a.Entry, Winner: 4, Time: 5, Why: "lost"}))
	f.Add(encodePlanned(planned{path: "a/b", ino: 6, expect: a, winner: 7}))
	f.Add([]byte{codecFormat, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := decodeAncestor(b); err == nil {
			if again, err := decodeAncestor(encodeAncestor(v)); err != nil || again != v {
				t.Errorf("ancestor %+v comes back as %+v, %v", v, again, err)
			}
		}
		if v, err := decodeNote(b); err == nil {
			if again, err := decodeNote(encodeNote(v)); err != nil || again != v {
				t.Errorf("note %+v comes back as %+v, %v", v, again, err)
			}
		}
		if v, err := decodeConflict("x-1", b); err == nil {
			if again, err := decodeConflict("x-1", encodeConflict(v)); err != nil || again != v {
				t.Errorf("conflict %+v comes back as %+v, %v", v, again, err)
			}
		}
		if v, err := decodePlanned("p", b); err == nil {
			if again, err := decodePlanned("p", encodePlanned(v)); err != nil || again != v {
				t.Errorf("plan %+v comes back as %+v, %v", v, again, err)
			}
		}
	})
}

// FuzzMarker: only a marker of this cluster and this tree, of this generation
// or a newer one, opens a root.
func FuzzMarker(f *testing.F) {
	want := marker{Format: markerFormat, Cluster: "c-1", Tree: "t-1", Generation: 2}
	good, err := json.Marshal(want)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, s := range []string{"", "{", "null", "[]", `{"format":99}`, `{"cluster":"c-1","tree":"t-1","generation":-1}`, `{"cluster":"c-1","tree":"t-1","generation":1e300}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := inspectMarker(b, want, want.Generation); err != nil {
			return
		}
		var m marker
		if err := json.Unmarshal(b, &m); err != nil || m.Cluster != "c-1" || m.Tree != "t-1" || m.Generation < 2 || m.Format > markerFormat {
			t.Errorf("%q opens the root of another: %+v %v", b, m, err)
		}
	})
}
