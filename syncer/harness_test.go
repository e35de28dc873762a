package syncer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
	"github.com/gatesync/gatesync/vfs/errorfs"
)

// hub is a log of one process: it orders what the nodes of a test propose, by
// the rules that the machine has for single changes.
type hub struct {
	mu      sync.Mutex
	tree    *manifest.Manifest
	commits []manifest.Commit
	watch   []chan struct{}
	refuse  error // of Propose, while set
	mute    bool  // proposals are committed and not answered
	replay  int   // how many commits nodes see, as if their log were read only so far; 0: all
	views   int   // how often a view was asked for
	stores  []*blob.Store
}

func newHub() *hub { return &hub{tree: manifest.New()} }

func (h *hub) revision() manifest.Revision { return manifest.Revision(len(h.commits)) }

func (h *hub) commit(c manifest.Changeset) manifest.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	var res manifest.Result
	commit := manifest.Commit{Revision: h.revision() + 1, ID: c.ID, Tree: c.Tree, Origin: c.Origin, Time: c.Time}
	for _, deletes := range []bool{true, false} {
		for _, ch := range c.Changes {
			if ch.New.Absent() != deletes {
				continue
			}
			old, _ := h.tree.Get(ch.Path)
			parent := ch.Path.Dir() == "" || h.tree.Entry(ch.Path.Dir()).IsDir()
			switch {
			case old.Entry.Same(ch.New):
			case old.Revision != ch.Expect:
				res.Refused = append(res.Refused, manifest.Refusal{Path: ch.Path, Reason: manifest.Conflict, Current: old.Revision})
			case deletes && h.tree.HasChildren(ch.Path):
				res.Refused = append(res.Refused, manifest.Refusal{Path: ch.Path, Reason: manifest.NotEmpty, Current: old.Revision})
			case !deletes && !parent:
				res.Refused = append(res.Refused, manifest.Refusal{Path: ch.Path, Reason: manifest.NoParent, Current: old.Revision})
			default:
				if deletes {
					h.tree.Delete(ch.Path)
				} else {
					h.tree.Set(ch.Path, manifest.Node{Entry: ch.New, Revision: commit.Revision, Author: c.ID.Node})
				}
				commit.Changes = append(commit.Changes, manifest.Committed{Path: ch.Path, Old: old, New: ch.New})
			}
		}
	}
	if len(commit.Changes) > 0 {
		h.commits = append(h.commits, commit)
		res.Revision = commit.Revision
	}
	res.AsOf = h.revision()
	for _, ch := range h.watch {
		token(ch)
	}
	return res
}

// node is one node's view of a hub; it implements Log and Carrier.
type node struct {
	*hub
	id    string
	store *blob.Store
	late  atomic.Bool // the log is still read
}

func (n *node) CaughtUp() bool { return !n.late.Load() }

func (n *node) View(string) (manifest.View, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.views++
	if n.replay == 0 {
		return manifest.View{Tree: "t", Revision: n.revision(), Manifest: n.tree.Clone()}, true
	}
	v := manifest.View{Tree: "t", Revision: manifest.Revision(n.replay), Manifest: manifest.New()}
	for _, c := range n.commits[:n.replay] {
		for _, ch := range c.Changes {
			if ch.New.Absent() {
				v.Manifest.Delete(ch.Path)
			} else {
				v.Manifest.Set(ch.Path, manifest.Node{Entry: ch.New, Revision: c.Revision, Author: c.ID.Node})
			}
		}
	}
	return v, true
}

// replayed sets how far nodes have read the log.
func (h *hub) replayed(commits int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.replay, h.views = commits, 0
	for _, ch := range h.watch {
		token(ch)
	}
}

func (h *hub) wasRead() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.views > 0
}

func (n *node) Since(_ string, after manifest.Revision) ([]manifest.Commit, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]manifest.Commit(nil), n.commits[min(int(after), len(n.commits)):]...), true
}

func (n *node) Watch() (<-chan struct{}, func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := make(chan struct{}, 1)
	n.watch = append(n.watch, ch)
	return ch, func() {}
}

func (n *node) Propose(ctx context.Context, c manifest.Changeset) (manifest.Result, error) {
	n.mu.Lock()
	refuse, mute := n.refuse, n.mute
	n.mu.Unlock()
	if mute {
		c.ID.Node = n.id
		n.commit(c)
		<-ctx.Done()
		return manifest.Result{}, ctx.Err()
	}
	if refuse != nil {
		return manifest.Result{}, refuse
	}
	c.ID.Node = n.id
	return n.commit(c), nil
}

func (n *node) Spread(context.Context, []manifest.BlobRef, manifest.Bases) ([]manifest.Receipt, error) {
	return nil, nil
}

func (n *node) Fetch(_ context.Context, blobs []manifest.BlobRef, _ manifest.Bases, done func(manifest.Digest, error)) error {
	n.mu.Lock()
	stores := n.stores
	n.mu.Unlock()
	for _, ref := range blobs {
		done(ref.Digest, fetchFrom(stores, n.store, ref))
	}
	return nil
}

func fetchFrom(stores []*blob.Store, to *blob.Store, ref manifest.BlobRef) error {
	for _, st := range stores {
		if r, err := st.Open(ref.Digest); err == nil {
			err = to.PutKnown(ref, r)
			return errors.Join(err, r.Close())
		}
	}
	return fmt.Errorf("nobody has %s", ref.Digest.Short())
}

// box is one node of a test: a directory with root and records, and the Syncer
// that is running on it, if any.
type box struct {
	t      *testing.T
	dir    string
	root   string
	node   *node
	inject errorfs.Injector // of the next start
	change func(*Config)
	cfg    Config

	s    *Syncer
	stop context.CancelFunc
	done chan struct{}
}

func newBox(t *testing.T, h *hub, id string) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t, dir: dir, root: filepath.Join(dir, "root"), change: func(*Config) {}}
	st, err := blob.Open(filepath.Join(dir, "blobs"), blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	h.mu.Lock()
	h.stores = append(h.stores, st)
	h.mu.Unlock()
	b.node = &node{hub: h, id: id, store: st}
	if err := os.MkdirAll(b.root, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.halt)
	return b
}

func (b *box) openRoot() (vfs.FS, error) {
	r, err := vfs.OpenRoot(b.root, vfs.Options{})
	if err != nil {
		return nil, err
	}
	if b.inject != nil {
		return errorfs.Wrap(r, b.inject), nil
	}
	return r, nil
}

// open opens a Syncer without running it.
func (b *box) open() *Syncer {
	b.t.Helper()
	b.cfg = Config{
		Self: b.node.id, Tree: "t", ClusterID: "c-1", TreeID: "t-1", Generation: 1,
		OpenRoot: b.openRoot, Records: filepath.Join(b.dir, "t.db"),
		Blobs: b.node.store, Carrier: b.node, Log: b.node, BootID: "boot-1",
	}
	if testing.Verbose() {
		b.cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", b.node.id)
	}
	b.change(&b.cfg)
	s, err := Open(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *box) start() *box {
	b.t.Helper()
	return b.startWith(func(*Syncer) {})
}

// startWith lets a test change the Syncer before it runs.
func (b *box) startWith(change func(*Syncer)) *box {
	b.t.Helper()
	b.s = b.open()
	change(b.s)
	ctx, cancel := context.WithCancel(context.Background())
	b.stop, b.done = cancel, make(chan struct{})
	go func() {
		defer close(b.done)
		if err := b.s.Run(ctx); err != nil {
			b.t.Error(err)
		}
	}()
	return b
}

func (b *box) halt() {
	if b.stop == nil {
		return
	}
	b.stop()
	<-b.done
	if err := b.s.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		b.t.Error(err)
	}
	b.stop = nil
}

func (b *box) path(p string) string { return filepath.Join(b.root, p) }

func (b *box) write(p, content string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(b.path(p)), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(b.path(p), []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) remove(p string) {
	b.t.Helper()
	if err := os.RemoveAll(b.path(p)); err != nil {
		b.t.Fatal(err)
	}
}

// patience ends a test that hangs: no machine is so busy.
const patience = 3 * time.Minute

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// settle waits until nothing is under way.
func (b *box) settle() {
	b.t.Helper()
	if err := b.s.Settle(ctxOf(b.t)); err != nil {
		st, _ := b.s.Status(context.Background())
		b.t.Fatalf("settle: %v; status %+v", err, st)
	}
}

// until waits until cond holds. It is asked again after every round of the
// loop, and now and then besides.
func (b *box) until(what string, cond func() bool) {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		next := b.s.rounds.next()
		if cond() {
			return
		}
		select {
		case <-next:
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			st, _ := b.s.Status(context.Background())
			b.t.Fatalf("never: %s; tree %v; status %+v", what, b.tree(), st)
		}
	}
}

// has waits until p holds content.
func (b *box) has(p, content string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s holds %q", p, content), func() bool { return b.read(p) == content })
}

func (b *box) gone(p string) {
	b.t.Helper()
	b.until(p+" is gone", func() bool {
		_, err := os.Lstat(b.path(p))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// read returns a file's content, "<err>" where there is none.
func (b *box) read(p string) string {
	c, err := os.ReadFile(b.path(p))
	if err != nil {
		return "<" + err.Error() + ">"
	}
	return string(c)
}

// tree describes everything that stands in the root.
func (b *box) tree() map[string]string {
	out := map[string]string{}
	_ = filepath.WalkDir(b.root, func(p string, d fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(strings.TrimPrefix(p, b.root), "/")
		if err != nil || rel == "" {
			return err
		}
		if rel == manifest.MarkerDir {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			out[rel] = fmt.Sprintf("dir %o", info.Mode().Perm())
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			out[rel] = "-> " + target
		default:
			out[rel] = fmt.Sprintf("%o %s", info.Mode().Perm(), b.read(rel))
		}
		return nil
	})
	return out
}

// committed waits until the log holds content at p.
func (h *hub) committed(t *testing.T, p, content string) {
	t.Helper()
	want := manifest.DigestOf([]byte(content))
	h.await(t, fmt.Sprintf("%s is committed with %q", p, content), func(m *manifest.Manifest) bool {
		return m.Entry(manifest.Path(p)).Digest == want
	})
}

func (h *hub) await(t *testing.T, what string, cond func(*manifest.Manifest) bool) {
	t.Helper()
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	h.watch = append(h.watch, ch)
	h.mu.Unlock()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		ok := cond(h.tree)
		h.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-ch:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// put commits content as if another node had proposed it.
func (h *hub) put(t *testing.T, p, content string) {
	t.Helper()
	h.mu.Lock()
	store := h.stores[0]
	old, _ := h.tree.Get(manifest.Path(p))
	h.mu.Unlock()
	ref, err := store.PutBytes([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	h.change(t, manifest.Change{Path: manifest.Path(p), Expect: old.Revision, New: manifest.Entry{
		Kind: manifest.File, Mode: 0o644, Size: ref.Size, Digest: ref.Digest,
	}})
}

// drop commits the removal of p as if another node had proposed it.
func (h *hub) drop(t *testing.T, p string) {
	t.Helper()
	h.mu.Lock()
	old, _ := h.tree.Get(manifest.Path(p))
	h.mu.Unlock()
	h.change(t, manifest.Change{Path: manifest.Path(p), Expect: old.Revision})
}

func (h *hub) change(t *testing.T, changes ...manifest.Change) {
	t.Helper()
	res := h.commit(manifest.Changeset{ID: manifest.ChangesetID{Node: "elsewhere"}, Tree: "t", Changes: changes})
	if len(res.Refused) > 0 {
		t.Fatalf("refused: %+v", res.Refused)
	}
}

func conflictsOf(t *testing.T, b *box) []Conflict {
	t.Helper()
	all, err := b.s.Conflicts()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func contentOf(t *testing.T, b *box, id string) string {
	t.Helper()
	r, err := b.s.ConflictContent(id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(c)
}

// wrote counts the revisions.
func (h *hub) wrote() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.commits)
}
