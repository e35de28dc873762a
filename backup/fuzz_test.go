package backup

import (
	"bytes"
	"io"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// FuzzRead: no file makes Read panic or take false content; what it accepts is
// a state whose content is all there.
func FuzzRead(f *testing.F) {
	blobs := openStore(f)
	good, _ := written(f, state(f, blobs), blobs)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(append(bytes.Clone(good), 0))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := map[manifest.Digest]bool{}
		state, _, err := Read(bytes.NewReader(b), func(ref manifest.BlobRef, r io.Reader) error {
			h := manifest.NewHasher()
			n, err := io.Copy(h, io.LimitReader(r, 1<<20))
			got[ref.Digest] = err == nil && n == ref.Size && h.Digest() == ref.Digest
			return err
		})
		if err != nil {
			return
		}
		for _, info := range state.Machine.Trees() {
			v, _ := state.Machine.View(info.Name)
			v.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
				if err := n.Entry.ValidateAt(p); err != nil || n.Entry.HasContent() && !got[n.Entry.Digest] {
					t.Errorf("%q: %v, content %v", p, err, got[n.Entry.Digest])
				}
				return true
			})
		}
	})
}
