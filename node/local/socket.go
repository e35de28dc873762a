package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/transport"
)

const (
	socketName = "gatesync.sock"
	// maxSocketPath is what fits into a sockaddr_un.
	maxSocketPath = 107
	// answerWithin is how long a daemon may take to say anything at all.
	answerWithin = 10 * time.Second
	// pingEvery is after how much silence of a daemon a command that waits for
	// it asks whether it is there; gRPC knows no shorter time.
	pingEvery = 10 * time.Second
)

// Socket is the path of a data directory's socket.
func Socket(dataDir string) string { return filepath.Join(dataDir, socketName) }

// NotRunningError: no daemon answers on the socket of a data directory.
type NotRunningError struct {
	DataDir string
	Cause   error
}

func (e *NotRunningError) Error() string {
	if errors.Is(e.Cause, os.ErrPermission) {
		return fmt.Sprintf("the daemon's socket in %s may not be used by this user: run the command as the daemon's user", e.DataDir)
	}
	return fmt.Sprintf("the daemon of %s is not running: start it with `gatesync run --data-dir %s`", e.DataDir, e.DataDir)
}

func (e *NotRunningError) Unwrap() error { return e.Cause }

// HungError: a daemon has the socket of a data directory and does not answer.
type HungError struct {
	DataDir string
	PID     int  // 0: not known
	Begun   bool // it had taken the call up
}

func (e *HungError) Error() string {
	who := "the daemon of " + e.DataDir
	if e.PID > 0 {
		who += fmt.Sprintf(" (process %d)", e.PID)
	}
	answers := "does not answer"
	if e.Begun {
		answers = "does not answer any more (what was asked of it may still be done when it goes on)"
	}
	return fmt.Sprintf("%s runs and %s: look at its log, its disks and the machine's load; `gatesync doctor` says more", who, answers)
}

// Dial connects to the daemon of a data directory. It returns a
// *NotRunningError where there is none, and a *HungError for one that does not
// answer. A call, however long it takes, fails with a *HungError too when the
// daemon has stopped answering meanwhile.
func Dial(ctx context.Context, dir string) (*grpc.ClientConn, error) {
	c, err := dialSocket(ctx, dir)
	if err != nil {
		return nil, &NotRunningError{DataDir: dir, Cause: err}
	}
	pid := pidOf(c)
	_ = c.Close() // it was only to find out
	opts := append(transport.StatusDialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: answerWithin}),
		grpc.WithChainUnaryInterceptor(hungUnary(dir)),
		grpc.WithChainStreamInterceptor(hungStream(dir)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialSocket(ctx, dir) }))
	conn, err := grpc.NewClient("passthrough:///gatesync.sock", opts...)
	if err != nil {
		return nil, err
	}
	if !answers(ctx, conn) {
		return nil, errors.Join(&HungError{DataDir: dir, PID: pid}, conn.Close())
	}
	return conn, nil
}

// answers waits until the other end of a connection says something: the kernel
// accepts for a process that is stopped. It is false when that takes too long;
// what fails otherwise is for the call to tell.
func answers(ctx context.Context, conn *grpc.ClientConn) bool {
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn.Connect()
	for {
		state := conn.GetState()
		if state == connectivity.Ready || state == connectivity.TransientFailure {
			return true
		}
		if !conn.WaitForStateChange(within, state) {
			return errors.Is(ctx.Err(), context.Canceled)
		}
	}
}

// ServerOptions let commands ask whether the daemon is still there, and
// bound how long a connection may take to say what it is.
func ServerOptions() []grpc.ServerOption {
	return append(transport.StatusServerOptions(),
		grpc.ConnectionTimeout(answerWithin),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingEvery / 2}))
}

// hung turns the end of a connection into a *HungError where the daemon is
// there and silent: a ping was not answered, and neither is a new connection.
func hung(ctx context.Context, dir string, err error) error {
	if status.Code(err) != codes.Unavailable || len(status.Convert(err).Details()) > 0 || ctx.Err() != nil {
		return err // an answer, or nobody wants one any more
	}
	conn, again := Dial(ctx, dir)
	var silent *HungError
	if errors.As(again, &silent) {
		silent.Begun = true
		return silent
	}
	if again == nil {
		_ = conn.Close()
	}
	return err
}

func hungUnary(dir string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return hung(ctx, dir, invoke(ctx, method, req, reply, conn, opts...))
	}
}

func hungStream(dir string) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := open(ctx, desc, conn, method, opts...)
		if err != nil {
			return nil, hung(ctx, dir, err)
		}
		return &mayHang{ClientStream: s, hung: func(err error) error { return hung(ctx, dir, err) }}, nil
	}
}

// mayHang is a stream of which each answer may fail to come.
type mayHang struct {
	grpc.ClientStream
	hung func(error) error
}

func (s *mayHang) RecvMsg(m any) error {
	return s.hung(s.ClientStream.RecvMsg(m))
}

// pidOf is the process that opened the socket at the other end, 0: not known.
func pidOf(c net.Conn) (pid int) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(who.Pid)
		}
	})
	return pid
}

func dialSocket(ctx context.Context, dataDir string) (c net.Conn, err error) {
	err = withSocketPath(dataDir, func(path string) error {
		c, err = new(net.Dialer).DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}

// Listen opens the socket. The caller holds the lock of the data
// directory, so that what is left of an earlier daemon may be removed.
func Listen(dataDir string) (*net.UnixListener, error) {
	if err := os.Remove(Socket(dataDir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	var ln *net.UnixListener
	err := withSocketPath(dataDir, func(path string) (err error) {
		ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the local socket: %w", err)
	}
	ln.SetUnlinkOnClose(false) // its path may have gone through a descriptor; closeLocal removes it
	if err := os.Chmod(Socket(dataDir), 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// withSocketPath calls fn with a path of the socket that is short enough for
// the kernel: a deep data directory is reached through a descriptor.
func withSocketPath(dataDir string, fn func(path string) error) error {
	path := Socket(dataDir)
	if len(path) <= maxSocketPath {
		return fn(path)
	}
	dir, err := os.Open(dataDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName))
}
