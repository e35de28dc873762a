package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/fallback/target"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// terminal returns a terminal, and what was written to it once it is closed.
func terminal(t *testing.T) (tty *os.File, text func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 160})
	}
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(&out, master) }) // ends with an error when the terminal is closed
	return tty, func() string {
		_ = tty.Close()
		reading.Wait()
		_ = master.Close()
		return out.String()
	}
}

// A bar that never reached its total does not keep the command from ending.
func TestProgressOnATerminalEnds(t *testing.T) {
	tty, text := terminal(t)
	p := newProgress(tty)
	p.show(&pb.Progress{Tree: "server", Done: 3, Total: 10})
	p.show(&pb.Progress{Tree: "server", Done: 4, Total: 12})
	ends(t, p.end)
	if got := text(); !strings.Contains(got, "server") {
		t.Errorf("%q", got)
	}

	tty, text = terminal(t)
	q := newPushProgress(tty)
	for _, phase := range []string{"look", "send", "apply"} {
		q.show(target.Progress{Tree: "tenants", Phase: phase, Done: 1, Total: 5, Bytes: 1 << 20, Of: 5 << 20, Wire: 1000})
	}
	ends(t, q.end)
	text()
}

func ends(t *testing.T, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}
