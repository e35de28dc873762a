package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// library is a log, a blob store and the rest of the cluster in one: what the
// keeper sees of the world.
type library struct {
	mu      sync.Mutex
	news    chan struct{}
	commits []manifest.Commit
	view    *manifest.Manifest
	oldest  manifest.Revision
	here    map[manifest.Digest]bool
	there   map[manifest.Digest]bool
	asked   [][]manifest.BlobRef
	bases   []manifest.Bases         // of these
	busy    map[manifest.Digest]bool // somebody else fetches it
	flushed int
	full    bool // there is no room for what would come
}

func newLibrary() *library {
	return &library{
		news: make(chan struct{}, 1), view: manifest.New(), oldest: 1,
		here: map[manifest.Digest]bool{}, there: map[manifest.Digest]bool{}, busy: map[manifest.Digest]bool{},
	}
}

func (l *library) Watch() (<-chan struct{}, func()) { return l.news, func() {} }
func (l *library) Trees() []raftstore.TreeInfo      { return []raftstore.TreeInfo{{Name: "server"}} }

func (l *library) Revision() manifest.Revision {
	l.mu.Lock()
	defer l.mu.Unlock()
	return manifest.Revision(len(l.commits))
}

func (l *library) Oldest() manifest.Revision {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.oldest
}

func (l *library) View(string) (manifest.View, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return manifest.View{Manifest: l.view.Clone()}, true
}

func (l *library) History(_ string, from manifest.Revision, limit int) (out []manifest.Commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from == 0 {
		from = manifest.Revision(len(l.commits))
	}
	for r := from; r >= l.oldest && len(out) < limit; r-- {
		out = append(out, l.commits[r-1])
	}
	return out
}

func (l *library) Has(d manifest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.here[d]
}

func (l *library) Flush() error {
	l.do(func() { l.flushed++ })
	return nil
}

// do is how the test looks at it, or changes it.
func (l *library) do(what func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what()
}

// calls is how often something was fetched.
func (l *library) calls() (n int) {
	l.do(func() { n = len(l.asked) })
	return n
}

func (l *library) fetch(_ context.Context, refs []manifest.BlobRef, bases manifest.Bases, done func(manifest.Digest, error)) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, append([]manifest.BlobRef(nil), refs...))
	l.bases = append(l.bases, bases)
	for _, r := range refs {
		if !l.there[r.Digest] {
			err = errors.New("nobody has it")
			done(r.Digest, err)
			continue
		}
		if l.full {
			err = &blob.RoomError{}
			done(r.Digest, err)
			continue
		}
		l.here[r.Digest] = true
		done(r.Digest, nil)
	}
	return err
}

func (l *library) coming(d manifest.Digest) (busy bool) {
	l.do(func() { busy = l.busy[d] })
	return busy
}

// commit writes a path; its old content stays in the history.
func (l *library) commit(path, content string, everywhere bool) manifest.Digest {
	d := manifest.DigestOf([]byte(content))
	e := manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: int64(len(content)), Digest: d}
	l.mu.Lock()
	rev := manifest.Revision(len(l.commits) + 1)
	old, _ := l.view.Get(manifest.Path(path))
	l.view.Set(manifest.Path(path), manifest.Node{Entry: e, Revision: rev})
	l.commits = append(l.commits, manifest.Commit{Revision: rev, Tree: "server", Changes: []manifest.Committed{{Path: manifest.Path(path), Old: old, New: e}}})
	l.there[d], l.here[d] = true, everywhere
	l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
	return d
}

func keep(t *testing.T, l *library) *keeper {
	k := &keeper{log: l, blobs: l, fetch: l.fetch, coming: l.coming, logger: quiet()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = k.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}

func TestPromise_NoLoss_KeeperBringsManifestAndHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary()
		for _, text := range []string{"one", "two", "three"} {
			l.commit("a.xml", text, false) // two of them only in the history
		}
		k := keep(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if k.content() != 0 {
			t.Fatal("complete before anything came")
		}
		if err := k.waitContent(ctx, 3); err != nil {
			t.Fatal(err)
		}
		l.do(func() {
			if len(l.asked) != 1 || len(l.asked[0]) != 3 || l.flushed == 0 || k.missing.Load() != 0 {
				t.Errorf("asked %v, flushed %d, missing %d", l.asked, l.flushed, k.missing.Load())
			}
		})
		// What the author has pushed is not fetched, nor what somebody fetches.
		l.commit("b.xml", "pushed", true)
		d := l.commit("c.xml", "by the tree", false)
		l.do(func() { l.busy[d] = true })
		time.Sleep(5 * time.Second)
		if l.calls() != 1 || k.content() != 4 || k.missing.Load() != 1 { // under load the newest is always on its way
			t.Errorf("fetched %d times, content %d, missing %d", l.calls(), k.content(), k.missing.Load())
		}
		l.do(func() { l.here[d] = true })
		if err := k.waitContent(ctx, 5); err != nil {
			t.Fatal(err)
		}
		if l.calls() != 1 {
			t.Error("fetched what came by itself")
		}
	})
}

// What nobody has now is asked for until somebody has it, or the history lets
// go of it; a blob that is lost later is found missing by the slow round.
// What it fetches comes as what differs from the version before, where that is
// here, else from the one after, which comes first.
func TestKeeperNamesTheBases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary()
		first := l.commit("a", "first", false)
		second := l.commit("a", "second", true)
		third := l.commit("a", "third", false)
		fourth := l.commit("a", "fourth", false)
		fifth := l.commit("a", "fifth", false)
		l.commit("b", "alone", false)
		keep(t, l)
		time.Sleep(5 * time.Second)
		l.do(func() {
			want := manifest.Bases{first: second, third: second, fourth: fifth}
			if len(l.bases) != 1 || !maps.Equal(l.bases[0], want) {
				t.Errorf("%v, want %v", l.bases, want)
			}
		})
	})
}

func TestKeeperGoesOnUntilItIsThereOrTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary()
		gone := l.commit("a.xml", "gone", false)
		l.there[gone] = false
		l.commit("a.xml", "new", false)
		k := keep(t, l)
		time.Sleep(2 * time.Minute)
		if k.content() != 0 || k.missing.Load() != 1 || l.calls() < 4 {
			t.Fatalf("content %d, missing %d, asked %d times", k.content(), k.missing.Load(), l.calls())
		}
		l.do(func() { l.oldest = 3 }) // of two: the history is trimmed
		time.Sleep(time.Minute)
		if k.content() != 2 || k.missing.Load() != 0 {
			t.Fatalf("content %d, missing %d after the history let go", k.content(), k.missing.Load())
		}
		asked := l.calls()
		lost := manifest.DigestOf([]byte("new"))
		l.do(func() { l.here[lost] = false })
		time.Sleep(keepEvery + time.Minute)
		if !l.Has(lost) || l.calls() != asked+1 {
			t.Errorf("a lost blob was not brought back: asked %d times more", l.calls()-asked)
		}
	})
}

// What nobody has is named, with what it stands for, and no longer once it came.
func TestKeeperNamesWhatNobodyHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary()
		gone := l.commit("conf/a\n.xml", "gone", false)
		l.there[gone] = false
		k := keep(t, l)
		if time.Sleep(10 * time.Second); k.content() != 0 {
			t.Fatal("complete without it")
		}
		want := []string{"blob " + gone.Short() + " of server: conf/a\ufffd.xml (revision 1, current)"}
		if got := k.lacking(); !slices.Equal(got, want) {
			t.Errorf("lacks %q, want %q", got, want)
		}
		s := &localService{self: "n-1", nowhere: k.lacking}
		if why := s.lacks("n-1", "gw1"); len(why) != 1 || !strings.Contains(why[0], "gw1 lacks "+want[0]) {
			t.Errorf("wait says %q", why)
		}
		l.do(func() { l.there[gone] = true })
		if time.Sleep(time.Minute); k.content() != 1 || len(k.lacking()) > 0 {
			t.Errorf("content %d, lacks %q", k.content(), k.lacking())
		}
	})
}

// What others have, and there is no room for here, is not said to be nowhere.
func TestKeeperWithoutRoomNamesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary()
		l.full = true
		l.commit("conf/a.xml", "a", false)
		k := keep(t, l)
		if time.Sleep(10 * time.Second); k.missing.Load() != 1 || len(k.lacking()) > 0 {
			t.Errorf("missing %d, lacks %q", k.missing.Load(), k.lacking())
		}
		l.do(func() { l.full = false })
		if time.Sleep(time.Minute); k.content() != 1 {
			t.Errorf("content %d once there is room", k.content())
		}
	})
}

// Another member's names are bounded and plain.
func TestWhatAMemberLacksIsBounded(t *testing.T) {
	p := &peers{self: "n-1", now: time.Now, strangers: func() bool { return false }, heard: map[cluster.NodeID]*heard{}}
	state := &pb.NodeState{Id: "n-2", Lacks: []string{strings.Repeat("ä", maxLack), "\x1b[2J", "", "", "", "", ""}}
	if err := p.hear("n-2", state, nil); err != nil {
		t.Fatal(err)
	}
	h, _ := p.last("n-2")
	got := h.state.GetLacks()
	if len(got) != namedAtMost || len(got[0]) != maxLack || got[1] != "\ufffd[2J" {
		t.Errorf("%d, the first of %d bytes, then %q", len(got), len(got[0]), got[1:])
	}
}
