package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/integration/leaks"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestBookGreaterEpochWinsAndSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	b := openBook(path, quiet())
	b.learn(cluster.Member{ID: "n-1", Address: "a:1", Epoch: 2}, cluster.Member{ID: "n-2", Address: "b:1", Epoch: 1})
	b.learn(cluster.Member{ID: "n-1", Address: "old:1", Epoch: 1}, cluster.Member{ID: "n-2", Address: "c:1", Epoch: 2}, cluster.Member{ID: "n-3"})
	check := func(b *book) {
		t.Helper()
		for id, want := range map[cluster.NodeID]string{"n-1": "a:1", "n-2": "c:1"} {
			if got, ok := b.address(id); !ok || got != want {
				t.Errorf("%s is at %q, want %q", id, got, want)
			}
		}
		if _, ok := b.address("n-3"); ok {
			t.Error("an empty address was learned")
		}
	}
	check(b)
	check(openBook(path, quiet()))
	b.keep(func(id cluster.NodeID) bool { return id == "n-1" })
	if _, ok := openBook(path, quiet()).address("n-2"); ok {
		t.Error("a removed member is still in the book")
	}
	if err := os.WriteFile(path, []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := openBook(path, quiet()).members(); len(got) != 0 {
		t.Errorf("a damaged book gave %v", got)
	}
}

// What others say of a member is tried where its own word leads nowhere, and
// forgotten where it is not true.
func TestBookHearsay(t *testing.T) {
	b := openBook(filepath.Join(t.TempDir(), "peers.json"), quiet())
	at := func(want string) {
		t.Helper()
		if got, _ := b.address("n-1"); got != want {
			t.Errorf("at %q, want %q", got, want)
		}
	}
	lie := cluster.Member{ID: "n-1", Name: "x", Address: "evil:1", Epoch: 1<<64 - 1}
	b.learn(cluster.Member{ID: "n-1", Name: "gw1", Address: "own:1", Epoch: 3})
	b.hear(lie, false, false)
	at("own:1")
	b.failed("n-1", "own:1")
	at("evil:1")
	b.failed("n-1", "evil:1")
	at("own:1")
	b.hear(cluster.Member{ID: "n-1", Address: "old:1", Epoch: 2}, true, false)
	at("own:1")
	b.hear(cluster.Member{ID: "n-1", Address: "new:1", Epoch: 4}, true, false) // nothing is heard of it
	at("new:1")
	b.hear(lie, true, false)
	at("new:1") // first it is tried
	b.found("n-1", "new:1")
	at("new:1")
	b.failed("n-1", "new:1")
	at("new:1")
	b.learn(cluster.Member{ID: "n-1", Name: "gw1", Address: "newer:1", Epoch: 4}) // its own word
	at("newer:1")
	b.hear(cluster.Member{ID: "n-2", Address: "x:1", Epoch: 1}, true, false)
	if _, ok := b.address("n-2"); ok {
		t.Error("a stranger is in the book of a node that knows the members")
	}
	for i := range 2 * maxBook {
		b.entries[cluster.NodeID(fmt.Sprint(i))] = bookEntry{Address: "x:1"} // without a write each
		b.hear(cluster.Member{ID: cluster.NodeID(fmt.Sprint("s-", i)), Address: "x:1", Epoch: 1 << 63}, true, i > maxBook)
	}
	if _, ok := b.address(cluster.NodeID(fmt.Sprint("s-", 2*maxBook-1))); ok {
		t.Error("the book grows without end")
	}
	again := openBook(b.path, quiet())
	if got, _ := again.address("n-1"); got != "newer:1" || again.entries["n-1"].Name != "gw1" {
		t.Errorf("cached: %+v", again.entries["n-1"])
	}
}

// The dumb oracle remembers every revision; the tracker may be late by its
// grain and, only when thousands of moments are remembered, early.
func TestLagAgainstOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var l lagTracker
		now := time.Unix(1000, 0)
		seen := map[manifest.Revision]time.Time{}
		rev, applied := manifest.Revision(0), manifest.Revision(0)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(rt, "ms")) * time.Millisecond)
			for next := rev + manifest.Revision(rapid.IntRange(0, 3).Draw(rt, "commits")); rev < next; {
				rev++
				seen[rev] = now
			}
			l.see(rev, now)
			applied = manifest.Revision(rapid.Uint64Range(uint64(applied), uint64(rev)).Draw(rt, "applied"))
			want := time.Duration(0)
			if at, behind := seen[applied+1]; behind {
				want = now.Sub(at)
			}
			got := l.lag(applied, now)
			if (got == 0) != (want == 0) && want > lagGrain || got < want || got > want+lagGrain {
				rt.Fatalf("applied %d of %d: lag %s, want %s", applied, rev, got, want)
			}
		}
	})
}

func TestMajorityNeedsPresentStores(t *testing.T) {
	voters := map[string]string{"a": "s-a", "b": "s-b", "c": "s-c"}
	r := func(node, store string) manifest.Receipt { return manifest.Receipt{Node: node, Store: store} }
	for _, c := range []struct {
		receipts []manifest.Receipt
		enough   bool
	}{
		{nil, false},
		{[]manifest.Receipt{r("a", "s-a")}, false},
		{[]manifest.Receipt{r("a", "s-a"), r("a", "s-a")}, false},
		{[]manifest.Receipt{r("a", "s-a"), r("b", "wiped")}, false},
		{[]manifest.Receipt{r("a", "s-a"), r("d", "s-d")}, false},
		{[]manifest.Receipt{r("a", "s-a"), r("c", "s-c")}, true},
	} {
		if got := majority(voters, 2, c.receipts); got != c.enough {
			t.Errorf("%v: %v", c.receipts, got)
		}
	}
}

func TestTrimBelow(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	keep := config.History{Keep: config.Duration(100 * time.Second), Revisions: 4}
	commits := func(ages ...int) (out []manifest.Commit) { // newest first, revisions downwards from len
		for i, age := range ages {
			out = append(out, manifest.Commit{Revision: manifest.Revision(len(ages) - i), Time: now.Add(-time.Duration(age) * time.Second).UnixNano()})
		}
		return out
	}
	for _, c := range []struct {
		ages  []int
		below manifest.Revision
	}{
		{nil, 0},
		{[]int{1, 2, 3}, 0},
		{[]int{1, 2, 3, 4, 5, 6}, 3}, // six revisions, four are kept
		{[]int{1, 2, 300, 400}, 0},   // few are kept however old they are
		{append(slices.Repeat([]int{1}, keepAlways), 300, 400), 3},                          // the two oldest are too old
		{append(slices.Repeat([]int{1}, keepAlways), 300, 3), 0},                            // a clock that was off among newer ones cuts nothing
		{slices.Repeat([]int{500}, keepAlways+7), 8},                                        // all of them are
		{slices.Repeat([]int{int((50 * 365 * 24 * time.Hour).Seconds())}, keepAlways+1), 2}, // or the clock is
	} {
		keep := keep
		if len(c.ages) >= keepAlways {
			keep.Revisions = 1000
		}
		all := commits(c.ages...)
		if got := trimBelow(all, manifest.Revision(len(all)), keep, now); got != c.below {
			t.Errorf("%v: below %d, want %d", c.ages, got, c.below)
		}
	}
}

// A clock that is decades ahead, or behind, decides nothing where there are two
// others; of two, the earlier counts.
func TestTheClockInTheMiddleCounts(t *testing.T) {
	const year = 365 * 24 * time.Hour
	now := time.Unix(1_700_000_000, 0)
	for what, c := range map[string]struct {
		own    time.Duration
		others []time.Duration
		want   time.Duration
	}{
		"alone":                    {own: 50 * year, want: 50 * year},
		"the earlier of two":       {own: 50 * year, others: []time.Duration{time.Second}, want: time.Second},
		"the leader is ahead":      {own: 50 * year, others: []time.Duration{time.Second, 0}, want: time.Second},
		"another is":               {others: []time.Duration{50 * year, time.Second}, want: time.Second},
		"one is behind":            {own: time.Second, others: []time.Duration{-50 * year, 2 * time.Second}, want: time.Second},
		"two of five":              {own: 50 * year, others: []time.Duration{50 * year, 0, time.Second, 2 * time.Second}, want: 2 * time.Second},
		"an even number, half off": {own: 50 * year, others: []time.Duration{50 * year, 0, time.Second}, want: time.Second},
	} {
		p := &peers{now: func() time.Time { return now.Add(c.own) }, heard: map[cluster.NodeID]*heard{}}
		p.members = func() (all []cluster.Member) {
			for id := range p.heard {
				all = append(all, cluster.Member{ID: id})
			}
			return all
		}
		for i, off := range c.others { // each said so a second ago
			p.heard[cluster.NodeID(rune('a'+i))] = &heard{
				at: p.now().Add(-time.Second), state: &pb.NodeState{ClockNs: now.Add(off - time.Second).UnixNano()},
			}
		}
		p.heard["dead"] = &heard{at: p.now().Add(-time.Hour), state: &pb.NodeState{}}
		if got := p.clock().Sub(now); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

func TestStagesStopInReverseAndLeaveTheStuckBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		s := newStages(quiet(), 0)
		release := make(chan struct{})
		s.closer("first", time.Second, func() error { order = append(order, "first"); return nil })
		s.run("stuck", time.Second, func(context.Context) error { <-release; return nil })
		s.run("last", time.Second, func(ctx context.Context) error { <-ctx.Done(); order = append(order, "last"); return ctx.Err() })
		begun := time.Now()
		err := s.stop()
		var stuck *StuckError
		if !errors.As(err, &stuck) || len(stuck.Parts) != 1 || stuck.Parts[0] != "stuck" {
			t.Errorf("error %v", err)
		}
		if strings.Join(order, " ") != "last first" {
			t.Errorf("stopped in the order %v", order)
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("took %s", took)
		}
		close(release)
	})
}

// A flush takes seconds on a busy disk, and nothing can cancel it: what flushes
// has longer. A disk that hangs is waited for once, not once for each part.
func TestStagesWaitForAFlushAndOnceForADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, c := range map[string]struct {
			flush time.Duration
			stuck int
			took  time.Duration
		}{
			"a busy disk":       {1500 * time.Millisecond, 0, 6 * time.Second},
			"a disk that hangs": {time.Hour, 4, 9 * time.Second},
		} {
			s := newStages(quiet(), 0)
			for i := range 4 {
				s.run(fmt.Sprint("part ", i), time.Second, func(ctx context.Context) error {
					<-ctx.Done()
					time.Sleep(c.flush)
					return nil
				}).flushes()
			}
			begun := time.Now()
			err := s.stop()
			if took := time.Since(begun); took != c.took {
				t.Errorf("%s: took %s, want %s", what, took, c.took)
			}
			var stuck *StuckError
			if errors.As(err, &stuck); c.stuck == 0 && err != nil || c.stuck > 0 && (stuck == nil || len(stuck.Parts) != c.stuck) {
				t.Errorf("%s: %v, want %d parts left behind", what, err, c.stuck)
			}
			time.Sleep(2 * time.Hour) // virtual: all have ended
		}
	})
}

func TestStagesTellTheFirstFailure(t *testing.T) {
	s := newStages(quiet(), 0)
	s.run("port", time.Second, func(context.Context) error { return errors.New("gone") })
	if err := <-s.failed; err == nil || err.Error() != "port: gone" {
		t.Errorf("%v", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestOwnAddress(t *testing.T) {
	for _, c := range []struct {
		listen, advertise, bound, want string
		guessed                        bool
	}{
		{"10.0.0.1:7946", "", "", "10.0.0.1:7946", false},
		{"10.0.0.1:0", "", "10.0.0.1:5000", "10.0.0.1:5000", false},
		{"0.0.0.0:7946", "gw1.example.com:80", "0.0.0.0:7946", "gw1.example.com:80", false},
		{"[::1]:7946", "", "", "[::1]:7946", false},
	} {
		got, guessed, err := ownAddress(config.Config{Listen: c.listen, Advertise: c.advertise}, c.bound)
		if err != nil || got != c.want || guessed != c.guessed {
			t.Errorf("%+v: %q %v %v", c, got, guessed, err)
		}
	}
	got, guessed, err := ownAddress(config.Config{Listen: ":7946"}, "")
	if err != nil || !guessed || strings.HasPrefix(got, ":") || strings.HasPrefix(got, "0.0.0.0") {
		t.Errorf("every interface: %q %v %v", got, guessed, err)
	}
}

// A daemon that is started again while the killed one still flushes waits for that.
func TestStartedWhileTheKilledOneEnds(t *testing.T) {
	d := dataDir(t.TempDir())
	killed, err := d.lock()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var running *RunningError
		if _, err := d.takeOver(); !errors.As(err, &running) || time.Since(begun) < dyingTime {
			t.Errorf("one that lives: %v after %v", err, time.Since(begun))
		}
		go func() {
			time.Sleep(dyingTime / 2)
			killed.Close()
		}()
		again, err := d.takeOver()
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
	})
}

func TestOneDaemonPerDataDirectory(t *testing.T) {
	d := dataDir(t.TempDir())
	first, err := d.lock()
	if err != nil {
		t.Fatal(err)
	}
	var running *RunningError
	if _, err := d.lock(); !errors.As(err, &running) || running.PID == "" {
		t.Errorf("second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(string(d), "seen.json.new-123") // of a life that was killed
	if err := os.WriteFile(half, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := d.lock()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a file of an earlier life is still there: %v", err)
	}
}

func TestRecentBlobsSurviveTwoCollections(t *testing.T) {
	s, err := blob.Open(t.TempDir(), blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := newRecentBlobs(s)
	ref, err := b.Put(bytes.NewReader([]byte("in flight")))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false} {
		if got := b.recent(ref.Digest); got != want {
			t.Errorf("after %d collections: recent %v", i, got)
		}
		b.age()
	}
	if !b.Has(ref.Digest) || !b.recent(ref.Digest) {
		t.Error("content that somebody asked for is not recent")
	}
}

func TestNodeFile(t *testing.T) {
	d := dataDir(t.TempDir())
	if _, err := d.readNode(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "gatesync init") {
		t.Errorf("none: %v", err)
	}
	if err := d.writeNode(nodeFile{Node: "n-0123456789abcdef", Name: "gw1", Cluster: "c-1", Trees: []treeFile{{Name: "server", ID: "t-1"}}}); err != nil {
		t.Fatal(err)
	}
	var exists *ExistsError
	if err := d.vacant(); !errors.As(err, &exists) || exists.Cluster != "c-1" {
		t.Errorf("vacant: %v", err)
	}
	if err := writeJSON(d.nodeFile(), nodeFile{Format: 99}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.readNode(); err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("newer format: %v", err)
	}
}

func joinRequestOK(now time.Time) *pb.JoinRequest {
	return &pb.JoinRequest{
		NodeId: "n-0123456789abcdef", Name: "gw2", Address: "h:1", Store: "s-1", ClockNs: now.UnixNano(),
		Format: raftstore.Format, Trees: []string{"server", "tenants"},
	}
}

type fixedForest []string

func (f fixedForest) Trees() (out []raftstore.TreeInfo) {
	for _, n := range f {
		out = append(out, raftstore.TreeInfo{Name: n})
	}
	return out
}

type forestOnly struct {
	joinLog
	fixedForest
}

func (forestOnly) Format() uint32 { return raftstore.Format }

func (f forestOnly) Trees() []raftstore.TreeInfo { return f.fixedForest.Trees() }

func TestJoinersAreCheckedBeforeTheTokenIsUsed(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := &joinServer{log: forestOnly{fixedForest: fixedForest{"server", "tenants"}}, now: func() time.Time { return now }, logger: quiet()}
	for name, c := range map[string]struct {
		change func(*pb.JoinRequest)
		says   string
	}{
		"fine":          {func(*pb.JoinRequest) {}, ""},
		"clock 4 min":   {func(r *pb.JoinRequest) { r.ClockNs = now.Add(4 * time.Minute).UnixNano() }, ""},
		"clock 3 hours": {func(r *pb.JoinRequest) { r.ClockNs = now.Add(-3 * time.Hour).UnixNano() }, "says 2026-01-01T09:00:00Z, this member's clock says 2026-01-01T12:00:00Z: they differ by 3h0m0s"},
		"old program":   {func(r *pb.JoinRequest) { r.Format = 0 }, "too old"},
		"bad id":        {func(r *pb.JoinRequest) { r.NodeId = "../../x" }, "no node id"},
		"bad name":      {func(r *pb.JoinRequest) { r.Name = "a\nb" }, "no node name"},
		"extra tree":    {func(r *pb.JoinRequest) { r.Trees = []string{"server", "tenants", "confg"} }, "does not know confg"},
		"witness":       {func(r *pb.JoinRequest) { r.Trees = nil }, ""},
		"missing tree":  {func(r *pb.JoinRequest) { r.Trees = []string{"server"} }, "lacks tenants"},
		"foreign root":  {func(r *pb.JoinRequest) { r.RootClusters = []string{"c-2"} }, "belongs to cluster c-2, this is cluster c-1"},
	} {
		req := joinRequestOK(now)
		c.change(req)
		err := s.plausible(req)
		if err == nil {
			err = s.fits(req, "c-1")
		}
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(status.Convert(err).Message(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
