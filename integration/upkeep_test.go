package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is constant writing: one gateway on every node, each with files of its
// own, that goes on while daemons come and go. It retries nothing.
type load struct {
	t    *testing.T
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	wants map[string]string // path → the last text
	count int
	slow  time.Duration // the slowest write
	begun time.Time
	flush func() time.Duration // the slowest that the disk made of another, once stopped
}

// newLoad writes until settle is called, at the latest until the test ends.
func newLoad(t *testing.T, nodes ...*node) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, stop: cancel, wants: map[string]string{}, begun: time.Now()}
	told := flushing(filepath.Dir(nodes[0].data), ctx.Done())
	l.flush = sync.OnceValue(func() time.Duration { return <-told })
	for _, n := range nodes {
		l.done.Go(func() { l.write(ctx, n) })
	}
	t.Cleanup(func() { cancel(); l.done.Wait(); l.flush() })
	return l
}

func (l *load) write(ctx context.Context, n *node) {
	for i := 0; sleep(ctx, 20*time.Millisecond) == nil; i++ {
		path := fmt.Sprintf("load/%s/%d.xml", n.name, i%300)
		text := fmt.Sprintf("<api name=%q version=\"%d\"/>\n", n.name, i)
		begun := time.Now()
		if err := writeFile(n.tree, path, text); err != nil {
			l.t.Errorf("a gateway could not write: %v", err)
			return
		}
		l.mu.Lock()
		l.wants[path] = text
		l.count++
		l.slow = max(l.slow, time.Since(begun))
		l.mu.Unlock()
	}
}

// settle ends the writing: everything that was written stands on all nodes,
// nothing conflicts and nothing is held.
func (l *load) settle(c *cluster) {
	l.t.Helper()
	l.stop()
	l.done.Wait()
	span := time.Since(l.begun)
	c.waitEqual(time.Minute)
	for _, n := range c.running() {
		for path, want := range l.wants {
			if err := stands(n.tree, path, want); err != nil {
				l.t.Errorf("%s: %v", n.name, err)
			}
		}
		if lost := n.conflicts(); len(lost) > 0 {
			l.t.Errorf("%s has conflicts where nobody wrote the same file: %v", n.name, lost)
		}
		if held := n.held(); held > 0 {
			l.t.Errorf("%s holds back %d paths", n.name, held)
		}
	}
	l.t.Logf("%d writes of %d files in %v, the slowest took %v", l.count, len(l.wants), span.Round(time.Millisecond), l.slow.Round(time.Microsecond))
}

// metric reads one figure of a node.
func (n *node) metric(series string) (float64, error) {
	res, err := http.Get("http://" + n.http + "/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("no %s in the metrics of %s", series, n.name)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// neverFailed checks, behind settle, that no proposal of the running daemons has
// failed, unless the disk or the machine stood still for so long that there may have been
// an election.
func (l *load) neverFailed(c *cluster) {
	l.t.Helper()
	for _, n := range c.running() {
		failed, err := n.metric(`gatesync_proposals_total{result="failed"}`)
		if flush := l.flush(); err == nil && failed > 0 && flush > time.Second {
			l.t.Logf("%s: %v proposals failed, where a flush took up to %v", n.name, failed, flush)
		} else if err != nil || failed > 0 {
			l.t.Errorf("%s: %v proposals failed, %v", n.name, failed, err)
		}
	}
}

// spreads checks that what one node writes now stands on all that run.
func (c *cluster) spreads(from *node, name string) {
	c.t.Helper()
	path, text := "spread/"+name+".xml", "written by "+from.name+" at "+name+"\n"
	write(c.t, from.tree, path, text)
	for _, n := range c.running() {
		eventually(c.t, 20*time.Second, n.name+" has "+path, func() error { return stands(n.tree, path, text) })
	}
}

// nextVersion builds the program that understands one more format of the log.
func nextVersion(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "gatesync-next")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "hashicorpmetrics,gatesync_nextformat",
		"-ldflags", "-X main.version=v-next", "-o", bin, "../cmd/gatesync")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the next version: %v\n%s", err, out)
	}
	return bin
}

// ends runs the daemon where it has to end by itself, and returns what it said.
func (n *node) ends(limit time.Duration) answer {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patient(limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, n.program(), "run", "--data-dir", n.data)
	cmd.Env = n.env()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		n.t.Fatalf("%s still runs after %s:\n%s", n.name, patient(limit), out)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	return answer{stderr: string(out), code: cmd.ProcessState.ExitCode()}
}

// dirSums describes every file below a directory but those that only say who
// uses it.
func dirSums(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "/lock") {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unchanged compares a directory with what dirSums said before.
func unchanged(t *testing.T, root string, before map[string]string) {
	t.Helper()
	after := dirSums(t, root)
	for path, want := range before {
		if after[path] != want {
			t.Errorf("%s was changed", path)
		}
		delete(after, path)
	}
	for path := range after {
		t.Errorf("%s was made", path)
	}
}
