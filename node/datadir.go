package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/transport"
	"github.com/gatesync/gatesync/vfs"
)

// dataDir is a node's directory: every path in it is named here.
type dataDir string

func (d dataDir) join(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}
func (d dataDir) nodeFile() string           { return d.join("node.json") }
func (d dataDir) joining() string            { return d.join("joining.json") }
func (d dataDir) peers() string              { return d.join("peers.json") }
func (d dataDir) seen() string               { return d.join("seen.json") }
func (d dataDir) lockFile() string           { return d.join("lock") }
func (d dataDir) raft() string               { return d.join("raft") }
func (d dataDir) blobs() string              { return d.join("blobs") }
func (d dataDir) records(tree string) string { return d.join("trees", tree+".db") }
func (d dataDir) tls() transport.Files       { return transport.FilesIn(d.join("tls")) }

// identityFiles are the cluster's own, or what the operator brought.
func identityFiles(cfg config.Config) transport.Files {
	if cfg.TLS.Own() {
		return transport.Files{CA: cfg.TLS.CA, Cert: cfg.TLS.Cert, Key: cfg.TLS.Key}
	}
	return dataDir(cfg.DataDir).tls()
}

// RunningError: another daemon uses the data directory.
type RunningError struct {
	DataDir string
	PID     string
}

func (e *RunningError) Error() string {
	return fmt.Sprintf("another gatesync (process %s) uses %s: stop it first, or ask it (`gatesync status`)", e.PID, e.DataDir)
}

// ExistsError: the data directory already holds a node.
type ExistsError struct {
	DataDir       string
	Name, Cluster string
}

func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s is already node %s of cluster %s: start it with `gatesync run --data-dir %[1]s`; for another node choose another --data-dir",
		e.DataDir, e.Name, e.Cluster)
}

// claim makes the data directory of a new node and takes its lock; it refuses
// rules that cannot be followed and, unless the node comes again, a directory
// that holds a node already.
func (d dataDir) claim(cfg config.Config, again bool) (*os.File, error) {
	if _, err := ignores(cfg); err != nil {
		return nil, err
	}
	if err := d.vacant(); err != nil && !again { // before the lock: a running node is told by its name
		return nil, err
	}
	return d.prepare()
}

// prepare makes the data directory if need be and takes its lock. One that was
// made by somebody else (a package, a mount) is closed to other users: the key
// of the cluster's CA comes to lie in it.
func (d dataDir) prepare() (*os.File, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if info, err := os.Stat(string(d)); err == nil && info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(string(d), 0o700); err != nil {
			return nil, fmt.Errorf("close the data directory to other users: %w: make it this user's, or choose another --data-dir", err)
		}
	}
	return d.lock()
}

// lock makes sure that one process uses the directory. The kernel lets go of
// it when the process ends, however it ends.
func (d dataDir) lock() (*os.File, error) {
	f, err := os.OpenFile(d.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &RunningError{DataDir: string(d), PID: strings.TrimSpace(string(pid))}
		}
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0) // for RunningError
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the data directory: %w", err), f.Close())
	}
	vfs.SweepReplaced(string(d))
	return f, nil
}

// dyingTime is how long a daemon that starts waits for one that was killed: that lets
// go of its directory only when what it flushes at that moment is on the disk.
const dyingTime = 3 * time.Second

// takeOver takes the lock as soon as a process that was killed has ended. One that
// lives keeps it: RunningError.
func (d dataDir) takeOver() (*os.File, error) {
	for begun := time.Now(); ; time.Sleep(dyingTime / 60) {
		f, err := d.lock()
		if running := (*RunningError)(nil); !errors.As(err, &running) || time.Since(begun) >= dyingTime {
			return f, err
		}
	}
}

// nodeFileFormat is the newest node.json that this program understands.
const nodeFileFormat = 1

// nodeFile is node.json: who this node is. It is written last by init and
// join: a data directory without it holds no node.
type nodeFile struct {
	Format  int            `json:"format"`
	Node    cluster.NodeID `json:"node"`
	Name    string         `json:"name"`
	Cluster string         `json:"cluster"`
	// Address and Epoch are what was last announced; a new address gets a
	// greater epoch.
	Address string     `json:"address"`
	Epoch   uint64     `json:"address_epoch"`
	Joiner  bool       `json:"joiner"` // came into an existing cluster
	Adopt   bool       `json:"adopt"`  // spreads what stood in its trees
	Trees   []treeFile `json:"trees"`

	// Incarnation is the cluster's life that this node belongs to (absent: the
	// first); YieldTo a newer one that it has heard of, until the next start.
	Incarnation cluster.Incarnation `json:"incarnation,omitempty"`
	YieldTo     cluster.Incarnation `json:"yield_to,omitempty"`
	// Starts counts the starts of this data directory.
	Starts uint64 `json:"starts,omitempty"`
	// HasLog: the log was begun here, so that it must be there.
	HasLog bool `json:"has_log,omitempty"`
	// Follower: this node is a follower, as of the log's entry FollowerAt (0: as it
	// came in). What the log says counts once it is read so far.
	Follower   bool   `json:"follower,omitempty"`
	FollowerAt uint64 `json:"follower_at,omitempty"`
	// Store is the blob store that was complete last.
	Store string `json:"store,omitempty"`
}

// treeFile is what the roots' markers must say.
type treeFile struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
	// Made: this node brought the tree into the cluster, so that what stands
	// in it is the tree's content and no stranger.
	Made bool `json:"made"`
	// New: the cluster has not yet taken it in.
	New bool `json:"new,omitempty"`
	// KeepFrom: markers and records from this generation on are this node's own
	// (absent: of Generation alone).
	KeepFrom uint64 `json:"keep_from,omitempty"`
	// Returned: this node has come back into a life of the cluster that was
	// recovered without it. What older generations left goes aside.
	Returned bool `json:"returned,omitempty"`
}

// check refuses what no gatesync has written: names of trees become names of
// files.
func (f *nodeFile) check() error {
	if f.Format > nodeFileFormat {
		return nil // of a newer program: another error says so
	}
	if !idPattern.MatchString(string(f.Node)) || f.Cluster == "" {
		return fmt.Errorf("it names node %q of cluster %q", clip(string(f.Node)), clip(f.Cluster))
	}
	for _, t := range f.Trees {
		if !namePattern.MatchString(t.Name) {
			return fmt.Errorf("it names a tree %q", clip(t.Name))
		}
	}
	return nil
}

func (f *nodeFile) tree(name string) (*treeFile, bool) {
	for i := range f.Trees {
		if f.Trees[i].Name == name {
			return &f.Trees[i], true
		}
	}
	return nil, false
}

func (d dataDir) readNode() (nodeFile, error) {
	var f nodeFile
	err := readJSON(d.nodeFile(), &f)
	if errors.Is(err, fs.ErrNotExist) {
		if d.wasUsed() {
			return f, &PartError{DataDir: string(d), Part: "node.json"}
		}
		return f, fmt.Errorf("%s holds no node: run `gatesync init` (a new cluster) or `gatesync join` (an existing one) first: %w", string(d), err)
	}
	if errors.Is(err, errFileDamaged) {
		return f, fmt.Errorf("who this node is cannot be read: %w. Restore the file from a backup; or "+cluster.ReplaceSelf, err)
	}
	if err != nil {
		return f, fmt.Errorf("read who this node is: %w", err)
	}
	if err := f.check(); err != nil {
		return f, fmt.Errorf("%s is damaged (%w): restore it from a backup; or "+cluster.ReplaceSelf, d.nodeFile(), err)
	}
	if f.Format > nodeFileFormat {
		return f, fmt.Errorf("%s has format %d, this program knows %d: upgrade it", d.nodeFile(), f.Format, nodeFileFormat)
	}
	return f, nil
}

// wasUsed tells whether a daemon has ever run on the directory, whatever is
// left of it.
func (d dataDir) wasUsed() bool {
	if _, err := os.Stat(d.seen()); err == nil {
		return true
	}
	records, err := vfs.Like(d.join("trees"), "*.db")
	return err == nil && len(records) > 0
}

// vacant refuses a directory that already holds a node.
func (d dataDir) vacant() error {
	f, err := d.readNode()
	if err == nil {
		return &ExistsError{DataDir: string(d), Name: f.Name, Cluster: f.Cluster}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d dataDir) writeNode(f nodeFile) error {
	f.Format = nodeFileFormat
	return d.orSpare(func() error { return writeJSON(d.nodeFile(), f) })
}
