package fallback

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
)

// BenchmarkDeltas measures what a new version costs from one member to two
// others, on their disks and over a gigabit: whole, and as what differs from the
// old one, which all three have.
func BenchmarkDeltas(b *testing.B) {
	for _, c := range []struct {
		name string
		make func() (old, content []byte)
	}{
		{"a line of 8 KB of XML", lineOfXML}, {"a WAR of 64 MB, 48 of 3,700 entries", editedWAR}, {"512 MB of binary, 100 edits", editedBinary},
	} {
		for _, way := range []string{"whole", "delta"} {
			b.Run(c.name+"/"+way, func(b *testing.B) {
				old, content := c.make()
				b.ResetTimer()
				for range b.N {
					replace(b, way, old, content)
				}
			})
		}
	}
}

func replace(b *testing.B, way string, old, content []byte) {
	b.StopTimer()
	author := &cable{}
	n := &benchNet{testNet: newNet(b), out: author}
	node := func(id cluster.NodeID) (*Push, *blob.Store) {
		s, err := blob.Open(b.TempDir(), blob.Options{})
		if err != nil {
			b.Fatal(err)
		}
		p := NewPush(id, StoreOf(s), n, nil)
		p.Scratch(s.Scratch())
		n.serve(id, &server{push: p})
		b.Cleanup(func() { _, _ = p.Close(), s.Close() })
		return p, s
	}
	a, store := node("n-a")
	var bases manifest.Bases
	for _, s := range []*blob.Store{store, second(node("n-b")), second(node("n-c"))} {
		ref, err := s.PutBytes(old)
		if err == nil {
			err = s.Flush()
		}
		if err != nil {
			b.Fatal(err)
		}
		if way == "delta" {
			bases = manifest.Bases{manifest.DigestOf(content): ref.Digest}
		}
	}
	hello, err := store.PutBytes([]byte("hello"))
	if err != nil {
		b.Fatal(err)
	}
	ref, err := store.PutBytes(content)
	if err != nil {
		b.Fatal(err)
	}
	to := nodes("n-b", "n-c")
	for _, blobs := range [][]manifest.BlobRef{{hello}, {ref}} { // the first opens the streams
		var before, after syscall.Rusage
		sent := author.bytes.Load()
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		b.StartTimer()
		begun := time.Now()
		_, err := a.Spread(context.Background(), blobs, bases, to, nil)
		took := time.Since(begun)
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		b.ReportMetric(float64(took.Microseconds())/1000, "ms")
		b.ReportMetric(float64(author.bytes.Load()-sent)/1e3, "author-kB")
		b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/1e6, "cpu-ms")
	}
}

func second(_ *Push, s *blob.Store) *blob.Store { return s }

func lineOfXML() (old, content []byte) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var s strings.Builder
	for i := range 150 {
		fmt.Fprintf(&s, "<property name=\"p%d\" value=\"%x\"/>\n", i, rnd.Uint64())
	}
	return []byte(s.String()), []byte(strings.Replace(s.String(), "p75", "edited", 1))
}

// editedWAR is a web application before and after some of its entries were
// edited; the others are compressed as before.
func editedWAR() (old, content []byte) {
	war := func(edited bool) []byte {
		const letters = "abcdefghijklmnopqrstuvwxyz<>/=\"\n  "
		rnd := rand.New(rand.NewPCG(7, 7))
		var out bytes.Buffer
		z := zip.NewWriter(&out)
		for i := range 3700 {
			entry := make([]byte, 4<<10+rnd.IntN(40<<10))
			for k := range entry {
				if entry[k] = letters[rnd.IntN(len(letters))]; k%7 == 0 {
					entry[k] = byte(rnd.Uint32())
				}
			}
			if edited && i%77 == 0 {
				copy(entry[len(entry)/2:], fmt.Sprintf("edited %d", i))
			}
			w, err := z.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("WEB-INF/classes/C%d.class", i), Method: zip.Deflate, Modified: time.Unix(1e9, 0)})
			if err == nil {
				_, err = w.Write(entry)
			}
			if err != nil {
				panic(err)
			}
		}
		if err := z.Close(); err != nil {
			panic(err)
		}
		return out.Bytes()
	}
	return war(false), war(true)
}

func editedBinary() (old, content []byte) {
	old = make([]byte, 512<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(old) // never fails
	content = bytes.Clone(old)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		copy(content[rnd.IntN(len(content)-100):], "here somebody has edited some bytes")
	}
	more := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(more)
	return old, bytes.Join([][]byte{content[:100<<20], more, content[100<<20:]}, nil)
}
