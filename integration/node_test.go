package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// node is one gateway: a data directory, a tree, and the daemon beside it.
// Its methods are for the test's goroutine, except ask and status.
type node struct {
	t    testing.TB
	name string
	data string // data directory
	tree string // root of the tree `server`; "": a witness
	addr string // of the one port between nodes
	http string
	bin  string   // another version of the program; "" is the one under test
	vars []string // more of its environment
	args []string // more flags of its daemon

	enter []string // words before the binary: how its host is entered, none for this one

	daemon *exec.Cmd     // nil while it does not run
	exited chan struct{} // closed when it has ended; daemon.ProcessState then tells how
}

// answer is how a command ended.
type answer struct {
	stdout, stderr string
	code           int
}

// ask runs a command of the binary against this node's data directory.
func (n *node) ask(verb string, args ...string) answer {
	cmd := n.command(append([]string{verb, "--data-dir", n.data}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	a := answer{stdout.String(), stderr.String(), 0}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		a.code = exit.ExitCode()
	} else if err != nil {
		a.code, a.stderr = -1, err.Error()
	}
	return a
}

// must is ask for what has to succeed.
func (n *node) must(verb string, args ...string) string {
	n.t.Helper()
	a := n.ask(verb, args...)
	if a.code != 0 {
		n.t.Fatalf("%s: gatesync %s %q: exit code %d\n%s%s", n.name, verb, args, a.code, a.stdout, a.stderr)
	}
	return a.stdout
}

// waits is `wait` with time enough for a busy machine.
func (n *node) waits() {
	n.t.Helper()
	n.must("wait", "--timeout", patience.String())
}

// command is the binary, where the node is at home.
func (n *node) command(args ...string) *exec.Cmd {
	line := append(append(slices.Clone(n.enter), n.program()), args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = n.env()
	return cmd
}

func (n *node) program() string {
	if n.bin != "" {
		return n.bin
	}
	return gatesync
}

func (n *node) env() []string {
	return append(append(os.Environ(), "GATESYNC_HTTP="+n.http), n.vars...)
}

// start runs the daemon and returns once it answers.
func (n *node) start() {
	n.t.Helper()
	n.launch()
	n.answers()
}

// launch runs the daemon.
func (n *node) launch() {
	n.t.Helper()
	if n.daemon != nil {
		n.t.Fatalf("%s runs already", n.name)
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	n.daemon = n.command(append([]string{"run", "--data-dir", n.data}, n.args...)...)
	n.daemon.Stdout, n.daemon.Stderr = log, log
	n.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.daemon.Start(); err != nil {
		n.t.Fatal(err)
	}
	exited, daemon := make(chan struct{}), n.daemon
	n.exited = exited
	go func() { _ = daemon.Wait(); close(exited) }()
}

// answers waits until the daemon that was launched does.
func (n *node) answers() {
	n.t.Helper()
	exited, daemon := n.exited, n.daemon
	eventually(n.t, 30*time.Second, n.name+" answers", func() error {
		select {
		case <-exited:
			n.t.Fatalf("%s ended at its start: %v", n.name, daemon.ProcessState)
		default:
		}
		_, err := n.status()
		return err
	})
}

// kill ends the daemon as a power cut does (but for the disk's cache).
func (n *node) kill() {
	n.t.Helper()
	if n.daemon == nil {
		n.t.Fatalf("%s does not run", n.name)
	}
	_ = n.daemon.Process.Kill()
	<-n.exited
	n.daemon = nil
}

// term asks the daemon to end and returns how long it took; it must end
// within five seconds with exit code 0.
func (n *node) term() time.Duration {
	n.t.Helper()
	if n.daemon == nil {
		n.t.Fatalf("%s does not run", n.name)
	}
	start := time.Now()
	slowest := flushing(filepath.Dir(n.data), n.exited)
	_ = n.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(patience):
		_ = n.daemon.Process.Signal(syscall.SIGQUIT) // its goroutines, for the log
		<-n.exited
		n.t.Errorf("%s did not end within %v of SIGTERM", n.name, patience)
	}
	took, state := time.Since(start), n.daemon.ProcessState
	n.daemon = nil
	// Each of its parts has a second to end, and a flush five more.
	if flush := <-slowest; flush > 700*time.Millisecond && state.ExitCode() == 1 {
		n.t.Logf("%s had to leave something behind when it ended: the machine stood still for up to %v", n.name, flush.Round(time.Millisecond))
	} else if state.ExitCode() != 0 {
		n.t.Errorf("%s ended %v after SIGTERM: %v; want exit status 0", n.name, took.Round(time.Millisecond), state)
	}
	return took
}

// flushing flushes a file of its own in dir until done is closed, and then tells
// how long the slowest took, or how late it came to the next: what the disk and the
// machine ask of everybody.
func flushing(dir string, done <-chan struct{}) <-chan time.Duration {
	told := make(chan time.Duration, 1)
	go func() {
		var slowest time.Duration
		defer func() { told <- slowest }()
		f, err := os.CreateTemp(dir, "flush")
		if err != nil {
			return
		}
		defer func() { _ = errors.Join(os.Remove(f.Name()), f.Close()) }()
		const pause = 50 * time.Millisecond
		for {
			start := time.Now()
			if _, err := f.WriteAt([]byte("x"), 0); errors.Join(err, f.Sync()) != nil {
				return
			}
			slowest = max(slowest, time.Since(start))
			select {
			case <-done:
				return
			case <-time.After(pause):
				slowest = max(slowest, time.Since(start)-pause)
			}
		}
	}()
	return told
}

// stop is the clean-up: whatever runs is ended, and its port must be free.
func (n *node) stop() {
	if n.daemon == nil {
		return
	}
	_ = n.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(patience): // as in term: a busy disk takes seconds
		_ = n.daemon.Process.Kill()
		<-n.exited
		n.t.Errorf("%s had to be killed at the end of the test", n.name)
	}
	n.daemon = nil
	if len(n.enter) > 0 {
		return // its port is on a host of its own
	}
	l, err := net.Listen("tcp", n.addr)
	if err != nil {
		n.t.Errorf("%s left its port behind: %v", n.name, err)
		return
	}
	_ = l.Close()
}

// count is a number in status, or a list whose length counts.
type count int

func (c *count) UnmarshalJSON(b []byte) error {
	var list []json.RawMessage
	if json.Unmarshal(b, &list) == nil {
		*c = count(len(list))
		return nil
	}
	return json.Unmarshal(b, (*int)(c))
}

// status is the part of `status --json` that the design promises.
type status struct {
	Node struct {
		ID, Name, Role string
	}
	Leader   string
	Quorum   bool
	Revision uint64
	Members  []struct {
		ID, Name, Role, Address string
		Alive, Votes            bool
		Applied, Content        uint64
		Chosen                  string
	}
	Tolerance int
	Trees     []treeStatus
	Targets   []targetStatus
}

type targetStatus struct {
	Name, Address, Pusher, State, Error string
	Epoch, Revision                     uint64
	Held                                int
}

type treeStatus struct {
	Name, Path, Storage       string
	Applied                   uint64
	RootDigest                string `json:"root_digest"`
	Files                     int
	Held, Conflicts, Rejected count
	Busy, Watched             int
	Overflows                 uint64
	Root                      string
	Notices                   []string
}

func (n *node) status() (status, error) {
	var s status
	a := n.ask("status", "--json")
	if a.stdout == "" {
		return s, fmt.Errorf("status of %s: exit code %d: %s", n.name, a.code, a.stderr)
	}
	if err := json.Unmarshal([]byte(a.stdout), &s); err != nil {
		return s, fmt.Errorf("status of %s: %w in %s", n.name, err, a.stdout)
	}
	if len(s.Trees) == 0 && n.tree != "" {
		return s, fmt.Errorf("status of %s names no tree: %s", n.name, a.stdout)
	}
	return s, nil
}

// held counts what the node holds back, over all guards.
func (n *node) held() int {
	n.t.Helper()
	s, err := n.status()
	if err != nil {
		n.t.Fatal(err)
	}
	return int(s.Trees[0].Held)
}

// waitHeld waits until the node says that it holds something back.
func (n *node) waitHeld(limit time.Duration) {
	n.t.Helper()
	eventually(n.t, limit, n.name+" holds something back", func() error {
		if n.held() == 0 {
			return errors.New("status says held: 0")
		}
		return nil
	})
}

// conflicts lists what lost a conflict on this node: id → path.
func (n *node) conflicts() map[string]string {
	n.t.Helper()
	out := n.must("conflicts", "--json")
	var rows []struct{ ID, Path string }
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		n.t.Fatalf("conflicts of %s: %v in %.300s", n.name, err, out)
	}
	found := map[string]string{}
	for _, r := range rows {
		found[r.ID] = r.Path
	}
	return found
}

func (n *node) logFile() string { return filepath.Join(filepath.Dir(n.data), n.name+".log") }

// logTail returns the last lines of the daemon's log.
func (n *node) logTail(lines int) string {
	b, _ := os.ReadFile(n.logFile())
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
