package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// pushBed is a folder and a target on this machine, reached as over ssh.
type pushBed struct {
	t        testing.TB
	src, dst string
	data     string   // the target's; "": where it is by itself
	binary   string   // gatesync over there
	ssh      string   // the ssh command
	to       string   // TARGET
	vars     []string // more of the pusher's environment
}

// pushed is what `push --json` prints of one tree.
type pushed struct {
	Tree      string `json:"tree"`
	Added     uint64 `json:"added"`
	Changed   uint64 `json:"changed"`
	Deleted   uint64 `json:"deleted"`
	Unchanged uint64 `json:"unchanged"`
	Files     int    `json:"files_sent"`
	Content   int64  `json:"content_bytes"`
	Resumed   int64  `json:"resumed_bytes"`
	Sent      int64  `json:"wire_sent"`
	Received  int64  `json:"wire_received"`
	Paths     []struct {
		Path string `json:"path"`
		What string `json:"what"`
		Why  string `json:"why"`
	} `json:"paths"`
}

func (p pushed) wire() int64 { return p.Sent + p.Received }

// what lists the paths of the report with a word.
func (p pushed) what(word string) (paths []string) {
	for _, l := range p.Paths {
		if l.What == word {
			paths = append(paths, l.Path)
		}
	}
	return paths
}

// sshStub stands in for ssh where sshd itself is not the point: it runs the
// command here, by the shell, as sshd would.
const sshStub = `#!/bin/sh
while [ "$1" != "--" ]; do shift; done
shift 2
exec sh -c "$*"
`

func newPushBed(t testing.TB) *pushBed {
	t.Helper()
	dir := tempDir(t)
	b := &pushBed{t: t, src: filepath.Join(dir, "src"), dst: filepath.Join(dir, "dst"), data: filepath.Join(dir, "data"), ssh: filepath.Join(dir, "ssh"), binary: gatesync}
	b.to = "ssh://there" + b.dst
	if err := os.Mkdir(b.src, 0o755); err != nil {
		t.Fatal(err)
	}
	writeScript(t, b.ssh, sshStub)
	return b
}

// writeScript writes a program. No child that another test starts meanwhile may
// inherit the file as open for writing: until that child has called exec, the program
// is busy (golang/go#22315).
func writeScript(t testing.TB, file, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (b *pushBed) command(args ...string) *exec.Cmd {
	line := append([]string{"push", "--from", b.src, b.to, "--ssh", b.ssh, "--remote-binary", b.binary}, args...)
	if b.data != "" {
		line = append(line, "--remote-data-dir", b.data)
	}
	cmd := exec.Command(gatesync, line...)
	cmd.Env = append(append(os.Environ(), "GATESYNC_FREE_RESERVE=1MB"), b.vars...)
	return cmd
}

// push pushes and returns the report and how the command ended.
func (b *pushBed) push(args ...string) (pushed, answer) {
	b.t.Helper()
	cmd := b.command(append([]string{"--json"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	a := answer{stdout.String(), stderr.String(), 0}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		a.code = exit.ExitCode()
	} else if err != nil {
		b.t.Fatal(err)
	}
	var all []pushed
	if strings.HasPrefix(a.stdout, "[") {
		if err := json.Unmarshal(stdout.Bytes(), &all); err != nil {
			b.t.Fatalf("%v in %s", err, a.stdout)
		}
	}
	if len(all) == 0 {
		return pushed{}, a
	}
	return all[0], a
}

// must pushes what has to succeed with a code, after which both are equal.
func (b *pushBed) must(args ...string) pushed {
	b.t.Helper()
	p, a := b.push(args...)
	if a.code != 0 {
		b.t.Fatalf("push %q: exit code %d\n%s%s", args, a.code, a.stdout, a.stderr)
	}
	b.same()
	return p
}

// same compares the two directories.
func (b *pushBed) same() {
	b.t.Helper()
	out, err := exec.Command("diff", "-r", "--no-dereference", "-x", ".gatesync", b.src, b.dst).CombinedOutput()
	if err != nil {
		b.t.Fatalf("the target is not the folder: %v\n%.2000s", err, out)
	}
}

// files writes files into a directory; "" removes one. What stood there goes
// first, so that nothing is written through a link.
func files(t testing.TB, dir string, content map[string]string) {
	t.Helper()
	for p, c := range content {
		p = filepath.Join(dir, p)
		err := os.RemoveAll(p)
		if c != "" {
			if err = os.MkdirAll(filepath.Dir(p), 0o755); err == nil {
				err = os.WriteFile(p, []byte(c), 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// some is a little tree of n files.
func some(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[fmt.Sprintf("d%d/f%d.xml", i%5, i)] = fmt.Sprintf("<api name='%d'/>", i)
	}
	return out
}
