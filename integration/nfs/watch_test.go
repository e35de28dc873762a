package nfs

import (
	"bufio"
	"context"
	"fmt"
	"github.com/gatesync/gatesync/node/local"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// watch asks a node for its status again and again, over its socket, and
// remembers the slowest answer.
type watch struct {
	n    *node
	stop context.CancelFunc
	ends sync.WaitGroup

	mu      sync.Mutex
	asked   int
	late    int // answers
	slowest time.Duration
	failed  error
}

// statusWithin is how long an answer may take, whatever has become of a mount.
// One in twenty may take longer: a guest on a busy machine stands still at times.
const statusWithin = 2 * time.Second

// watch begins; end tells what came of it.
func (n *node) watch() *watch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{n: n, stop: cancel}
	w.ends.Go(func() { w.run(ctx) })
	n.host.b.t.Cleanup(func() { cancel(); w.ends.Wait() })
	return w
}

func (w *watch) run(ctx context.Context) {
	for sleep(ctx, 200*time.Millisecond) {
		took, err := w.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		w.asked++
		w.slowest = max(w.slowest, took)
		if took > statusWithin {
			w.late++
		}
		if err != nil && w.failed == nil {
			w.failed = err
		}
		w.mu.Unlock()
	}
}

func (w *watch) ask(ctx context.Context) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*slack*time.Second)
	defer cancel()
	conn, err := local.Dial(ctx, w.n.data)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	start := time.Now()
	_, err = pb.NewLocalClient(conn).Status(ctx, &pb.StatusRequest{})
	if took = time.Since(start); err != nil {
		err = fmt.Errorf("status after %v: %w", took.Round(time.Millisecond), err)
	}
	return took, err
}

// end stops the asking; each answer must have come in time.
func (w *watch) end() {
	t := w.n.host.b.t
	t.Helper()
	w.stop()
	w.ends.Wait()
	switch {
	case w.failed != nil:
		t.Errorf("%s: %v", w.n.name, w.failed)
	case w.late > 1+w.asked/20:
		t.Errorf("%s's status took up to %v, and %d of %d answers more than %v", w.n.name, w.slowest.Round(time.Millisecond), w.late, w.asked, statusWithin)
	}
	t.Logf("%s: %d answers, the slowest took %v", w.n.name, w.asked, w.slowest.Round(time.Millisecond))
}

// goroutines counts the daemon's, by its metrics.
func (n *node) goroutines() int {
	t := n.host.b.t
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: n.host.dial}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get("http://" + httpPort + "/metrics")
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		var count int
		if k, _ := fmt.Sscanf(lines.Text(), "go_goroutines %d", &count); k == 1 && strings.HasPrefix(lines.Text(), "go_goroutines ") {
			return count
		}
	}
	t.Fatalf("%s's metrics do not count its goroutines", n.name)
	return 0
}

// dial connects from the host's own network. The thread that entered it is
// never given back.
func (h *host) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	type dialed struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialed, 1)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+h.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err != nil {
			done <- dialed{nil, err}
			return
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		done <- dialed{conn, err}
	}()
	d := <-done
	return d.conn, d.err
}
