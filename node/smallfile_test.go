package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/transport"
)

// eachDamage calls try with a file flipped at each byte, and cut there.
func eachDamage(t *testing.T, file string, try func(what string, at int)) {
	t.Helper()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		flipped := slices.Clone(whole)
		flipped[i] ^= 1 << (i % 7)
		for what, b := range map[string][]byte{"flipped": flipped, "cut": whole[:i]} {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			try(what, i)
		}
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedNodeFileIsNobody: who a node is is read as written, or refused
// with what to do.
func TestDamagedNodeFileIsNobody(t *testing.T) {
	d := dataDir(t.TempDir())
	want := nodeFile{Format: nodeFileFormat, Node: "n-1", Name: "gw1", Cluster: "c-1", Address: "10.0.0.1:7946", Epoch: 3, Trees: []treeFile{{Name: "server", ID: "t-1", Generation: 1}}}
	if err := d.writeNode(want); err != nil {
		t.Fatal(err)
	}
	refused := 0
	eachDamage(t, d.nodeFile(), func(what string, at int) {
		got, err := d.readNode()
		switch {
		case err == nil && reflect.DeepEqual(got, want):
		case err != nil && strings.Contains(err.Error(), d.nodeFile()) && strings.Contains(err.Error(), "--again"):
			refused++
		default:
			t.Fatalf("%s at %d: %+v, %v", what, at, got, err)
		}
	})
	if refused == 0 {
		t.Error("no damage was noticed")
	}
}

// TestDamagedBookIsLearnedAnew: an address is never read otherwise than it was
// written.
func TestDamagedBookIsLearnedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	openBook(path, quiet()).learn(cluster.Member{ID: "n-1", Name: "gw1", Address: "10.0.0.1:7946", Epoch: 2})
	eachDamage(t, path, func(what string, at int) {
		for _, m := range openBook(path, quiet()).members() {
			if m.ID != "n-1" || m.Address != "10.0.0.1:7946" || m.Epoch != 2 {
				t.Fatalf("%s at %d: read %+v", what, at, m)
			}
		}
	})
}

// TestDamagedIdentityIsRefused: certificates and key are as they were, or the
// error names a file.
func TestDamagedIdentityIsRefused(t *testing.T) {
	caPEM, caKey, err := transport.NewCA("c-1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := transport.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := (transport.CA{ClusterID: "c-1", Cert: caPEM, Key: caKey}).Sign(csr, "n-1", "gw1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files := dataDir(t.TempDir()).tls()
	if err := transport.WriteIdentity(files, caPEM, cert, key); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{files.CA, files.Cert, files.Key} {
		eachDamage(t, file, func(what string, at int) {
			id, err := transport.LoadIdentity(files)
			if err != nil && !strings.Contains(err.Error(), filepath.Dir(file)) {
				t.Fatalf("%s %s at %d: %v", file, what, at, err)
			}
			if err == nil && !bytes.Equal(id.IssuerPEM(), caPEM) {
				t.Fatalf("%s %s at %d: another CA", file, what, at)
			}
		})
	}
}

// TestRetireLeavesNobody: whatever comes next, the former self is gone first.
func TestRetireLeavesNobody(t *testing.T) {
	d := dataDir(t.TempDir())
	if err := errors.Join(d.writeNode(nodeFile{Node: "n-1"}), os.Mkdir(d.raft(), 0o700)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // an interrupted one is taken up
		if err := d.retire(time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := d.vacant(); err != nil {
			t.Errorf("the former node is still there: %v", err)
		}
	}
	kept, err := filepath.Glob(d.join("*.old-*"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept %q %v", kept, err)
	}
}

// A data directory that a package or a mount has made is closed to others.
func TestDataDirectoryIsClosed(t *testing.T) {
	g := newGateway(t, "gw1")
	if err := errors.Join(os.MkdirAll(g.cfg.DataDir, 0o755), os.Chmod(g.cfg.DataDir, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), g.cfg); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(g.cfg.DataDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
