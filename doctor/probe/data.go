package probe

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/doctor"
)

// Data looks at a data directory. key is the private key's file.
func (m Machine) Data(path, key string, reserve int64) doctor.Data {
	d, err := within(m.limit(), func() (doctor.Data, error) { return m.data(path, key, reserve) })
	if err != nil {
		d.Path, d.Err = path, err.Error()
	}
	return d
}

func (m Machine) data(path, key string, reserve int64) (doctor.Data, error) {
	d := doctor.Data{Path: path, Reserve: reserve}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return d, err
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return d, &os.PathError{Op: "stat", Path: real, Err: err}
	}
	d.Mode, d.UID = modeOf(st), st.Uid
	if fi, err := os.Stat(key); err == nil {
		d.KeyMode = doctor.Perm(fi.Mode().Perm())
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(real, &fs); err != nil {
		return d, &os.PathError{Op: "statfs", Path: real, Err: err}
	}
	d.Free, d.Files, d.FreeFiles = int64(fs.Bavail)*fs.Bsize, fs.Files, fs.Ffree
	mounts, err := m.Mounts()
	if err != nil {
		return d, err
	}
	d.Mount = mountOf(mounts, real)
	return d, nil
}

func modeOf(st unix.Stat_t) doctor.Perm { return doctor.Perm(st.Mode & 0o777) }
