package errorfs

import (
	"errors"
	"fmt"
	"sync"
)

// The names of the operations: those of vfs.FS are called as its methods are.
const (
	FileRead    = "File.Read"
	FileReadAt  = "File.ReadAt"
	FileStat    = "File.Stat"
	FileLease   = "File.Lease"
	FileSync    = "File.Sync"
	FileClose   = "File.Close"
	WFileWrite  = "WFile.Write"
	WFileSync   = "WFile.Sync"
	WFileChmod  = "WFile.Chmod"
	WFileTimes  = "WFile.Chtimes"
	WFileStat   = "WFile.Stat"
	WFileClose  = "WFile.Close"
	LeaseIntact = "Lease.Intact"  // an injected error makes it false
	LeaseGive   = "Lease.Release" // an injected error makes it false, and the lease is released
)

// Injector is asked before each operation. An error is returned in the
// operation's place, which then does not happen. p is the path, or the staged
// name; "" where there is none. It may be called from many goroutines.
type Injector interface {
	Op(op string, p string) error
}

// Func makes an Injector of a function.
type Func func(op, p string) error

// Op implements Injector.
func (f Func) Op(op, p string) error { return f(op, p) }

// Always fails every operation of that name; "" is any name.
func Always(op string, err error) Injector { return On(op, "", err) }

// On fails the operation of that name on one path; "" is any name, any path.
func On(op, path string, err error) Injector {
	return Func(func(o, p string) error {
		if (op == "" || o == op) && (path == "" || p == path) {
			return err
		}
		return nil
	})
}

// Nth asks i at the nth operation of that name, counted from 1, and at no
// other. The empty name counts them all.
func Nth(op string, n int, i Injector) Injector {
	var c counter
	return Func(func(o, p string) error {
		if (op == "" || o == op) && c.next() == n {
			return i.Op(o, p)
		}
		return nil
	})
}

// FailNth fails the nth operation of that name, see Nth.
func FailNth(op string, n int, err error) Injector { return Nth(op, n, Always(op, err)) }

// Delay calls wait before every operation of that name.
func Delay(op string, wait func()) Injector {
	return Func(func(o, _ string) error {
		if o == op {
			wait()
		}
		return nil
	})
}

// Short is an error that an Injector returns to shorten a WFile.Write or a
// File.Read: the first Bytes of it happen. A Write then fails with Err, as on
// a disk that fills up; a Read tells no error, as the kernel is free to do. To
// any other operation it is an error like others.
type Short struct {
	Bytes int
	Err   error
}

func (s Short) Error() string {
	return fmt.Sprintf("errorfs: shortened to %d bytes: %v", s.Bytes, s.Err)
}

// Unwrap makes Err visible to errors.Is.
func (s Short) Unwrap() error { return s.Err }

// ErrCrashed is what everything returns after a Crash.
var ErrCrashed = errors.New("errorfs: crashed")

// Crash fails the nth operation of any name, counted from 1, and every later
// one: nothing more reaches the disk, as if the process had died there.
func Crash(n int) Injector {
	var c counter
	return Func(func(string, string) error {
		if c.next() >= n {
			return ErrCrashed
		}
		return nil
	})
}

// Chain asks one after the other, until one fails the operation.
func Chain(all ...Injector) Injector {
	return Func(func(op, p string) error {
		for _, i := range all {
			if err := i.Op(op, p); err != nil {
				return err
			}
		}
		return nil
	})
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

// Hanging is an Injector that blocks, as a dead mount does.
type Hanging struct {
	op      string
	entered chan struct{}
	release chan struct{}
	first   sync.Once
	let     sync.Once
}

// Hang blocks every operation of that name until Release.
func Hang(op string) *Hanging {
	return &Hanging{op: op, entered: make(chan struct{}), release: make(chan struct{})}
}

// Op implements Injector.
func (h *Hanging) Op(op, _ string) error {
	if op == h.op {
		h.first.Do(func() { close(h.entered) })
		<-h.release
	}
	return nil
}

// Entered is closed when the first operation hangs.
func (h *Hanging) Entered() <-chan struct{} { return h.entered }

// Release lets all operations go on, for good.
func (h *Hanging) Release() { h.let.Do(func() { close(h.release) }) }

// Switch is an Injector whose faults come and go while the FS is in use. The
// zero Switch injects none.
type Switch struct {
	mu  sync.Mutex
	now Injector
}

// Set replaces what is injected; nil injects nothing.
func (s *Switch) Set(i Injector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = i
}

// Op implements Injector.
func (s *Switch) Op(op, p string) error {
	s.mu.Lock()
	now := s.now
	s.mu.Unlock()
	if now == nil {
		return nil
	}
	return now.Op(op, p)
}

// Trace records the operations as "name path", in order.
type Trace struct {
	mu  sync.Mutex
	ops []string
}

// Op implements Injector.
func (t *Trace) Op(op, p string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p != "" {
		op += " " + p
	}
	t.ops = append(t.ops, op)
	return nil
}

// Ops returns a copy of what was recorded so far.
func (t *Trace) Ops() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.ops...)
}
