package probe

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/doctor"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// NoncePrefix begins the names under .gatesync that doctors make.
const NoncePrefix = "doctor-"

// try makes a directory under .gatesync and tries in it what gatesync needs of
// a filesystem. It stops at the first step that hangs.
func (v *Visit) try(ask Asked) {
	t := &v.Tree
	t.Trial = &doctor.Trial{}
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	nonce := NoncePrefix + hex.EncodeToString(b)
	inner := filepath.Join(t.Real, manifest.MarkerDir)
	dir := filepath.Join(inner, nonce)
	made := false
	ok := v.step("make a directory", func() error {
		err := os.Mkdir(inner, 0o755)
		if made = err == nil; err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		sweep(inner)
		return os.Mkdir(dir, 0o755)
	})
	v.made = ok && made
	if !ok {
		return
	}
	v.Nonce = nonce
	trial{dir: dir, uid: ask.UID, visit: v}.run()
}

// leftFor is how old what another doctor has left must be to be removed.
const leftFor = time.Hour

// sweep removes what doctors that were killed have left.
func sweep(inner string) {
	left, _ := vfs.Like(inner, NoncePrefix+"*")
	for _, dir := range left {
		if fi, err := os.Lstat(dir); err == nil && time.Since(fi.ModTime()) > leftFor {
			_ = os.RemoveAll(dir) // the next one tries again
		}
	}
}

// step runs one operation under its deadline and writes down what came of it.
// It tells whether the operation succeeded.
func (v *Visit) step(op string, fn func() error) bool {
	if v.Tree.Hung != "" {
		return false
	}
	begun := time.Now()
	_, err := within(v.limit, func() (struct{}, error) { return struct{}{}, fn() })
	s := doctor.Step{Op: op, Took: time.Since(begun)}
	if err != nil {
		s.Err = err.Error()
	}
	if errors.Is(err, errHung) {
		v.Tree.Hung = op
	}
	v.Tree.Trial.Steps = append(v.Tree.Trial.Steps, s)
	return err == nil
}

// trial is the operations on one directory of its own.
type trial struct {
	dir   string
	uid   uint32
	visit *Visit
}

func (x trial) path(name string) string { return filepath.Join(x.dir, name) }

func (x trial) run() {
	v := x.visit
	a, b := x.path("a"), x.path("b")
	before := time.Now()
	if !v.step("create", func() error { return os.WriteFile(a, nil, 0o600) }) {
		return
	}
	if !v.step("write", func() error { return os.WriteFile(a, []byte("what stands here is the doctor's\n"), 0o600) }) {
		return
	}
	var st unix.Stat_t
	if !v.step("read back", func() (err error) { st, err = readBack(a); return err }) {
		return
	}
	v.Tree.Trial.Owner = st.Uid
	clock(v.Tree.Trial, time.Unix(st.Mtim.Sec, st.Mtim.Nsec), before, time.Now())
	v.step("flush", func() error { return flush(a, x.dir) })
	v.step("change mode", func() error { return chmod(a) })
	if x.uid == 0 {
		v.Tree.Trial.Chown = v.step("change owner", func() error { return chown(a) })
	}
	v.step("symlink", func() error { return os.Symlink("a", x.path("link")) })
	v.step("link", func() error { return os.Link(a, b) })
	v.step("rename", func() error { return os.Rename(x.path("link"), b) })
	x.features(a)
	v.step("remove", func() error { return errors.Join(os.Remove(b), os.Remove(a)) })
}

// features tries what need not work.
func (x trial) features(a string) {
	v := x.visit
	if v.Tree.Hung != "" {
		return
	}
	var caps vfs.Capabilities
	if v.step("stage", func() error {
		// The same look that the daemon takes, with the staging directory in here.
		root, err := vfs.OpenRoot(v.Tree.Real, vfs.Options{Staging: x.path("staging")})
		if err != nil {
			return err
		}
		caps = root.Capabilities()
		return root.Close()
	}) {
		v.Tree.Trial.Exchange, v.Tree.Trial.Leases = caps.Exchange, caps.Leases
	}
	begun := time.Now()
	_, err := within(v.limit, func() (struct{}, error) { return struct{}{}, lock(a) })
	// One that does not come is no hung tree: a file server that has just
	// started gives none for a while.
	v.Tree.Trial.Locks = err == nil
	s := doctor.Step{Op: "lock", Took: time.Since(begun)}
	if err != nil {
		s.Err = err.Error()
	}
	v.Tree.Trial.Steps = append(v.Tree.Trial.Steps, s)
}

func readBack(file string) (st unix.Stat_t, err error) {
	f, err := os.Open(file) // NFS asks the server at an open
	if err != nil {
		return st, err
	}
	defer f.Close()
	b := make([]byte, 64)
	if n, err := f.Read(b); err != nil || n == 0 {
		return st, errors.Join(errors.New("what was written is not there"), err)
	}
	return st, unix.Fstat(int(f.Fd()), &st)
}

// clock compares a time that the filesystem has set with when it did so.
func clock(t *doctor.Trial, mtime, before, after time.Time) {
	middle := before.Add(after.Sub(before) / 2)
	t.Clock, t.ClockErr, t.HasClock = mtime.Sub(middle), after.Sub(before)/2+20*time.Millisecond, true
	if mtime.Nanosecond() == 0 { // it counts whole seconds
		t.ClockErr += time.Second
	}
}

func flush(file, dir string) error {
	for _, name := range []string{file, dir} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func chmod(file string) error {
	if err := os.Chmod(file, 0o751); err != nil {
		return err
	}
	fi, err := os.Stat(file)
	if err == nil && fi.Mode().Perm() != 0o751 {
		return errors.New("modes are not kept there")
	}
	return err
}

func chown(file string) error {
	if err := os.Chown(file, 1, 1); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Uid != 1 || st.Gid != 1 {
		return errors.New("owners are not kept there")
	}
	return nil
}

func lock(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: 0, Len: 0})
}
