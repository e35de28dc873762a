package nfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// bed is what stands inside of the guest: a file server and three hosts, each
// with a network, an address and a name of its own, on one switch. One kernel
// runs all of it, and there is one view of what is mounted where; so a test
// reads and writes a host's mounts as that host's gateway would, by their
// paths.
type bed struct {
	t      testing.TB // the (sub)test that runs, see in
	server *server
	hosts  []*host
}

const hostCount = 3

// newBed lays the bed. It is called once in a test, at its start; on a host
// that cannot boot a guest it skips the test.
func newBed(t testing.TB) *bed {
	t.Helper()
	if os.Getenv(inGuest) == "" {
		t.Skipf("NEEDS A GUEST to mount NFS in: %v", absent)
	}
	b := &bed{t: t}
	b.must("mount", "-o", "remount,size=80%", "/tmp") // all that the nodes store
	b.must("ip", "link", "set", "lo", "up")
	b.must("ip", "link", "add", "br0", "type", "bridge")
	b.must("ip", "addr", "add", serverAddr+"/24", "dev", "br0")
	b.must("ip", "link", "set", "br0", "up")
	for range hostCount {
		b.addHost()
	}
	b.server = newServer(b)
	return b
}

// addHost adds one to those that are there anyway.
func (b *bed) addHost() *host {
	b.t.Helper()
	h := newHost(b, len(b.hosts)+1)
	b.hosts = append(b.hosts, h)
	return h
}

// size returns how large a scenario is: such that all of them end within
// minutes on two slow processors, or in full with GATESYNC_LONG.
func size[T any](short, full T) T {
	if os.Getenv("GATESYNC_LONG") != "" {
		return full
	}
	return short
}

// in makes a subtest the one that fails when something does.
func (b *bed) in(t testing.TB) {
	outer := b.t
	b.t = t
	t.Cleanup(func() { b.t = outer })
}

// must runs a command of the guest.
func (b *bed) must(words ...string) string {
	b.t.Helper()
	out, err := command(words...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// command runs a command and returns what it said.
func command(words ...string) (string, error) {
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

func (b *bed) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// within runs what may hang in a mount that does not answer, and tells after
// the limit that it does. What hangs goes on, in a thread of its own, until the
// server answers.
func within(limit time.Duration, op func() error) error {
	done := make(chan error, 1)
	go func() { done <- op() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return errHangs
	}
}

var errHangs = errors.New("hangs")

// slack is how many times longer than its limit something may take before a test
// gives up on it. The limits are what suffices on the machines that we know; what is
// only slow is no fault, and what hangs does so for ever.
const slack = 4

// eventually asks until ask returns nil, and fails the test with its last
// error when the time is up. It returns how long it took. Most of the guest's one
// processor is left to what is waited for.
func eventually(t testing.TB, limit time.Duration, what string, ask func() error) time.Duration {
	t.Helper()
	limit *= slack
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	pause := 10 * time.Millisecond
	for {
		asked := time.Now()
		err := ask()
		if err == nil {
			return time.Since(start)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-time.After(max(pause, 3*time.Since(asked))):
		}
		pause = min(2*pause, 250*time.Millisecond)
	}
}
