package integration

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// confirmSocket names the environment variable that turns the test binary
// into the command that the replay runs after each of its steps.
const confirmSocket = "GATESYNC_CONFIRM_SOCKET"

// realdata is where the streams of real changes lie, beside the project.
const realdata = "../../shared/realdata"

// Real change streams of real gateways' repositories are applied to the three
// nodes in turn; after each step all three trees hold exactly what the stream
// says, by a digest that comes with it.
func TestPromise_Order_ReplayOfRealChanges(t *testing.T) {
	if _, err := os.Stat(filepath.Join(realdata, "replay.py")); err != nil {
		t.Skipf("the streams of real changes are not there (%v): put the folder shared/realdata beside the project", err)
	}
	const all = 0
	tests := []struct {
		stream, how string
		from, to    int
		bite        string
	}{
		{"nginx-h5bp", "atomic", 1, size(150, all), "0"},
		{"nginx-h5bp", "slow", 1, size(40, all), "0.01"},
		{"nginx-h5bp", "cp", size(225, 1), all, "0"},
		{"envoy-examples", "atomic", 1, all, "0"},
		{"envoy-examples", "slow", 1, all, "0.005"},
		{"ei-artifacts", "atomic", 1, size(60, all), "0"},
		{"ei-artifacts", "slow", size(205, 100), size(214, all), "0.002"},
	}
	for _, tt := range tests {
		t.Run(tt.stream+"_"+tt.how, func(t *testing.T) {
			if tt.stream != "ei-artifacts" { // the disk is all its own: beside it each flush of the others takes seconds
				t.Parallel()
			}
			replay(t, tt.stream, tt.from, tt.to, "--how", tt.how, "--bite", tt.bite)
		})
	}
}

// replay applies the steps from…to of a stream. Where it does not begin at the
// first, the tree before it is put on one node and carried over as usual.
func replay(t *testing.T, stream string, from, to int, args ...string) {
	c := newCluster(t, 3)
	script := filepath.Join(realdata, "replay.py")
	if from > 1 {
		out, err := exec.Command("python3", script, stream, "--tree", fmt.Sprint(from-1), c.nodes[0].tree).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		c.waitEqual(time.Minute)
	}
	sock := filepath.Join(c.dir, "confirm.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	var steps int
	var slowest time.Duration
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			took, err := c.confirmStep(conn)
			steps, slowest = steps+1, max(slowest, took)
			if err != nil {
				_, _ = fmt.Fprintf(conn, "%v", err)
			}
			_ = conn.Close()
		}
	}()
	for _, n := range c.nodes {
		args = append(args, "--dest", n.tree)
	}
	args = append(args, "--from", fmt.Sprint(from), "--to", fmt.Sprint(to), "--confirm", os.Args[0])
	cmd := exec.Command("python3", append([]string{script, stream}, args...)...)
	cmd.Env = append(os.Environ(), confirmSocket+"="+sock)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	_ = l.Close()
	<-served
	if err != nil || steps == 0 {
		t.Fatalf("replay of %s stopped after %d steps: %v\n%s", stream, steps, err, out[max(0, len(out)-3000):])
	}
	t.Logf("%d steps in %v, the slowest stood everywhere after %v", steps, time.Since(start).Round(time.Millisecond), slowest.Round(time.Millisecond))
	c.waitEqual(30 * time.Second)
	for _, n := range c.nodes {
		if left := n.conflicts(); len(left) > 0 {
			t.Errorf("%s has conflicts where steps came one after another: %v", n.name, left)
		}
		if s, err := n.status(); err != nil || s.Trees[0].Held != 0 {
			t.Errorf("%s holds something back: %+v, %v", n.name, s.Trees, err)
		}
	}
}

// confirmStep reads "N DIGEST" and waits until all trees have that digest.
func (c *cluster) confirmStep(conn net.Conn) (took time.Duration, err error) {
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, err
	}
	step, want, _ := strings.Cut(strings.TrimSpace(line), " ")
	start := time.Now()
	err = poll(c.t.Context(), 60*time.Second, func() error {
		if time.Since(start) > 3*time.Second {
			c.approveDeletions(step)
		}
		var first snapshot
		for i, n := range c.nodes {
			s, err := c.reader.read(n.tree)
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			if i == 0 {
				first = s
			} else if err := first.Differs(s); err != nil {
				return fmt.Errorf("%s differs from %s: %w", n.name, c.nodes[0].name, err)
			}
			if got := streamDigest(s); got != want {
				return fmt.Errorf("%s has the digest %s, want %s", n.name, got, want)
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("step %s: %w", step, err)
	}
	return time.Since(start), err
}

// approveDeletions does what an operator has to do here: years of deletions
// pass by within the guard's minute, so that it may hold the last of them.
func (c *cluster) approveDeletions(step string) {
	for _, n := range c.nodes {
		if out := n.ask("held").stdout; strings.Contains(out, "mass-delete") {
			c.t.Logf("step %s: approved on %s:\n%s", step, n.name, out)
			n.ask("approve")
		}
	}
}

// streamDigest is the digest as the streams define it: over each file's path,
// whether its owner may execute it, and the SHA-256 of its bytes.
func streamDigest(s snapshot) string {
	h := sha256.New()
	for _, p := range slices.Sorted(maps.Keys(s)) {
		what := s[p]
		if what[0] != '-' {
			continue
		}
		x := "0"
		if what[3] == 'x' {
			x = "1"
		}
		fmt.Fprintf(h, "%s\x00%s\x00%s\n", p, x, what[strings.LastIndexByte(what, ' ')+1:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// confirm is the helper's work: it passes its arguments to the test and
// returns how it should exit.
func confirm(sock string, args []string) int {
	conn, err := net.Dial("unix", sock)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer conn.Close()
	fmt.Fprintln(conn, strings.Join(args, " "))
	answer, err := io.ReadAll(conn)
	if err != nil || len(answer) > 0 {
		fmt.Fprintf(os.Stderr, "%s%v\n", answer, err)
		return 1
	}
	return 0
}
