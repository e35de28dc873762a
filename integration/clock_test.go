package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clockVar names the file that holds the seconds by which the wall clock of a
// stepped binary is off.
const clockVar = "GATESYNC_IT_CLOCK"

// buildStepped builds gatesync with a wall clock that can be stepped while it
// runs: the Go library's time.Now adds a number to the seconds, and leaves the
// monotonic reading alone, as a step of the real clock does. No line of
// gatesync differs. (faketime cannot: a static binary asks no libc. A time
// namespace cannot: it has no wall clock.)
//
// Only two packages are compiled anew: package time, so little changed that all
// others still fit it (the linker would refuse it otherwise), and main, which
// gets a file that keeps the number. It lies in a field of time.UTC that is of
// no use there.
func buildStepped(t *testing.T) string {
	t.Helper()
	dir, tags := t.TempDir(), []string{"-trimpath", "-buildvcs=false", "-tags", "hashicorpmetrics"}
	run := func(words ...string) string {
		cmd := exec.Command("go", words...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %q: %v\n%s", words, err, errs.String())
		}
		return strings.TrimSpace(string(out))
	}
	overlay := func(name, old, text string) string {
		write(t, dir, name, text)
		b, err := json.Marshal(map[string]any{"Replace": map[string]string{old: filepath.Join(dir, name)}})
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, name+".json", string(b))
		return filepath.Join(dir, name+".json")
	}

	lib := filepath.Join(run("env", "GOROOT"), "src", "time", "time.go")
	src, err := os.ReadFile(lib)
	if err != nil {
		t.Fatal(err)
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()"
	if strings.Count(string(src), now) != 1 {
		t.Fatalf("time.Now of this Go looks otherwise: adapt buildStepped")
	}
	lib = overlay("time.go", lib, strings.Replace(string(src), now, now+"; sec += utcLoc.cacheStart", 1))
	run("build", "-trimpath", "-overlay", lib, "-buildmode=archive", "-o", filepath.Join(dir, "time.a"), "time")

	main := overlay("stepped.go", filepath.Join(run("list", "-f", "{{.Dir}}", "../cmd/gatesync"), "stepped.go"), strings.ReplaceAll(stepper, "VAR", clockVar))
	list := run(append(append([]string{"list", "-export", "-deps", "-overlay", main}, tags...),
		"-f", "{{if .Export}}packagefile {{.ImportPath}}={{.Export}}{{end}}", "../cmd/gatesync")...)
	var packages []string
	object := ""
	for line := range strings.Lines(list) {
		name, file, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "packagefile time":
			file = filepath.Join(dir, "time.a")
		case "packagefile github.com/gatesync/gatesync/cmd/gatesync":
			object = file
		}
		packages = append(packages, name+"="+file)
	}
	write(t, dir, "importcfg", strings.Join(packages, "\n")+"\n")
	binary := filepath.Join(dir, "gatesync")
	run("tool", "link", "-importcfg", filepath.Join(dir, "importcfg"), "-o", binary, object)
	return binary
}

// stepper becomes a file of package main.
const stepper = `package main

import (
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

func init() {
	field, _ := reflect.TypeFor[time.Location]().FieldByName("cacheStart")
	step := (*int64)(unsafe.Add(unsafe.Pointer(time.UTC), field.Offset))
	look := func() {
		if b, err := os.ReadFile(os.Getenv("VAR")); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
				atomic.StoreInt64(step, n)
			}
		}
	}
	look()
	go func() {
		for {
			time.Sleep(10 * time.Millisecond)
			look()
		}
	}()
}
`

// The wall clock of a node is stepped by an hour, to and fro, of the leader and
// of a follower, under load: nothing of it shows. Stepped by years, its
// certificate is not valid: it says so, the others go on, and when the clock is
// right again it is back by itself.
func TestPromise_Available_ClockSteps(t *testing.T) {
	t.Parallel()
	binary := buildStepped(t)
	c := emptyCluster(t)
	c.place = func(n *node) {
		n.bin, n.vars = binary, []string{clockVar + "=" + clockOf(n)}
	}
	c.boot(3)
	step := func(n *node, d time.Duration) {
		t.Helper()
		// Renamed over, so that it is never read half written.
		write(t, filepath.Dir(n.data), "clock.new", fmt.Sprint(int64(d/time.Second)))
		rename(t, filepath.Dir(n.data), "clock.new", "clock")
	}
	l := startLoad(c, seedOf(t), 60*time.Millisecond)
	t.Cleanup(l.halt)
	lead := c.leader(30 * time.Second)
	follower, other := c.except(lead)[0], c.except(lead)[1]
	troubles := func() (count int) { // as a step makes them that is taken for time which has passed
		for _, n := range c.nodes {
			log := n.logTail(1 << 20)
			count += strings.Count(log, "hangs") + strings.Count(log, "no progress")
		}
		return count + elections(c.nodes)
	}
	for i, d := range []time.Duration{time.Hour, -time.Hour, 0} {
		for j, n := range []*node{lead, follower} {
			var took, usual time.Duration
			made, slow := 1, true
			for try := 0; try < 10 && (made > 0 || slow); try++ { // a busy machine makes trouble, too, but not at each step
				mark := fmt.Sprintf("step %d of node %d, %d\n", i, j, try)
				passes := func(when string) (slowest time.Duration) {
					for _, m := range []*node{n, other} {
						write(t, other.tree, "mark.xml", mark+when+m.name)
						slowest = max(slowest, eventually(t, 15*time.Second, "a write passes "+when+" a step", func() error {
							return stands(n.tree, "mark.xml", mark+when+m.name)
						}))
					}
					return slowest
				}
				if try > 0 {
					step(n, d+time.Hour)
					_ = sleep(t.Context(), 100*time.Millisecond)
				}
				usual = passes("before")
				before, was := troubles(), mtimeOf(t, n, "mark.xml")
				step(n, d)
				took = passes("after")
				if now := mtimeOf(t, n, "mark.xml"); !now.After(was) {
					t.Errorf("the file's mtime went from %v to %v: a deployer would not see the change", was, now)
				}
				made, slow = troubles()-before, took > 3*time.Second+3*usual
			}
			if made > 0 || slow {
				t.Errorf("each step of %v made %d changes of leader or talk of what hangs, and a write took %v, before it %v:\n%s", d, made, took, usual, n.logTail(1<<14))
			}
		}
	}

	const years = 5 * 365 * 24 * time.Hour
	for _, d := range []time.Duration{years, -years} {
		step(follower, d)
		follower.kill() // the connections that stand are not judged again
		follower.start()
		eventually(t, 20*time.Second, "a node with a wrong clock says so", func() error {
			a := follower.ask("status")
			if !strings.Contains(a.stdout, "clock") || !strings.Contains(a.stdout, "of 3 voters alive") {
				return fmt.Errorf("status: exit code %d:\n%s%s", a.code, a.stdout, a.stderr)
			}
			return nil
		})
		write(t, other.tree, "mark.xml", "years "+d.String())
		eventually(t, 15*time.Second, "the others go on", func() error { return stands(lead.tree, "mark.xml", "years "+d.String()) })
		step(follower, 0)
		took := eventually(t, 30*time.Second, "the node is back once its clock is right", func() error {
			return stands(follower.tree, "mark.xml", "years "+d.String())
		})
		t.Logf("stepped by %v; back %v after the clock was right", d, took.Round(time.Millisecond))
	}
	finish(c, l, time.Minute)
	t.Run("a target that is pushed to", func(t *testing.T) { pushToAClockYearsOff(t, binary) })
}

func clockOf(n *node) string { return filepath.Join(filepath.Dir(n.data), "clock") }

// mtimeOf is a path's mtime, zero where nothing stands.
func mtimeOf(t *testing.T, n *node, path string) time.Time {
	t.Helper()
	info, err := os.Lstat(filepath.Join(n.tree, path))
	if os.IsNotExist(err) {
		return time.Time{}
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}
