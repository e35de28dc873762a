package nfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// gatesync is the program under test, see boot.
const gatesync = "/programs/gatesync"

// node is a gatesync daemon on a host. Its data directory is on a local disk;
// its tree is wherever the test wants it.
type node struct {
	host *host
	name string
	data string
	tree string // root of the tree `server`

	daemon *exec.Cmd     // nil while it does not run
	exited chan struct{} // closed when it has ended
}

const nodePort, httpPort = ":7946", "127.0.0.1:7947"

// answer is how a command ended.
type answer struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// ask runs a command of gatesync against this node. It may be called from any
// goroutine.
func (n *node) ask(verb string, args ...string) answer {
	cmd := n.command(append([]string{verb, "--data-dir", n.data}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	a := answer{stdout.String(), stderr.String(), 0, time.Since(start)}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		a.code = exit.ExitCode()
	} else if err != nil {
		a.code, a.stderr = -1, err.Error()
	}
	return a
}

// must is ask for what has to succeed.
func (n *node) must(verb string, args ...string) string {
	n.host.b.t.Helper()
	a := n.ask(verb, args...)
	if a.code != 0 {
		n.host.b.t.Fatalf("%s: gatesync %s %q: exit code %d\n%s%s", n.name, verb, args, a.code, a.stdout, a.stderr)
	}
	return a.stdout
}

func (n *node) command(args ...string) *exec.Cmd {
	cmd := n.host.command(append([]string{gatesync}, args...)...)
	cmd.Env = append(os.Environ(), "GATESYNC_HTTP="+httpPort, "GATESYNC_FREE_RESERVE=16MB") // the disks here are small
	return cmd
}

// start runs the daemon and returns once it answers.
func (n *node) start() {
	t := n.host.b.t
	t.Helper()
	if n.daemon != nil {
		t.Fatalf("%s runs already", n.name)
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n.daemon = n.command("run", "--data-dir", n.data)
	n.daemon.Stdout, n.daemon.Stderr = log, log
	if err := n.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	exited, daemon := make(chan struct{}), n.daemon
	n.exited = exited
	go func() { _ = daemon.Wait(); close(exited) }()
	eventually(t, 60*time.Second, n.name+" answers", func() error {
		select {
		case <-exited:
			t.Fatalf("%s ended at its start: %v\n%s", n.name, daemon.ProcessState, n.logTail(20))
		default:
		}
		_, err := n.status()
		return err
	})
}

// signal sends the daemon a signal: SIGSTOP and SIGCONT, SIGQUIT for its
// goroutines in its log.
func (n *node) signal(s syscall.Signal) {
	n.host.b.t.Helper()
	if err := n.daemon.Process.Signal(s); err != nil {
		n.host.b.t.Fatalf("%v for %s: %v", s, n.name, err)
	}
}

// kill ends the daemon as a power cut does.
func (n *node) kill() {
	n.host.b.t.Helper()
	n.signal(syscall.SIGKILL)
	<-n.exited
	n.daemon = nil
}

// term asks the daemon to end, and returns how long it took. It must end within
// the limit and with exit code 0.
func (n *node) term(limit time.Duration) time.Duration {
	t := n.host.b.t
	t.Helper()
	limit *= slack
	start := time.Now()
	n.signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(limit):
		n.signal(syscall.SIGQUIT)
		select {
		case <-n.exited:
		case <-time.After(10 * time.Second):
			n.signal(syscall.SIGKILL)
			<-n.exited
		}
		t.Errorf("%s did not end within %v of SIGTERM\n%s", n.name, limit, n.logTail(200))
	}
	took, code := time.Since(start), n.daemon.ProcessState.ExitCode()
	n.daemon = nil
	if took <= limit && code != 0 {
		t.Errorf("%s ended with exit code %d after SIGTERM\n%s", n.name, code, n.logTail(20))
	}
	return took
}

// status is what scenarios need of `status --json`.
type status struct {
	Node struct {
		ID, Name, Role, Raft string
	}
	Leader   string
	Quorum   bool
	Revision uint64
	Members  []struct {
		ID, Name string
		Alive    bool
		Votes    bool
		Applied  uint64
	}
	Trees    []treeStatus
	Carriers []carrierStatus
}

type treeStatus struct {
	Name, Path, Storage             string
	Applied                         uint64
	RootDigest                      string `json:"root_digest"`
	Mount, Steward                  string
	StorageWhy                      string `json:"storage_why"`
	Files, Held, Conflicts, Pending int
	Rejected, Busy, Failing, Unsent int
	Root                            string
	Notices                         []string
	Edited                          []struct{ Path string } `json:"edited_paths"`
}

type carrierStatus struct {
	Name          string
	Well          bool
	Why           string
	Members       []string
	SentBytes     int64 `json:"sent_bytes"`
	ReceivedBytes int64 `json:"received_bytes"`
}

func (n *node) status() (s status, err error) {
	a := n.ask("status", "--json")
	if a.stdout == "" {
		return s, fmt.Errorf("status of %s: exit code %d: %s", n.name, a.code, a.stderr)
	}
	if err := json.Unmarshal([]byte(a.stdout), &s); err != nil {
		return s, fmt.Errorf("status of %s: %w in %s", n.name, err, a.stdout)
	}
	return s, nil
}

// says waits until the node's status tells a person this.
func (n *node) says(limit time.Duration, want string) {
	t := n.host.b.t
	t.Helper()
	var a answer
	took := eventually(t, limit, n.name+"'s status tells: "+want, func() error {
		if a = n.ask("status"); !strings.Contains(a.stdout, want) {
			return fmt.Errorf("exit code %d:\n%s%s", a.code, a.stdout, a.stderr)
		}
		return nil
	})
	_, advice, _ := strings.Cut(a.stdout, "needs attention:\n")
	t.Logf("%s says after %v:\n%s", n.name, took.Round(time.Millisecond), advice)
}

// revision is how far the log goes, as far as the node knows.
func (n *node) revision() uint64 {
	n.host.b.t.Helper()
	s, err := n.status()
	n.host.b.check(err)
	return s.Revision
}

func (n *node) logFile() string { return n.data + ".log" }

func (n *node) logTail(lines int) string {
	b, _ := os.ReadFile(n.logFile())
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// cluster is a node on each host.
type cluster struct {
	b     *bed
	nodes []*node
	flags []string // of init and join
}

// cluster boots a node on each host, in order, with the tree `server` in these
// places, and waits until all vote. More flags go to init and join alike; in
// them {host} is the host's name. It
// ends with the (sub)test.
func (b *bed) cluster(trees []string, flags ...string) *cluster {
	b.t.Helper()
	c := &cluster{b: b, flags: flags}
	b.t.Cleanup(c.close)
	for i, tree := range trees {
		dir, err := os.MkdirTemp("/tmp", b.hosts[i].name+"-")
		b.check(err)
		if tree == "" {
			tree = filepath.Join(dir, "tree")
		}
		root, _, _ := strings.Cut(tree, ",") // the tree's own settings may follow
		b.check(os.MkdirAll(root, 0o755))
		n := &node{host: b.hosts[i], name: b.hosts[i].name, data: filepath.Join(dir, "data"), tree: root}
		c.nodes = append(c.nodes, n)
		args := append([]string{"--name", n.name, "--listen", n.host.addr() + nodePort, "--tree", "server=" + tree}, flags...)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "{host}", n.name)
		}
		if i == 0 {
			n.must("init", args...)
		} else {
			n.must("join", append([]string{c.nodes[0].host.addr() + nodePort, "--token", c.token()}, args...)...)
		}
		n.start()
	}
	c.allSay(5*time.Minute, "all vote", func(s status) error {
		voters := 0
		for _, m := range s.Members {
			if m.Alive && m.Votes {
				voters++
			}
		}
		if want := min(len(c.nodes)-(len(c.nodes)+1)%2, 5); voters < want || s.Leader == "" {
			return fmt.Errorf("sees %+v, leader %q", s.Members, s.Leader)
		}
		return nil
	})
	return c
}

// allSay waits until each node's status is as wanted.
func (c *cluster) allSay(limit time.Duration, what string, ok func(status) error) {
	c.b.t.Helper()
	eventually(c.b.t, limit, what, func() error {
		for _, n := range c.nodes {
			s, err := n.status()
			if err == nil {
				err = ok(s)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
		return nil
	})
}

var tokenForm = regexp.MustCompile(`\bgs1-\S+`)

func (c *cluster) token() string {
	c.b.t.Helper()
	token := tokenForm.FindString(c.nodes[0].must("token"))
	if token == "" {
		c.b.t.Fatal("`gatesync token` prints no token")
	}
	return token
}

// close ends what runs. A test that failed shows the logs, and what the guest's
// one processor was busy with.
func (c *cluster) close() {
	if c.b.t.Failed() {
		top, _ := command("busybox", "top", "-b", "-n", "2", "-d", "2")
		c.b.t.Logf("---- the guest\n%s", tail([]byte(top[max(0, strings.LastIndex(top, "Mem:")):])))
	}
	for _, n := range slices.Backward(c.nodes) {
		if n.daemon == nil {
			continue
		}
		n.signal(syscall.SIGCONT)
		if c.b.t.Failed() {
			c.b.t.Logf("---- %s's status\n%s\n---- the end of its log\n%s", n.name, n.ask("status").stdout+n.ask("held").stdout+n.ask("conflicts").stdout, n.logTail(40))
		}
		n.kill()
		_ = os.RemoveAll(filepath.Dir(n.data))
	}
}

// leader is the node that leads.
func (c *cluster) leader() *node {
	c.b.t.Helper()
	var found *node
	eventually(c.b.t, 30*time.Second, "a leader", func() error {
		for _, n := range c.nodes {
			if s, err := n.status(); err == nil && s.Node.Raft == "leader" {
				found = n
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return found
}

// others are all nodes but one.
func (c *cluster) others(n *node) []*node {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(m *node) bool { return m == n })
}
