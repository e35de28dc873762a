package fallback

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/vfs"
)

// What stands on a share: the marker, and for each cluster a directory with
// parcels and with one file for each node that sees it.
const (
	// ShareMarker says that a directory is a share of gatesync's. An empty one
	// is a person's word that the directory is meant.
	ShareMarker = "gatesync-share.json"
	shareFormat = 1
	blobsDir    = "blobs"
	nodesDir    = "nodes"
)

type shareMarker struct {
	Format int `json:"format"`
}

// NotShareError: a directory cannot be taken as a share.
type NotShareError struct{ Path, Why string }

func (e *NotShareError) Error() string { return fmt.Sprintf("share %s: %s", e.Path, e.Why) }

// PrepareShare makes sure that a directory can be used as a share, and makes
// its marker where it is an empty directory on a mount. It waits for a mount
// that hangs as long as a gate does. apart is ShareConfig's.
func PrepareShare(path string, apart func(real string) error) error {
	g := vfs.NewGate(path)
	top, err := openShare(g, path, apart)
	if err != nil {
		return err
	}
	return g.Close("close", top.Close)
}

// openShare opens the directory and makes sure, by that descriptor, that it is
// a share.
func openShare(g *vfs.Gate, path string, apart func(real string) error) (*os.Root, error) {
	if err := g.Resolve(); err != nil {
		return nil, shareMissing(path, err)
	}
	if err := apart(g.Real()); err != nil { // before anything is written there
		return nil, err
	}
	mount, err := g.Mount()
	if err != nil {
		return nil, err
	}
	return vfs.Pass(g, "open", func() (*os.Root, error) {
		top, err := os.OpenRoot(path)
		if err != nil {
			return nil, shareMissing(path, err)
		}
		if err := checkMarker(top, path, mount); err != nil {
			_ = top.Close()
			return nil, err
		}
		return top, nil
	}, func(top *os.Root) { _ = top.Close() })
}

func shareMissing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &NotShareError{path, "there is no such directory: mount it, or make it on the mount"}
	}
	return err
}

// checkMarker reads the marker, or makes it where that is safe: in an empty
// directory that certainly lies on a mount. The empty directory that is left
// where nothing is mounted lies on the machine's own disk.
func checkMarker(top *os.Root, path string, mount vfs.Mount) error {
	text, err := readSmall(top, ShareMarker)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := emptyOnMount(top, path, mount); err != nil {
			return err
		}
	case err != nil:
		return err
	case len(strings.TrimSpace(string(text))) > 0:
		var m shareMarker
		if err := json.Unmarshal(text, &m); err != nil || m.Format < 1 {
			return &NotShareError{path, ShareMarker + " is damaged: remove it and everything else in the directory, and it is made anew"}
		}
		if m.Format > shareFormat {
			return &NotShareError{path, fmt.Sprintf("it has format %d, this program knows %d: upgrade it", m.Format, shareFormat)}
		}
		return nil
	}
	text, err = json.Marshal(shareMarker{Format: shareFormat})
	if err != nil {
		return err
	}
	return writeSmall(top, ShareMarker, append(text, '\n'), 0o644)
}

func emptyOnMount(top *os.Root, path string, mount vfs.Mount) error {
	dir, err := top.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	meant := fmt.Sprintf("; if this very directory is meant, say so with: touch %s/%s", path, ShareMarker)
	// A mount of its own, or a network file system: not the disk below.
	if mount.Local() && mount.Point == "/" || mount.Local() && mount.Point != path {
		return &NotShareError{path, "nothing is mounted there (it lies on " + mount.Point + ", " + mount.Type + "): mount the share" + meant}
	}
	if dev := unix.Mkdev(mount.Major, mount.Minor); dev != st.Dev && mount.Type != "btrfs" {
		return &NotShareError{path, "what is mounted there has just changed; it is looked at again"}
	}
	names, err := dir.Readdirnames(16)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, n := range names {
		if n != "lost+found" && n != ".snapshot" && !strings.HasPrefix(n, ".nfs") && !strings.HasPrefix(n, ShareMarker) {
			return &NotShareError{path, fmt.Sprintf("it is not empty (%s) and has no %s: name an empty directory on the mount", n, ShareMarker) + meant}
		}
	}
	return nil
}

// open takes the share up: the marker, this cluster's directories, and this
// node's nonce, by which the others see that it sees what they see.
func (s *Share) open() error {
	top, err := openShare(s.gate, s.path, s.apart)
	if err != nil {
		return err
	}
	nonce := newNonce()
	dir, err := vfs.Pass(s.gate, "take up", func() (*os.Root, error) { return s.takeUp(top, nonce) }, func(dir *os.Root) { _ = errors.Join(dir.Close(), top.Close()) })
	if err != nil {
		if !errors.Is(err, vfs.ErrHung) {
			_ = s.gate.Close("close", top.Close)
		}
		return err
	}
	s.mu.Lock()
	s.top, s.dir, s.nonce = top, dir, nonce
	s.why, s.said, s.since = "", "", time.Now()
	clear(s.proved) // of another directory, perhaps
	clear(s.doubts)
	s.mu.Unlock()
	s.log.Info("the share can be used", "path", s.path)
	return nil
}

// takeUp runs on a goroutine of its own, which may be left behind: it touches
// nothing of s that changes.
func (s *Share) takeUp(top *os.Root, nonce string) (dir *os.Root, err error) {
	for _, name := range []string{s.cluster, s.cluster + "/" + blobsDir, s.cluster + "/" + nodesDir} {
		if err := top.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	if dir, err = top.OpenRoot(s.cluster); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = dir.Close()
		}
	}()
	old, err := list(dir, nodesDir)
	if err != nil {
		return nil, err
	}
	for _, e := range old {
		if strings.HasPrefix(e.Name(), string(s.self)+".") { // of an earlier run
			_ = dir.Remove(nodesDir + "/" + e.Name())
		}
	}
	return dir, writeSmall(dir, nodesDir+"/"+nonceFile(s.self, nonce), []byte(s.self), 0o600)
}

func nonceFile(id cluster.NodeID, nonce string) string { return string(id) + "." + nonce }

// list reads a directory; what vanishes meanwhile is left out by ReadDir.
func list(dir *os.Root, name string) ([]os.DirEntry, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// readSmall reads a small file.
func readSmall(dir *os.Root, name string) ([]byte, error) {
	f, err := openRegular(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// openRegular opens what must be a plain file, whatever else somebody may have
// put there.
func openRegular(dir *os.Root, name string) (*os.File, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no plain file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// writeSmall writes a file beside, flushed, and renames it into place.
func writeSmall(dir *os.Root, name string, content []byte, mode os.FileMode) (err error) {
	part := name + "." + newNonce() + partSuffix
	f, err := dir.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = dir.Rename(part, name)
	}
	if err != nil {
		_ = dir.Remove(part)
	}
	return err
}
