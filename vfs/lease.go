package vfs

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// keeper owns the leases of a Root and lets go of each that somebody wants to
// break. The kernel tells so by SIGIO, which says neither which lease nor how
// many: on every signal all are asked. A slow poll stands behind it, in case a
// signal goes astray (a library that masks it, a thread that ends). One
// goroutine, from newKeeper to close.
type keeper struct {
	signals chan os.Signal
	taken   chan struct{} // wakes run: there is a lease to poll for
	stop    chan struct{}
	done    chan struct{}

	mu     sync.Mutex
	leases map[*lease]struct{} // those that are held
	closed bool
}

// pollEvery bounds how long a writer waits for us if the signal is lost. The
// kernel itself breaks a lease after 45 s.
const pollEvery = 100 * time.Millisecond

func newKeeper() *keeper {
	k := &keeper{
		signals: make(chan os.Signal, 1), // one pending signal is as good as many
		taken:   make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		leases:  map[*lease]struct{}{},
	}
	signal.Notify(k.signals, unix.SIGIO)
	go k.run()
	return k
}

func (k *keeper) run() {
	defer close(k.done)
	defer signal.Stop(k.signals)
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	ticker.Stop()
	for {
		select {
		case <-k.stop:
			return
		case <-k.taken:
			ticker.Reset(pollEvery)
			continue
		case <-k.signals:
		case <-ticker.C:
		}
		if k.sweep() == 0 {
			ticker.Stop() // an idle daemon sleeps
		}
	}
}

// sweep gives up every lease that somebody waits for, and counts the others.
func (k *keeper) sweep() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	for l := range k.leases {
		k.check(l)
	}
	return len(k.leases)
}

// take leases f, which must be open for reading only.
func (k *keeper) take(f *os.File) (*lease, error) {
	l := &lease{keeper: k, file: f}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, os.ErrClosed
	}
	err := control(f, func(fd int) error {
		// Without an owner the signal would go to the thread that is here now,
		// which may have ended by then.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETOWN, os.Getpid()); err != nil {
			return err
		}
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
		return err
	})
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, ErrWriter
	case unsupported(err), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOLCK):
		return nil, ErrNoLease
	case err != nil:
		return nil, err
	}
	l.intact = true
	k.leases[l] = struct{}{}
	select {
	case k.taken <- struct{}{}:
	default: // run is about to wake anyway
	}
	return l, nil
}

// check asks the kernel about a held lease, and gives it up if it is being
// broken. k.mu is held.
func (k *keeper) check(l *lease) {
	kind := -1
	_ = control(l.file, func(fd int) (err error) {
		kind, err = unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0)
		return err
	})
	if kind != unix.F_RDLCK {
		l.intact = false
		k.drop(l)
	}
}

// drop gives a held lease back. k.mu is held.
func (k *keeper) drop(l *lease) {
	delete(k.leases, l)
	_ = control(l.file, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
		return err
	})
}

func (k *keeper) held(l *lease) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, held := k.leases[l]
	return held
}

// close gives all leases back and ends the goroutine. A lease that was given
// up so is not Intact: nobody watches over it any more.
func (k *keeper) close() {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return
	}
	k.closed = true
	for l := range k.leases {
		l.intact = false
		k.drop(l)
	}
	k.mu.Unlock()
	close(k.stop)
	<-k.done
}

// lease implements Lease. Its file is not closed before it is released.
type lease struct {
	keeper *keeper
	file   *os.File
	intact bool // guarded by keeper.mu
}

// Intact implements Lease.
func (l *lease) Intact() bool {
	k := l.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, held := k.leases[l]; !held {
		return false
	}
	k.check(l)
	return l.intact
}

// Release implements Lease.
func (l *lease) Release() bool {
	k := l.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, held := k.leases[l]; held {
		if k.check(l); l.intact {
			k.drop(l)
		}
	}
	return l.intact
}
