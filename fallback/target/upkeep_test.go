package target_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// clusterModel is a cluster's log and content, as Upkeep sees them.
type clusterModel struct {
	mu       sync.Mutex
	revision manifest.Revision
	trees    map[string]*manifest.Manifest
	commits  []manifest.Commit
	content  map[manifest.Digest][]byte
	targets  []cluster.Target
	news     chan struct{}
	opened   int // contents that were read
}

func newClusterModel(trees ...string) *clusterModel {
	m := &clusterModel{trees: map[string]*manifest.Manifest{}, content: map[manifest.Digest][]byte{}, news: make(chan struct{}, 1)}
	for _, t := range trees {
		m.trees[t] = manifest.New()
	}
	return m
}

func (m *clusterModel) tell() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// commit puts a file into a tree; "" removes it.
func (m *clusterModel) commit(tree, path, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision++
	next := m.trees[tree].Clone()
	if text == "" {
		next.Delete(manifest.Path(path))
	} else {
		e := manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: int64(len(text)), Digest: manifest.DigestOf([]byte(text))}
		m.content[e.Digest] = []byte(text)
		next.Set(manifest.Path(path), manifest.Node{Entry: e, Revision: m.revision})
	}
	m.trees[tree] = next
	m.commits = append(m.commits, manifest.Commit{Revision: m.revision, Tree: tree})
	m.tell()
}

// aim replaces the targets.
func (m *clusterModel) aim(targets ...cluster.Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.targets = targets
	m.tell()
}

func (m *clusterModel) Targets() []cluster.Target {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.targets
}

func (m *clusterModel) Trees() (out []raftstore.TreeInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.trees {
		out = append(out, raftstore.TreeInfo{Name: name})
	}
	return out
}

func (m *clusterModel) View(tree string) (manifest.View, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.trees[tree]
	return manifest.View{Tree: tree, Revision: m.revision, Manifest: t}, ok
}

func (m *clusterModel) Since(tree string, after manifest.Revision) (out []manifest.Commit, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.commits {
		if c.Tree == tree && c.Revision > after {
			out = append(out, c)
		}
	}
	return out, true
}

func (m *clusterModel) Revision() manifest.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

func (m *clusterModel) Incarnation() cluster.Incarnation { return cluster.FirstIncarnation }
func (m *clusterModel) Watch() (<-chan struct{}, func()) { return m.news, func() {} }

func (m *clusterModel) open(d manifest.Digest) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.content[d]
	if !ok {
		return nil, errors.New("not here")
	}
	m.opened++
	return io.NopCloser(bytes.NewReader(b)), nil
}

// town is a cluster model, its Upkeep, and what stands at the addresses.
type town struct {
	t  *testing.T
	m  *clusterModel
	up *target.Upkeep

	mu     sync.Mutex
	at     map[string]func(conn net.Conn) error // by address; nil: nobody answers
	dialed map[string]int
	tasks  sync.WaitGroup
	end    func()
}

var errNobody = errors.New("nobody answers")

func newTown(t *testing.T, trees ...string) *town {
	w := &town{t: t, m: newClusterModel(trees...), at: map[string]func(net.Conn) error{}, dialed: map[string]int{}}
	w.up = target.NewUpkeep(target.UpkeepConfig{
		Self: "n-1", Cluster: "c-1", Version: "test", Log: w.m, Read: func() bool { return true },
		Open:   func(_ context.Context, ref manifest.BlobRef) (io.ReadCloser, error) { return w.m.open(ref.Digest) },
		Old:    w.m.open,
		Dial:   w.dial,
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.up.Run(ctx) }()
	w.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.tasks.Wait()
	})
	return w
}

func (w *town) dial(_ context.Context, addr string, _ transport.Token) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialed[addr]++
	serve := w.at[addr]
	if serve == nil {
		return nil, errNobody
	}
	here, there := net.Pipe()
	w.tasks.Go(func() { _ = serve(there) })
	return here, nil
}

func (w *town) dials(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialed[addr]
}

// settle puts something at an address; nil: nothing.
func (w *town) settle(addr string, serve func(net.Conn) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at[addr] = serve
}

// receiver is a real one, with a tree; it returns the tree's directory.
func (w *town) receiver(addr, tree string) string {
	dir := w.t.TempDir()
	dst := filepath.Join(dir, "dst")
	r, err := target.OpenReceiver(target.ReceiverConfig{DataDir: filepath.Join(dir, "data"), Trees: []config.Tree{{Name: tree, Path: dst}}, Version: "test"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = r.Close() })
	w.settle(addr, func(c net.Conn) error { return r.Serve(context.Background(), c) })
	return dst
}

func aimed(t *testing.T, name string, epoch uint64) cluster.Target {
	t.Helper()
	ca, _, err := transport.NewCA("x")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := transport.NewToken(ca)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Target{Name: name, Address: name + ":1", Delete: "held", Token: tok.String(), Pusher: "n-1", Epoch: epoch}
}

// is waits until a target is in a state.
func (w *town) is(name string, ok func(target.KeptState) bool) target.KeptState {
	w.t.Helper()
	var last []target.KeptState
	for range 3000 {
		last = w.up.States()
		for _, s := range last {
			if s.Name == name && ok(s) {
				return s
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("%s is not as it should be: %+v", name, last)
	return target.KeptState{}
}

func (w *town) current(name string) {
	w.t.Helper()
	rev := w.m.Revision()
	w.is(name, func(s target.KeptState) bool { return s.State == target.KeptCurrent && s.Revision == rev })
}

// What is committed arrives; what does not concern a target costs no connection;
// what stands there is compared from time to time all the same.
func TestUpkeepKeepsATargetCurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, "server", "other")
		defer w.end()
		dst := w.receiver("a:1", "server")
		w.m.commit("server", "x", "1")
		w.m.commit("other", "x", "1")
		a := aimed(t, "a", 1)
		a.Trees = []string{"server"}
		w.m.aim(a)
		w.current("a")
		w.m.commit("server", "x", "2")
		w.m.commit("server", "y", "3")
		w.current("a")
		if got := read(t, dst); got["x"] != "2" || got["y"] != "3" {
			t.Fatalf("%v", got)
		}
		before := w.dials("a:1")
		for i := range 20 {
			w.m.commit("other", "x", fmt.Sprint(i))
			w.current("a")
		}
		if n := w.dials("a:1"); n != before {
			t.Errorf("%d connections for what does not concern it", n-before)
		}
		write(t, dst, map[string]string{"y": "edited there"})
		time.Sleep(time.Hour)
		if got := read(t, dst); got["y"] != "3" {
			t.Errorf("an edit over there stands for an hour: %v", got)
		}
		// It is somebody else's now: nothing is pushed any more.
		a.Pusher = "n-2"
		w.m.aim(a)
		for len(w.up.States()) > 0 {
			time.Sleep(time.Second)
		}
		before = w.dials("a:1")
		w.m.commit("server", "x", "9")
		time.Sleep(time.Hour)
		if n := w.dials("a:1"); n != before || read(t, dst)["x"] != "2" {
			t.Errorf("%d connections to somebody else's target", n-before)
		}
	})
}

// However long a target was away, and however much has changed meanwhile, it is
// one comparison, and only what stands now is sent.
func TestUpkeepAfterALongAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, "server")
		defer w.end()
		w.m.aim(aimed(t, "a", 1))
		for i := range 500 {
			w.m.commit("server", fmt.Sprint("f", i%5), fmt.Sprint("version ", i))
		}
		time.Sleep(24 * time.Hour)
		s := w.is("a", func(s target.KeptState) bool { return s.State == target.KeptUnreachable && s.Error != "" })
		if away := time.Since(s.Failing); away < 23*time.Hour || s.Revision != 0 {
			t.Errorf("it says to be failing for %s: %+v", away, s)
		}
		tried := w.dials("a:1")
		if perHour := tried / 24; perHour > 300 || perHour < 100 {
			t.Errorf("%d attempts an hour", perHour)
		}
		dst := w.receiver("a:1", "server")
		w.current("a")
		if n := w.dials("a:1") - tried; n != 1 {
			t.Errorf("%d connections", n)
		}
		if got := read(t, dst); len(got) != 5 || got["f0"] != "version 495" || w.m.opened != 5 {
			t.Errorf("%v; %d contents were read", got, w.m.opened)
		}
		if s := w.up.States()[0]; s.Error != "" || !s.Failing.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// Targets that are off, that say nothing, or stall in the middle hold up nobody.
func TestUpkeepOfManyBadTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, "server")
		defer w.end()
		w.m.commit("server", "x", "1")
		var all []cluster.Target
		for i := range 60 {
			a := aimed(t, fmt.Sprint("bad", i), uint64(i+1))
			all = append(all, a)
			switch i % 3 {
			case 0: // nobody answers
			case 1: // it is there, and silent
				w.settle(a.Address, func(c net.Conn) error { _, err := io.Copy(io.Discard, c); return err })
			case 2: // it lets the pusher in, and stalls
				dst := t.TempDir()
				r, err := target.OpenReceiver(target.ReceiverConfig{DataDir: filepath.Join(dst, "data"), Trees: []config.Tree{{Name: "server", Path: filepath.Join(dst, "dst")}}, Version: "test"})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = r.Close() }()
				w.settle(a.Address, func(c net.Conn) error {
					return r.Serve(context.Background(), &stalling{Conn: c, after: 3})
				})
			}
		}
		dst := w.receiver("good:1", "server")
		w.m.aim(append(all, aimed(t, "good", 100))...)
		w.current("good")
		time.Sleep(5 * time.Minute) // until it is known who is bad
		begun := time.Now()
		for i := range 20 {
			w.m.commit("server", "x", fmt.Sprint("v", i))
			w.current("good")
		}
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("20 changes took %s on a clock that counts waiting alone", took)
		}
		if got := read(t, dst); got["x"] != "v19" {
			t.Errorf("%v", got)
		}
	})
}

// stalling is a stream whose other end hears nothing any more after some pieces,
// as one that waits for a disk that hangs.
type stalling struct {
	net.Conn
	after int
}

func (s *stalling) Read(b []byte) (int, error) {
	if s.after--; s.after < 0 {
		_, err := io.Copy(io.Discard, s.Conn)
		return 0, errors.Join(err, io.EOF)
	}
	return s.Conn.Read(b)
}

// What the target says no to, another member would hear as well: it does not
// count as unreachable.
func TestUpkeepTellsRefusalsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, "server")
		defer w.end()
		w.m.commit("server", "x", "1")
		w.receiver("a:1", "another tree")
		a, b := aimed(t, "a", 1), aimed(t, "b", 2)
		b.Token = "gs1-nonsense"
		c := aimed(t, "c", 3)
		c.Address = "ssh://there/x" // without a tree
		w.m.aim(a, b, c)
		for _, name := range []string{"a", "c"} {
			if s := w.is(name, func(s target.KeptState) bool { return s.State == target.KeptRefused }); !s.Failing.IsZero() || s.Error == "" {
				t.Errorf("%+v", s)
			}
		}
		w.is("b", func(s target.KeptState) bool { return s.Error != "" })
		// It is mended over there, and here.
		dst := w.receiver("a:1", "server")
		w.current("a")
		b = aimed(t, "b", 2)
		w.receiver("b:1", "server")
		w.m.aim(a, b)
		w.current("b")
		if got := read(t, dst); got["x"] != "1" {
			t.Errorf("%v", got)
		}
	})
}
