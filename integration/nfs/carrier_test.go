package nfs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// shared is a cluster with local trees and a share on NFS.
type shared struct {
	*cluster
	mounts []*mount
	dir    string // on the server
	last   int
	rng    *rand.Rand
}

// share boots it: each host mounts the same directory of the server.
func (b *bed) share(name string, f flavour) *shared {
	b.t.Helper()
	s := &shared{dir: b.server.dir(name), rng: rand.New(rand.NewPCG(1, 2))}
	for _, h := range b.hosts {
		s.mounts = append(s.mounts, h.mount(name, f))
	}
	s.cluster = b.cluster(make([]string, len(b.hosts)), "--share", "/mnt/{host}/"+name)
	s.waitUsed(90 * time.Second)
	return s
}

func (n *node) carrier(name string) (carrierStatus, error) {
	s, err := n.status()
	if err != nil {
		return carrierStatus{}, err
	}
	i := slices.IndexFunc(s.Carriers, func(c carrierStatus) bool { return c.Name == name })
	if i < 0 {
		return carrierStatus{}, fmt.Errorf("%s has no %s", n.name, name)
	}
	return s.Carriers[i], nil
}

// waitUsed waits until every node uses the share with all others.
func (s *shared) waitUsed(limit time.Duration) time.Duration {
	s.b.t.Helper()
	return eventually(s.b.t, limit, "all use the share", func() error {
		for _, n := range s.nodes {
			c, err := n.carrier("share")
			if err != nil {
				return err
			}
			if !c.Well || len(c.Members) != len(s.nodes)-1 {
				return fmt.Errorf("%s: %+v", n.name, c)
			}
		}
		return nil
	})
}

// content is so much that nobody can guess and nobody compresses.
func (s *shared) content(size int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(s.rng.Uint32())
	}
	return string(b)
}

// put writes a file of so many bytes on a node and waits until all have it.
func (s *shared) put(n *node, size int, limit time.Duration) time.Duration {
	s.b.t.Helper()
	s.last++
	name, text := fmt.Sprintf("file-%d", s.last), s.content(size)
	s.b.check(write(n.tree, name, text))
	return s.arrives(n, name, text, limit)
}

func (s *shared) arrives(n *node, name, text string, limit time.Duration) time.Duration {
	s.b.t.Helper()
	return eventually(s.b.t, limit, name+" from "+n.name+" is everywhere", func() error {
		for _, o := range s.others(n) {
			if err := stands(o.tree, name, text); err != nil {
				return fmt.Errorf("%s: %w", o.name, err)
			}
		}
		return nil
	})
}

// carries makes sure that a write of n travels over the share, and only there: it
// is laid down once, and each of the others reads it there. (One that hears of the
// revision before it has heard of what is laid there fetches it from a node. That is
// no fault of the share's, and happens once in a hundred times: so again, then.)
func (s *shared) carries(n *node, limit time.Duration) {
	s.b.t.Helper()
	const size = 300_000
	moved := func() (laid int64, read []int64, err error) {
		c, err := n.carrier("share")
		for _, o := range s.others(n) {
			at, err1 := o.carrier("share")
			read, err = append(read, at.ReceivedBytes), errors.Join(err, err1)
		}
		return c.SentBytes, read, err
	}
	eventually(s.b.t, limit, "the share carries what "+n.name+" writes", func() error {
		laid, read, err1 := moved()
		took := s.put(n, size, 60*time.Second)
		laidNow, readNow, err2 := moved()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		for i := range read {
			read[i] = readNow[i] - read[i]
		}
		if laid = laidNow - laid; laid != size || slices.ContainsFunc(read, func(got int64) bool { return got != size }) {
			return fmt.Errorf("%d bytes were laid on the share, the others read %d; it took %v", laid, read, took)
		}
		return nil
	})
}

// writing writes on all nodes until stop is called, which returns the longest
// time that a file took to be everywhere.
func (s *shared) writing() (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	longest := make([]time.Duration, len(s.nodes))
	text := s.content(100_000)
	for i, n := range s.nodes {
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				name, want := fmt.Sprintf("load/%s-%d", n.name, k%5), fmt.Sprintf("%d %s", k, text)
				begun := time.Now()
				err := write(n.tree, name, want)
				for err == nil && ctx.Err() == nil {
					missing := slices.ContainsFunc(s.nodes, func(o *node) bool { return stands(o.tree, name, want) != nil })
					if !missing {
						longest[i] = max(longest[i], time.Since(begun))
						break
					}
					time.Sleep(20 * time.Millisecond)
				}
				if err != nil {
					s.b.t.Error(err)
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	return func() time.Duration { cancel(); wg.Wait(); return slices.Max(longest) }
}

// answers asks each node for its status: one that waited for the mount would be
// late each time, one whose guest was short of a processor is in time once of
// three.
func (s *shared) answers() {
	s.b.t.Helper()
	for _, n := range s.nodes {
		took := time.Duration(math.MaxInt64)
		for range 3 {
			a := n.ask("status", "--json")
			if a.code != 0 && a.stdout == "" {
				s.b.t.Errorf("%s: status: %s", n.name, a.stderr)
			}
			if took = min(took, a.took); took <= statusWithin {
				break
			}
		}
		if took > 2*statusWithin {
			s.b.t.Errorf("%s: status took %v", n.name, took)
		}
	}
}

// threads counts a daemon's threads: a call that is stuck holds one.
func (n *node) threads() int {
	n.host.b.t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", n.daemon.Process.Pid))
	n.host.b.check(err)
	return len(tasks)
}

// Local trees and a share on NFS: content travels over it once, and whatever
// becomes of it, the push carries on within seconds; when it is back it is used
// again.
// (A boot has only so many minutes: each has its part of the faults.)
func TestPromise_Converge_ShareOnNFSv4(t *testing.T) {
	shareOnNFS(t, v4hard, "server stopped", "unmounted lazily", "read-only", "full")
}

func TestPromise_Converge_ShareOnNFSv3(t *testing.T) {
	shareOnNFS(t, v3soft, "server stopped", "stale handles", "power cut")
}

func shareOnNFS(t *testing.T, f flavour, faults ...string) {
	b := newBed(t)
	s := b.share("exchange", f)
	s.carries(s.nodes[0], time.Minute)
	s.faults(f, faults...)
	s.waitEqual(30 * time.Second)
}

// BenchmarkShare: what the carriers cost and take here, with one, three and (with
// GATESYNC_LONG) six receivers. More are `make bench`'s, BenchmarkCarriers: here one
// slow processor runs the server and all nodes, and would be what is measured.
func BenchmarkShare(tb *testing.B) {
	b := newBed(tb)
	for _, receivers := range size([]int{1, 3}, []int{1, 3, 6}) {
		tb.Run(fmt.Sprint(receivers), func(tb *testing.B) {
			b.in(tb)
			all := b.hosts
			for len(all) <= receivers {
				all = append(all, b.addHost())
			}
			b.hosts = all[:receivers+1]
			defer func() { b.hosts = all }()
			b.share(fmt.Sprintf("figures-%d", receivers), v4hard).figures()
		})
	}
}

// sent and received are how many bytes have left a host, and have reached it.
func (h *host) sent() int64     { return h.bytes("rx_bytes") }
func (h *host) received() int64 { return h.bytes("tx_bytes") }

// bytes reads a counter of the cable's other end.
func (h *host) bytes(counter string) (n int64) {
	h.b.t.Helper()
	b, err := os.ReadFile("/sys/class/net/" + h.cable() + "/statistics/" + counter)
	h.b.check(err)
	_, err = fmt.Sscan(string(b), &n)
	h.b.check(err)
	return n
}

// worked is how much of the processor a daemon has had.
func (n *node) worked() time.Duration {
	n.host.b.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.daemon.Process.Pid))
	n.host.b.check(err)
	_, after, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(after)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	n.host.b.check(errors.Join(err1, err2))
	return time.Duration(user+system) * 10 * time.Millisecond
}

// figures compares the carriers here: the time until a file is on all others,
// what leaves the author for it and reaches the others, and what the author works.
func (s *shared) figures() {
	s.b.t.Helper()
	a := s.nodes[0]
	const times = 5
	measure := func(way string) {
		for _, size := range []int{4_000, 70_000, 1 << 20, 8 << 20} {
			var took []time.Duration
			left, reached, worked := a.host.sent(), int64(0), a.worked()
			for _, n := range s.others(a) {
				reached -= n.host.received()
			}
			for range times {
				took = append(took, s.put(a, size, 2*time.Minute))
			}
			for _, n := range s.others(a) {
				reached += n.host.received()
			}
			slices.Sort(took)
			s.b.t.Logf("%s, %d receivers, %d bytes: everywhere after %v (median of %d, the longest %v); for each %.0f kB leave the author, %.0f kB reach the others, and the author works %v",
				way, len(s.nodes)-1, size, took[times/2].Round(time.Millisecond), times, took[times-1].Round(time.Millisecond),
				float64(a.host.sent()-left)/1000/times, float64(reached)/1000/times, ((a.worked() - worked) / times).Round(time.Millisecond))
		}
	}
	measure("share")
	s.b.server.export(readOnly)
	s.put(a, 300_000, 30*time.Second)
	measure("push")
	s.b.server.export(writable)
	s.waitUsed(90 * time.Second)
	idle := s.mounts[0].rpcs()
	time.Sleep(size(20*time.Second, 2*time.Minute)) // nobody does anything
	s.b.t.Logf("idle: %.0f calls of a node to the server in a minute", float64(s.mounts[0].rpcs()-idle)/size(20*time.Second, 2*time.Minute).Minutes())
}

// faults lets the share go in the ways that are named, under load, and come
// back.
func (s *shared) faults(f flavour, names ...string) {
	t, server := s.b.t, s.b.server
	remount := func() {
		for _, m := range s.mounts {
			_ = m.detach()
			m.again()
		}
	}
	var empty func()
	for _, fault := range []struct {
		name      string
		goes, end func()
		seen      bool // status has to tell
	}{
		{"server stopped", server.stop, server.start, true},
		{"unmounted lazily", func() {
			for _, m := range s.mounts {
				s.b.check(m.detach())
			}
		}, func() {
			for _, m := range s.mounts {
				m.again()
			}
		}, true},
		{"read-only", func() { server.export(readOnly) }, func() { server.export(writable) }, false},
		{"full", func() { empty = server.fill() }, func() { empty() }, false},
		{"stale handles", func() { server.replace(s.dir) }, remount, true},
		{"power cut", server.powerOff, server.powerOn, true},
	} {
		if !slices.Contains(names, fault.name) {
			continue
		}
		stop := s.writing()
		fault.goes()
		first := s.put(s.nodes[1], 300_000, 30*time.Second)
		s.answers()
		if fault.seen {
			eventually(t, 30*time.Second, fault.name+": status tells", func() error {
				c, err := s.nodes[1].carrier("share")
				if err == nil && (c.Well || c.Why == "") {
					err = fmt.Errorf("%+v", c)
				}
				return err
			})
		}
		second := s.put(s.nodes[2], 300_000, 30*time.Second)
		s.answers()
		var threads []int
		for _, n := range s.nodes {
			threads = append(threads, n.threads())
		}
		fault.end()
		longest := stop()
		back := s.waitUsed(90 * time.Second)
		s.carries(s.nodes[1], time.Minute)
		t.Logf("%s, %s: the first file after it took %v, the next %v, the longest under load %v; %v threads; used again after %v",
			f.name, fault.name, first, second, longest, threads, back)
		if longest > 15*slack*time.Second {
			t.Errorf("%s: under load a file took %v", fault.name, longest)
		}
		if n := slices.Max(threads); n > 100 {
			t.Errorf("%s: %v threads", fault.name, threads)
		}
	}
}

// A hard mount that hangs for long: SIGTERM ends the daemon, one that is
// started meanwhile comes up, and nothing piles up.
func TestPromise_Available_ShareHangs(t *testing.T) {
	b := newBed(t)
	s := b.share("hangs", v4hard)
	b.server.powerOff()
	s.put(s.nodes[0], 300_000, 30*time.Second)
	s.answers()
	before := s.nodes[0].threads()
	const more = 30
	for range more {
		s.put(s.nodes[0], 300_000, 10*time.Second)
	}
	// Some are begun by whatever is done at the same time for the first time.
	if n := s.nodes[0].threads(); n > before+more*3/4 {
		t.Errorf("%d threads after %d more writes, before %d", n, more, before)
	}
	n := s.nodes[2]
	t.Logf("SIGTERM while the share hangs: %v", n.term(5*time.Second))
	begun := time.Now()
	n.start()
	t.Logf("started while the share hangs: it answered after %v", time.Since(begun))
	s.put(s.nodes[0], 300_000, 30*time.Second)
	s.put(n, 300_000, 30*time.Second)
	s.answers()
	b.server.powerOn()
	t.Logf("used again after %v", s.waitUsed(90*time.Second))
	s.carries(n, time.Minute)
	s.waitEqual(30 * time.Second)
}

// What lies on the share is believed after its digest: spoilt there, it is
// removed, named once, and pushed.
func TestPromise_NoLoss_WrongBytesOnNFS(t *testing.T) {
	b := newBed(t)
	s := b.share("wrong", v4hard)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { // spoils whatever appears
		for ctx.Err() == nil {
			files, _ := filepath.Glob(b.server.path(s.dir, "*", "blobs", "*"))
			for _, file := range files {
				if strings.HasSuffix(file, ".part") {
					continue
				}
				if f, err := os.OpenFile(file, os.O_WRONLY, 0); err == nil {
					_, _ = f.WriteAt([]byte("SPOILT"), 1000)
					_ = f.Close()
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
	defer func() { cancel(); wg.Wait() }()
	eventually(t, 2*time.Minute, "somebody finds wrong bytes", func() error {
		s.put(s.nodes[0], 2_000_000, 30*time.Second)
		for _, n := range s.others(s.nodes[0]) {
			if strings.Contains(n.logTail(500), "wrong bytes") {
				return nil
			}
		}
		return errors.New("nobody")
	})
	s.waitEqual(30 * time.Second)
}
