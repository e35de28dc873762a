package fallback

import (
	"errors"
	"io"
	"os"
)

// spoolMemory is how much of a spool stays in memory.
const spoolMemory = 1 << 20

// errTooLong: more was written to a spool than was said.
var errTooLong = errors.New("longer than was allowed")

// spool holds a delta: in memory, a longer one in a file without a name, which
// is gone with the process. One goroutine writes it; after that any may read.
type spool struct {
	dir  string // of the file; "": the system's
	most int64
	size int64
	mem  []byte
	file *os.File
}

// Write implements io.Writer; errTooLong.
func (s *spool) Write(b []byte) (int, error) {
	if int64(len(b)) > s.most-s.size {
		return 0, errTooLong
	}
	if s.file == nil && s.size+int64(len(b)) <= spoolMemory {
		s.mem = append(s.mem, b...)
		s.size += int64(len(b))
		return len(b), nil
	}
	if s.file == nil {
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	n, err := s.file.Write(b)
	s.size += int64(n)
	return n, err
}

func (s *spool) spill() error {
	f, err := os.CreateTemp(s.dir, "gatesync-delta-")
	if err != nil {
		return err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.Write(s.mem)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.file, s.mem = f, nil
	return nil
}

// ReadAt implements io.ReaderAt.
func (s *spool) ReadAt(b []byte, off int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(b, off)
	}
	if off >= int64(len(s.mem)) {
		return 0, io.EOF
	}
	n := copy(b, s.mem[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (s *spool) reader() io.Reader { return io.NewSectionReader(s, 0, s.size) }

// Close lets go of the file.
func (s *spool) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
