package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/integration/gen"
)

const edited = "api/edited.xml"

// BenchmarkPropagation measures one edit at a time: from the writer's close to
// the moment when the last peer's file has the new content.
func BenchmarkPropagation(b *testing.B) {
	b.Run("gatesync", func(b *testing.B) {
		c := newCluster(b, 3)
		var roots []string
		for _, n := range c.nodes {
			roots = append(roots, n.tree)
		}
		write(b, roots[0], edited, "first")
		c.waitEqual(30 * time.Second)
		for range b.N {
			propagate(b, ours, roots, size(300, 2000), 20*time.Millisecond, nil)
		}
	})
	b.Run("rsync-loop", func(b *testing.B) {
		if !have(b, "rsync") {
			return
		}
		roots := dirs(b, 3)
		urls := rsyncDaemon(b, roots[1:]...)
		for range b.N {
			propagate(b, "inotify and rsync", roots, 50, 20*time.Millisecond, urls)
		}
	})
	b.Run("syncthing", func(b *testing.B) {
		if !have(b, "syncthing") {
			return
		}
		roots := dirs(b, 3)
		syncthings(b, roots...)
		write(b, roots[0], edited, "first")
		if err := newSighting(b, edited, roots[1:]...).wait("first", 2*time.Minute); err != nil {
			b.Fatal(err)
		}
		for range b.N {
			propagate(b, "Syncthing", roots, 8, 200*time.Millisecond, nil)
		}
	})
}

// propagate edits a file of 6 KB in the first root and waits for it in the
// others. With push, an rsync to each URL is started at the close, as lsyncd
// does with a delay of 0.
func propagate(b *testing.B, who string, roots []string, edits int, pause time.Duration, push []string) {
	s := newSighting(b, edited, roots[1:]...)
	body := string(gen.Config(gen.Params{Seed: 5, MinConfig: 6000, MaxConfig: 6000}, 2).Data)
	var all []time.Duration
	for i := range edits {
		text := fmt.Sprintf("%s<!-- %06d -->\n", body, i)
		if err := sleep(b.Context(), pause); err != nil {
			b.Fatal(err)
		}
		write(b, roots[0], edited, text)
		start := time.Now()
		var pushes sync.WaitGroup
		for _, url := range push {
			// -I: a quick check would miss edits of one size in one second.
			pushes.Go(func() {
				if err := rsync("-aI", roots[0]+"/", url); err != nil {
					b.Error(err)
				}
			})
		}
		if err := s.wait(text, time.Minute); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
		pushes.Wait()
	}
	p50, p99 := quantile(all, 0.5), quantile(all, 0.99)
	b.ReportMetric(float64(p50.Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
	figures.took("one edit visible on both peers, p50", who, p50, "≤ 10 ms")
	figures.took("one edit visible on both peers, p99", who, p99, "≤ 50 ms")
}

// BenchmarkBurst measures 10,000 files of 6 KB that are written at once, from
// the first file's creation until the last stands on both peers.
func BenchmarkBurst(b *testing.B) {
	const count, what = 10000, "10,000 files of 6 KB on both peers"
	params := gen.Params{Seed: 6, Configs: count, MinConfig: 6000, MaxConfig: 6000}
	rounds := size(3, 5)
	b.Run("gatesync", func(b *testing.B) {
		var all, after []time.Duration
		for range rounds {
			whole, rest := burst(b, params)
			all, after = append(all, whole), append(after, rest)
		}
		b.ReportMetric(quantile(all, 0.5).Seconds(), "s")
		figures.took(what, ours, quantile(all, 0.5), "less than rsync --fsync")
		figures.took("the same, from the last file's close", ours, quantile(after, 0.5), "")
	})
	b.Run("rsync", func(b *testing.B) {
		if !have(b, "rsync") {
			return
		}
		var plain, synced []time.Duration
		for range rounds {
			roots := dirs(b, 5)
			if _, _, err := gen.WriteTo(roots[0], gen.Tree(params)); err != nil {
				b.Fatal(err)
			}
			url := rsyncDaemon(b, roots[0])[0]
			unix.Sync()
			start := time.Now()
			err := errors.Join(rsync("-a", "--fsync", url, roots[1]), rsync("-a", "--fsync", url, roots[2]))
			synced = append(synced, time.Since(start))
			unix.Sync()
			start = time.Now()
			err = errors.Join(err, rsync("-a", url, roots[3]), rsync("-a", url, roots[4]))
			plain = append(plain, time.Since(start))
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(quantile(synced, 0.5).Seconds(), "s")
		figures.took(what, "rsync -a --fsync, in turn", quantile(synced, 0.5), "")
		figures.took(what, "rsync -a, in turn, nothing flushed", quantile(plain, 0.5), "")
	})
	b.Run("syncthing", func(b *testing.B) {
		if !have(b, "syncthing") {
			return
		}
		roots := dirs(b, 3)
		syncthings(b, roots...)
		write(b, roots[0], edited, "first")
		if err := newSighting(b, edited, roots[1:]...).wait("first", 2*time.Minute); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if _, _, err := gen.WriteTo(roots[0], gen.Tree(params)); err != nil {
			b.Fatal(err)
		}
		for _, root := range roots[1:] {
			waitCount(b, root, count+1)
		}
		figures.took(what, "Syncthing", time.Since(start), "")
	})
}

// burst writes a tree on a new cluster of three and returns how long it took
// from the first file, and from the last file's close.
func burst(b *testing.B, params gen.Params) (whole, rest time.Duration) {
	c := newCluster(b, 3)
	defer func() {
		for _, n := range c.nodes {
			n.stop()
		}
	}()
	unix.Sync()
	start := time.Now()
	if _, _, err := gen.WriteTo(c.nodes[0].tree, gen.Tree(params)); err != nil {
		b.Fatal(err)
	}
	written := time.Now()
	for _, n := range c.nodes[1:] {
		waitCount(b, n.tree, params.Configs)
	}
	whole, rest = time.Since(start), time.Since(written)
	c.waitTree(time.Minute, c.read(c.nodes[0]))
	b.Logf("burst: written in %v, on both peers after %v", written.Sub(start).Round(time.Millisecond), whole.Round(time.Millisecond))
	return whole, rest
}

// waitCount waits until a tree has count files, by their names alone: cheap
// enough to ask while others are measured. What is placed atomically is whole
// when its name is there. Temporary names of peers are not counted.
func waitCount(b *testing.B, root string, count int) {
	b.Helper()
	eventually(b, 10*time.Minute, fmt.Sprintf("%d files in %s", count, root), func() error {
		n := 0
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil // it moves; ask again
			case d.IsDir() && (d.Name() == ".gatesync" || d.Name() == ".stfolder"):
				return filepath.SkipDir
			case d.Type().IsRegular() && !strings.HasPrefix(d.Name(), "."):
				n++
			}
			return nil
		})
		if err == nil && n < count {
			err = fmt.Errorf("%d so far", n)
		}
		return err
	})
}

// BenchmarkOrdered measures how many edits a second come through while 24
// writers on all three nodes edit files of their own as fast as they can.
func BenchmarkOrdered(b *testing.B) {
	c := newCluster(b, 3)
	for i := range 24 {
		write(b, c.nodes[0].tree, fmt.Sprintf("w%d/f.xml", i), "first")
	}
	c.waitEqual(time.Minute)
	before, err := c.nodes[0].status()
	if err != nil {
		b.Fatal(err)
	}
	span := size(5*time.Second, 20*time.Second)
	start := time.Now()
	var edits [24]int
	var writers sync.WaitGroup
	for i := range edits {
		writers.Go(func() {
			from, to := c.nodes[i%3], c.nodes[(i+1)%3]
			path := fmt.Sprintf("w%d/f.xml", i)
			s := newSighting(b, path, to.tree)
			for time.Since(start) < span {
				text := fmt.Sprintf("writer %d edit %d\n", i, edits[i])
				if err := writeFile(from.tree, path, text); err != nil {
					b.Error(err)
					return
				}
				if err := s.wait(text, time.Minute); err != nil {
					b.Error(err)
					return
				}
				edits[i]++
			}
		})
	}
	writers.Wait()
	took := time.Since(start)
	c.waitEqual(time.Minute)
	after, err := c.nodes[0].status()
	if err != nil {
		b.Fatal(err)
	}
	total := 0
	for _, n := range edits {
		total += n
	}
	perSecond := float64(total) / took.Seconds()
	b.ReportMetric(perSecond, "edits/s")
	figures.add(figure{"edits seen on a peer, 24 writers on 3 nodes", ours, perSecond, "/s", ""})
	figures.add(figure{"revisions that took", ours, float64(after.Revision - before.Revision), "", ""})
}

// BenchmarkIdle measures what a daemon costs while nothing happens.
func BenchmarkIdle(b *testing.B) {
	const count = 50000
	params := gen.Params{Seed: 7, Configs: count, MinConfig: 500, MaxConfig: 2000}
	span := size(30*time.Second, 2*time.Minute)
	b.Run("gatesync", func(b *testing.B) {
		c := newCluster(b, 3)
		start := time.Now()
		if _, _, err := gen.WriteTo(c.nodes[0].tree, gen.Tree(params)); err != nil {
			b.Fatal(err)
		}
		c.waitEqual(10 * time.Minute)
		b.Logf("%d files on three nodes after %v", count, time.Since(start).Round(time.Millisecond))
		var pids []int
		for _, n := range c.nodes {
			pids = append(pids, n.daemon.Process.Pid)
		}
		idle(b, ours, "", pids, span)
		for _, n := range c.nodes { // what remains after a start, without the filling
			n.term()
			n.start()
		}
		c.waitEqual(time.Minute)
		pids = pids[:0]
		for _, n := range c.nodes {
			pids = append(pids, n.daemon.Process.Pid)
		}
		idle(b, ours, ", after a start", pids, span)
	})
	b.Run("syncthing", func(b *testing.B) {
		if !have(b, "syncthing") {
			return
		}
		roots := dirs(b, 2)
		for _, root := range roots {
			if _, _, err := gen.WriteTo(root, gen.Tree(params)); err != nil {
				b.Fatal(err)
			}
		}
		var pids []int
		for _, p := range syncthings(b, roots...) {
			pids = append(pids, p.Pid)
		}
		// It is done with its first scan when an edit comes through.
		write(b, roots[0], edited, "scanned")
		if err := newSighting(b, edited, roots[1]).wait("scanned", 10*time.Minute); err != nil {
			b.Fatal(err)
		}
		idle(b, "Syncthing", "", pids, span)
	})
}

// idle lets processes alone for a while and reports the busiest and the largest.
func idle(b *testing.B, who, when string, pids []int, span time.Duration) {
	b.Helper()
	if err := sleep(b.Context(), 5*time.Second); err != nil { // what follows the last write
		b.Fatal(err)
	}
	before := make([]time.Duration, len(pids))
	for i, pid := range pids {
		before[i] = cpuTime(b, pid)
	}
	start := time.Now()
	if err := sleep(b.Context(), span); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	var cpu float64
	var kb int
	for i, pid := range pids {
		cpu = max(cpu, 100*float64(cpuTime(b, pid)-before[i])/float64(took))
		kb = max(kb, memory(b, pid, "VmRSS"))
	}
	b.ReportMetric(cpu, "cpu-%")
	b.ReportMetric(float64(kb)/1024, "MB")
	figures.add(figure{"idle with 50,000 files" + when + ", of a core", who, cpu, "%", "< 1 %"})
	figures.add(figure{"idle with 50,000 files" + when + ", memory", who, float64(kb) / 1024, "MB", "< 150 MB"})
}

// cpuTime is what a process has used so far, in user and kernel mode.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime, stime; counted from the state
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}
