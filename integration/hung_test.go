package integration

import (
	"bufio"
	"io"
	"strings"
	"syscall"
	"testing"
)

// A daemon that is stopped while a command waits for its answer: whoever typed
// that is told, and what to do next.
func TestDaemonStopsAnsweringInACall(t *testing.T) {
	t.Parallel()
	n := newCluster(t, 1).nodes[0]
	wait := n.command("wait", "--data-dir", n.data, "--revision", "1000000", "--timeout", "0")
	wait.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := wait.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(said)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "still waiting for") { // so it is in a call
		t.Errorf("%q, %v", line, err)
	}
	signal(t, n, syscall.SIGSTOP)
	rest, _ := io.ReadAll(lines)
	_ = wait.Wait()
	if code := wait.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"runs and does not answer any more", "gatesync doctor"} {
		if !strings.Contains(string(rest), want) {
			t.Errorf("%q is not in\n%s", want, rest)
		}
	}
	signal(t, n, syscall.SIGCONT)
}

// Who waits for long is not taken for one who asks too often.
func TestLongCallsLast(t *testing.T) {
	t.Parallel()
	n := newCluster(t, 1).nodes[0]
	if a := n.ask("wait", "--revision", "1000000", "--timeout", "50s"); a.code != 1 || !strings.Contains(a.stderr, "not applied within 50s") {
		t.Errorf("exit code %d:\n%s", a.code, a.stderr)
	}
}
