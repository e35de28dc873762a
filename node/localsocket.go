package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gatesync/gatesync/transport"
)

const (
	socketName = "gatesync.sock"
	// maxSocketPath is what fits into a sockaddr_un.
	maxSocketPath = 107
)

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

// DialLocal connects to the daemon of a data directory.
func DialLocal(ctx context.Context, dataDir string) (*grpc.ClientConn, error) {
	c, err := dialSocket(ctx, dataDir)
	if err != nil {
		return nil, &NotRunningError{DataDir: dataDir, Cause: err}
	}
	_ = c.Close() // it was only to find out
	opts := append(transport.StatusDialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialSocket(ctx, dataDir) }))
	return grpc.NewClient("passthrough:///gatesync.sock", opts...)
}

func dialSocket(ctx context.Context, dataDir string) (c net.Conn, err error) {
	err = withSocketPath(dataDir, func(path string) error {
		c, err = new(net.Dialer).DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}

// listenLocal opens the socket. The caller holds the lock of the data
// directory, so that what is left of an earlier daemon may be removed.
func listenLocal(dataDir string) (*net.UnixListener, error) {
	if err := os.Remove(filepath.Join(dataDir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
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
	if err := os.Chmod(filepath.Join(dataDir, socketName), 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// withSocketPath calls fn with a path of the socket that is short enough for
// the kernel: a deep data directory is reached through a descriptor.
func withSocketPath(dataDir string, fn func(path string) error) error {
	path := filepath.Join(dataDir, socketName)
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
