package gen

import (
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// Params says how large a tree is. The zero value is an empty tree.
type Params struct {
	Seed      uint64
	Configs   int   // text files in all: XML for the most part, nginx and Envoy for a tenth each
	MinConfig int   // bytes of a config, at least; 0: 2 KiB
	MaxConfig int   // bytes of a config, at most; 0: 12 KiB
	Archives  int   // .car and .war files
	Archive   int64 // bytes of an archive, roughly; 0: 1 MiB
}

// File is one file of a tree. Path is relative and slash-separated.
type File struct {
	Path string
	Mode fs.FileMode
	Data []byte
}

// Tree yields the files of a tree, configs first, in a fixed order.
func Tree(p Params) iter.Seq[File] {
	return func(yield func(File) bool) {
		for i := range p.Configs {
			if !yield(Config(p, i)) {
				return
			}
		}
		for i := range p.Archives {
			if !yield(Archive(p, i)) {
				return
			}
		}
	}
}

// Config returns the i-th config of a tree.
func Config(p Params, i int) File {
	lo, hi := p.MinConfig, p.MaxConfig
	if lo == 0 {
		lo = 2 << 10
	}
	if hi == 0 {
		hi = 12 << 10
	}
	rng := random(p.Seed, 1, i)
	size := lo + rng.IntN(max(hi-lo, 0)+1)
	name := apiName(i)
	f := File{Mode: 0o644}
	switch {
	case i%10 == 8:
		f.Path = fmt.Sprintf("nginx/conf.d/%s.conf", name)
		f.Data = nginx(rng, name, size)
	case i%10 == 9:
		f.Path = fmt.Sprintf("envoy/%02d/%s.yaml", i/10%20, name)
		f.Data = envoy(rng, name, size)
	case i%4 == 0:
		f.Path = fmt.Sprintf("synapse-configs/default/endpoints/%s_EP.xml", name)
		f.Data = endpoint(rng, name, size)
	case i%4 == 1:
		f.Path = fmt.Sprintf("synapse-configs/default/sequences/%s_In.xml", name)
		f.Data = sequence(rng, name, size)
	case i%4 == 2:
		f.Path = fmt.Sprintf("synapse-configs/default/api/admin--%s_v1.xml", name)
		f.Data = api(rng, name, size)
	default:
		f.Path = fmt.Sprintf("tenants/%d/synapse-configs/default/api/tenant--%s_v2.xml", i%7+1, name)
		f.Data = api(rng, name, size)
	}
	return f
}

// Edit returns the file with a line added, as a person with an editor would:
// a comment in the file's own language that bears n.
func Edit(f File, n int) File {
	form := "<!-- edited %d -->\n"
	if ext := path.Ext(f.Path); ext == ".conf" || ext == ".yaml" {
		form = "# edited %d\n"
	}
	f.Data = fmt.Appendf(slices.Clip(f.Data), form, n)
	return f
}

// WriteTo writes the files below dir, each in place and without flushing, as
// most tools do. It makes the directories that are missing.
func WriteTo(dir string, files iter.Seq[File]) (count int, bytes int64, err error) {
	made := map[string]bool{}
	for f := range files {
		p := filepath.Join(dir, filepath.FromSlash(f.Path))
		if d := filepath.Dir(p); !made[d] {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return count, bytes, err
			}
			made[d] = true
		}
		if err := os.WriteFile(p, f.Data, f.Mode); err != nil {
			return count, bytes, err
		}
		count++
		bytes += int64(len(f.Data))
	}
	return count, bytes, nil
}

// random gives each file a stream of its own, so that it does not depend on
// the files before it.
func random(seed, kind uint64, i int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, kind<<32|uint64(i)))
}

var (
	domains = []string{"Order", "Payment", "Customer", "Catalog", "Shipment", "Invoice", "Account", "Loyalty", "Weather", "Claims"}
	verbs   = []string{"Query", "Update", "Search", "Notify", "Sync", "Quote", "Track", "Approve"}
)

func apiName(i int) string {
	return fmt.Sprintf("%s%s%05d", domains[i%len(domains)], verbs[i/len(domains)%len(verbs)], i)
}

func pick(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }
