package node

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// shelf is a log with a history, beside a real blob store.
type shelf struct {
	t       *testing.T
	dir     string
	blobs   *blob.Store
	nodes   *manifest.Manifest
	rev     manifest.Revision
	commits []manifest.Commit
	oldest  manifest.Revision
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{t: t, dir: t.TempDir(), nodes: manifest.New(), oldest: 1}
	var err error
	if s.blobs, err = blob.Open(s.dir, blob.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.blobs.Close() })
	return s
}

func (s *shelf) View(tree string) (manifest.View, bool) {
	return manifest.View{Tree: tree, Revision: s.rev, Manifest: s.nodes.Clone()}, tree == "server"
}

func (s *shelf) Since(_ string, after manifest.Revision) ([]manifest.Commit, bool) {
	return s.commits[after:], after+1 >= s.oldest
}
func (s *shelf) Oldest() manifest.Revision     { return s.oldest }
func (s *shelf) Trees() []raftstore.TreeInfo   { return []raftstore.TreeInfo{{Name: "server"}} }
func (s *shelf) put(content string) (ok error) { _, ok = s.blobs.PutBytes([]byte(content)); return ok }

// commit is one revision of one file; content "" deletes it.
func (s *shelf) commit(p manifest.Path, content string, held bool) {
	s.t.Helper()
	s.rev++
	ch := manifest.Committed{Path: p}
	ch.Old, _ = s.nodes.Get(p)
	if content == "" {
		s.nodes.Delete(p)
	} else {
		ch.New = manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: int64(len(content)), Digest: manifest.DigestOf([]byte(content))}
		s.nodes.Set(p, manifest.Node{Entry: ch.New, Revision: s.rev})
		if held {
			if err := s.put(content); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	s.commits = append(s.commits, manifest.Commit{Revision: s.rev, Tree: "server", Changes: []manifest.Committed{ch}})
}

// outcome is what a stream of events comes to.
type outcome struct {
	head    *pb.MaterializeHead
	files   map[string]string
	missing []string
}

func (s *shelf) materialize(req *pb.MaterializeRequest, fetch func(context.Context, []manifest.BlobRef)) (outcome, error) {
	s.t.Helper()
	out := outcome{files: map[string]string{}}
	var path string
	var content bytes.Buffer
	m := materializing{log: s, blobs: s.blobs, fetch: fetch, send: func(ev *pb.MaterializeEvent) error {
		switch of := ev.GetOf().(type) {
		case *pb.MaterializeEvent_Head:
			out.head = of.Head
		case *pb.MaterializeEvent_Missing:
			out.missing = append(out.missing, string(of.Missing.GetPath()))
		case *pb.MaterializeEvent_Entry:
			path = string(of.Entry.GetPath())
			content.Reset()
		case *pb.MaterializeEvent_Data:
			content.Write(of.Data)
		case *pb.MaterializeEvent_Whole:
			if of.Whole {
				out.files[path] = content.String()
			}
		}
		return nil
	}}
	req.Tree = "server"
	err := m.run(s.t.Context(), req, &pb.MaterializeHead{})
	return out, err
}

func TestMaterializeRevisions(t *testing.T) {
	s := newShelf(t)
	large := strings.Repeat("large ", 200_000) // several pieces
	s.commit("a", "one", true)
	s.commit("b", large, true)
	s.commit("a", "two", true)
	s.commit("b", "", true)
	for rev, want := range map[uint64]map[string]string{
		1: {"a": "one"}, 2: {"a": "one", "b": large}, 3: {"a": "two", "b": large}, 4: {"a": "two"}, 0: {"a": "two"},
	} {
		got, err := s.materialize(&pb.MaterializeRequest{Revision: rev}, nil)
		if err != nil || len(got.files) != len(want) || got.head.GetEntries() != uint64(len(want)) {
			t.Fatalf("revision %d: %d files, want %d (%v)", rev, len(got.files), len(want), err)
		}
		for p, c := range want {
			if got.files[p] != c {
				t.Errorf("revision %d: %s has %d bytes, want %d", rev, p, len(got.files[p]), len(c))
			}
		}
	}
	s.oldest = 3
	for rev, says := range map[uint64]string{1: "the oldest that can be had is 2", 5: "its newest is 4"} {
		if _, err := s.materialize(&pb.MaterializeRequest{Revision: rev}, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("revision %d: %v, want %q", rev, err, says)
		}
	}
}

func TestMaterializeFetchesOrNames(t *testing.T) {
	s := newShelf(t)
	s.commit("here", "x", true)
	s.commit("there", "y", false)
	s.commit("nowhere", "z", false)
	fetch := func(_ context.Context, refs []manifest.BlobRef) {
		if len(refs) != 2 {
			t.Errorf("asked for %d blobs", len(refs))
		}
		if err := s.put("y"); err != nil {
			t.Error(err)
		}
	}
	got, err := s.materialize(&pb.MaterializeRequest{}, fetch)
	if err != nil || !slices.Equal(got.missing, []string{"nowhere"}) || len(got.files) != 0 {
		t.Errorf("%v: missing %q, files %q; nothing may come while content is missing", err, got.missing, got.files)
	}
	got, err = s.materialize(&pb.MaterializeRequest{Partial: true}, nil)
	if err != nil || !slices.Equal(got.missing, []string{"nowhere"}) || len(got.files) != 2 {
		t.Errorf("%v: missing %q, files %q", err, got.missing, got.files)
	}
}

// Content that is damaged on this disk never comes out: it is fetched again, or
// named.
func TestMaterializeDamage(t *testing.T) {
	for _, fetched := range []bool{true, false} {
		s := newShelf(t)
		content := strings.Repeat("precious ", 1000)
		s.commit("a", content, true)
		if err := s.blobs.Flush(); err != nil {
			t.Fatal(err)
		}
		packs, err := filepath.Glob(filepath.Join(s.dir, "packs", "*"))
		if err != nil || len(packs) != 1 {
			t.Fatalf("%q, %v", packs, err)
		}
		b, err := os.ReadFile(packs[0])
		if err != nil {
			t.Fatal(err)
		}
		b[bytes.Index(b, []byte("precious"))+5000] ^= 1
		if err := os.WriteFile(packs[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		asked := 0
		got, err := s.materialize(&pb.MaterializeRequest{}, func(context.Context, []manifest.BlobRef) {
			if asked++; fetched {
				if err := s.put(content); err != nil {
					t.Error(err)
				}
			}
		})
		if err != nil || asked != 1 {
			t.Fatalf("%v; asked %d times", err, asked)
		}
		if fetched && (got.files["a"] != content || len(got.missing) > 0) {
			t.Errorf("missing %q, %d files", got.missing, len(got.files))
		}
		if !fetched && (len(got.files) > 0 || !slices.Equal(got.missing, []string{"a"})) {
			t.Errorf("missing %q, %d files", got.missing, len(got.files))
		}
	}
}
