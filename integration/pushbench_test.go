package integration

import (
	"archive/zip"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/integration/gen"
)

// BenchmarkPush measures what the wire carries and how long it takes, for what
// changes in gateways' folders, beside rsync -z in the same run. Both start
// from the same old version at the other end. GATESYNC_LONG: the sizes of the
// documented figures.
func BenchmarkPush(b *testing.B) {
	for _, c := range []struct {
		id, name string
		old      func(dir string)
		edit     func(dir string)
	}{
		{"binary", "a binary, 100 edits and 1 MB inserted", oldBinary, editBinary},
		{"xml", "a line in 200 of 2,000 XML", oldXML, editXML},
		{"war", "a WAR, 1 % of its entries", func(dir string) { war(dir, -1) }, func(dir string) { war(dir, 100) }},
	} {
		b.Run(c.id, func(b *testing.B) {
			bed := newPushBed(b)
			c.old(bed.src)
			bed.must()
			peer := filepath.Join(filepath.Dir(bed.src), "peer")
			if have(b, "rsync") {
				if err := rsync("-a", bed.src+"/", peer+"/"); err != nil {
					b.Fatal(err)
				}
			}
			c.edit(bed.src)
			start := time.Now()
			p := bed.must()
			figures.took(c.name+", time", ours, time.Since(start), "")
			figures.add(figure{c.name + ", wire", ours, float64(p.wire()) / 1e6, "MB", "≤ rsync -z"})
			if _, err := os.Stat(peer); err != nil {
				return
			}
			start = time.Now()
			bytes := rsyncBytes(b, bed.src, peer)
			figures.took(c.name+", time", "rsync -z", time.Since(start), "")
			figures.add(figure{c.name + ", wire", "rsync -z", float64(bytes) / 1e6, "MB", ""})
			if p.wire() > bytes {
				b.Errorf("%d bytes on the wire, rsync -z %d", p.wire(), bytes)
			}
		})
	}
}

// rsyncBytes runs rsync -z by its delta algorithm and says what it sent and received.
func rsyncBytes(b *testing.B, from, to string) (sum int64) {
	out, err := exec.Command("rsync", "-az", "--no-whole-file", "--stats", from+"/", to+"/").CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for _, m := range regexp.MustCompile(`Total bytes (?:sent|received): ([\d,]+)`).FindAllSubmatch(out, -1) {
		n, err := strconv.ParseInt(strings.ReplaceAll(string(m[1]), ",", ""), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += n
	}
	return sum
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func binarySize() int { return size(64<<20, 512<<20) }

func oldBinary(dir string) {
	rnd := rand.NewChaCha8([32]byte{1})
	content := make([]byte, binarySize())
	_, _ = rnd.Read(content) // never fails
	check(os.WriteFile(filepath.Join(dir, "firmware.bin"), content, 0o644))
}

func editBinary(dir string) {
	file := filepath.Join(dir, "firmware.bin")
	content, err := os.ReadFile(file)
	check(err)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		copy(content[rnd.IntN(len(content)-100):], "here somebody has edited some bytes")
	}
	more := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(more)
	at := len(content) / 3
	check(os.WriteFile(file, bytes.Join([][]byte{content[:at], more, content[at:]}, nil), 0o644))
}

func xmlParams() gen.Params {
	return gen.Params{Seed: 9, Configs: 2000, Archives: 20, Archive: size(int64(1<<20), 4<<20)}
}

func oldXML(dir string) {
	_, _, err := gen.WriteTo(dir, gen.Tree(xmlParams()))
	check(err)
}

func editXML(dir string) {
	for i := range 200 {
		f := gen.Config(xmlParams(), i*10)
		lines := bytes.Split(f.Data, []byte("\n"))
		lines[len(lines)/2] = fmt.Appendf(nil, "    <!-- in the middle another line: %d -->", i)
		check(os.WriteFile(filepath.Join(dir, f.Path), bytes.Join(lines, []byte("\n")), 0o644))
	}
}

// war writes a web application of entries that compress to a half. Of every so
// manieth a line in the middle is another one; -1: of none.
func war(dir string, every int) {
	f, err := os.Create(filepath.Join(dir, "gateway.war"))
	check(err)
	z := zip.NewWriter(f)
	rnd := rand.New(rand.NewPCG(7, 7))
	const letters = "abcdefghijklmnopqrstuvwxyz<>/=\"\n  "
	for i := range size(3_700, 28_000) {
		content := make([]byte, 4<<10+rnd.IntN(52<<10))
		for k := range content {
			if content[k] = letters[rnd.IntN(len(letters))]; k%7 == 0 {
				content[k] = byte(rnd.Uint32())
			}
		}
		if every > 0 && i%every == 0 {
			copy(content[len(content)/2:], fmt.Sprintf("edited %d", i))
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("WEB-INF/classes/org/example/C%d.class", i), Method: zip.Deflate,
			Modified: time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)})
		check(err)
		_, err = w.Write(content)
		check(err)
	}
	check(z.Close())
	check(f.Close())
}
