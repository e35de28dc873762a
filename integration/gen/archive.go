package gen

import (
	"archive/zip"
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"
)

// Archive returns the i-th archive of a tree: Carbon applications and web
// applications in turn.
func Archive(p Params, i int) File {
	size := p.Archive
	if size == 0 {
		size = 1 << 20
	}
	rng := random(p.Seed, 2, i)
	if i%2 == 0 {
		name := fmt.Sprintf("%sBundle_1.0.%d", pick(rng, domains), i)
		return File{Path: "carbonapps/" + name + ".car", Mode: 0o644, Data: pack(rng, size, "artifacts.xml", name)}
	}
	name := fmt.Sprintf("%s-portal-%d", pick(rng, words), i)
	return File{Path: "jaxwebapps/" + name + ".war", Mode: 0o644, Data: pack(rng, size, "WEB-INF/web.xml", name)}
}

// built is the time that all entries bear: zips are compared byte for byte.
var built = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// pack makes a zip of about size bytes: a descriptor, some text, which is
// deflated, and classes, which look random and are stored.
func pack(rng *rand.Rand, size int64, descriptor, name string) []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	entry := func(path string, method uint16, data []byte) {
		// Writing to a bytes.Buffer cannot fail, nor can closing it below.
		w, _ := z.CreateHeader(&zip.FileHeader{Name: path, Method: method, Modified: built})
		_, _ = w.Write(data)
	}
	entry("META-INF/MANIFEST.MF", zip.Deflate, []byte("Manifest-Version: 1.0\nCreated-By: gen\n"))
	entry(descriptor, zip.Deflate, []byte("<app name=\""+name+"\"/>\n"))
	for n := 0; int64(out.Len()) < size; n++ {
		if n%4 == 0 {
			entry(fmt.Sprintf("resources/%s%d.xml", pick(rng, words), n), zip.Deflate, sequence(rng, name, 8<<10))
			continue
		}
		left := max(1, min(64<<10, size-int64(out.Len())))
		entry(fmt.Sprintf("classes/org/example/%s/C%d.class", pick(rng, words), n), zip.Store, noise(rng, int(left)))
		_ = z.Flush() // so that out.Len tells the truth
	}
	_ = z.Close()
	return out.Bytes()
}

// noise returns n bytes that do not compress.
func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		v := rng.Uint64()
		b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
	}
	return b[:n]
}
