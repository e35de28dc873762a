package node

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// spareSize is room for node.json many times over.
const spareSize = 64 << 10

// keepSpare keeps a little room that nobody else can take: a start has to write
// node.json, and a node whose disk is full should be able to start, say so, and
// go on by itself. Where there is no room for it, there will be at a later start.
func (d dataDir) keepSpare() {
	if st, err := os.Stat(d.spare()); err == nil && st.Size() == spareSize {
		return
	}
	f, err := os.OpenFile(d.spare(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, spareSize)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.Write(make([]byte, spareSize))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(d.spare())
	}
}

func (d dataDir) spare() string { return d.join("spare") }

// orSpare writes, on a full disk with the room that was kept.
func (d dataDir) orSpare(write func() error) error {
	err := write()
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && os.Remove(d.spare()) == nil {
		return write()
	}
	return err
}
