package sealed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// DB is an open file. Safe for concurrent use.
type DB struct {
	file string
	bolt *bbolt.DB

	writing   sync.Mutex            // one Update at a time
	beginning sync.Mutex            // one bbolt.Begin at a time
	hurt      atomic.Pointer[error] // a *DamagedError: nothing works any more
}

// Open opens a file that holds these buckets, and makes it where there is none
// (fresh). A *DamagedError where it is not as it was left: nothing was changed
// then. ErrInUse where another process has it.
func Open(file string, buckets ...string) (db *DB, fresh bool, err error) {
	_, err = os.Lstat(file)
	if fresh = errors.Is(err, fs.ErrNotExist); fresh {
		err = create(file, buckets)
	}
	if err == nil {
		err = check(file, buckets)
	}
	if err != nil {
		return nil, fresh, err
	}
	bolt, err := openBolt(file)
	if err != nil {
		return nil, fresh, err
	}
	return &DB{file: file, bolt: bolt}, fresh, nil
}

func openBolt(file string) (bolt *bbolt.DB, err error) {
	err = guarded(file, func() error {
		bolt, err = bbolt.Open(file, 0o600, &bbolt.Options{
			// The free list is rebuilt at a start instead of written with each
			// transaction, where nobody would check it; as a map it stays fast
			// after much was deleted.
			NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
			Timeout: time.Second, // of the file lock
		})
		return err
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		err = fmt.Errorf("%s: %w", file, ErrInUse)
	}
	return bolt, err
}

// create makes the file beside and moves it into place, so that a file without
// a seal is a damaged one.
func create(file string, buckets []string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	beside := file + ".new"
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	bolt, err := openBolt(beside)
	if err != nil {
		return err
	}
	err = bolt.Update(func(tx *bbolt.Tx) error {
		for _, name := range append([]string{string(sealBucket)}, buckets...) {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		stored, _ := wrap(sealBucket, sealKey, seal{}.encode())
		return tx.Bucket(sealBucket).Put(sealKey, stored)
	})
	if err = errors.Join(err, bolt.Close()); err != nil {
		return err
	}
	if err := os.Rename(beside, file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Path is the file's.
func (d *DB) Path() string { return d.file }

// Close closes the file. One in which bbolt stumbled over damage stays open
// until the process ends: bbolt's locks and transactions are then not fit for
// further use.
func (d *DB) Close() error {
	if d.hurt.Load() != nil {
		return nil
	}
	return guarded(d.file, d.bolt.Close)
}

// View runs fn on one state of the file. Nothing that fn was given may be used
// after it returned. A *DamagedError where the file turned out to be damaged.
func (d *DB) View(fn func(*Tx) error) error {
	tx, err := d.begin(false)
	if err != nil {
		return err
	}
	stumbled := true
	err = guarded(d.file, func() error {
		err := fn(&Tx{file: d.file, bolt: tx})
		err = errors.Join(err, tx.Rollback())
		stumbled = false
		return err
	})
	if stumbled {
		return d.giveUp(err)
	}
	return err
}

// Update runs fn and makes durable what it changed, or, after an error, nothing
// of it. One Update runs at a time. A *DamagedError where the file turned out
// to be damaged; then every later call returns it too.
func (d *DB) Update(fn func(*Tx) error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	tx, err := d.begin(true)
	if err != nil {
		return err
	}
	err = guarded(d.file, func() error {
		err := update(&Tx{file: d.file, bolt: tx}, fn)
		switch {
		case err == nil:
			return tx.Commit()
		case errors.Is(err, ErrDamaged):
			// Rolled back, bbolt would read the whole file again on a goroutine
			// of its own, which nobody guards.
			return err
		}
		return errors.Join(err, tx.Rollback())
	})
	if errors.Is(err, ErrDamaged) {
		return d.giveUp(err)
	}
	return err
}

// begin begins a transaction. bbolt that stumbles keeps its locks: nobody may
// wait for one of them then.
func (d *DB) begin(writable bool) (tx *bbolt.Tx, err error) {
	d.beginning.Lock()
	defer d.beginning.Unlock()
	if hurt := d.hurt.Load(); hurt != nil {
		return nil, *hurt
	}
	err = guarded(d.file, func() error {
		tx, err = d.bolt.Begin(writable)
		return err
	})
	if errors.Is(err, ErrDamaged) {
		return nil, d.giveUp(err)
	}
	return tx, err
}

// giveUp makes all calls from now on return err.
func (d *DB) giveUp(err error) error {
	d.hurt.CompareAndSwap(nil, &err)
	return err
}

// update runs fn and renews the seal.
func update(tx *Tx, fn func(*Tx) error) error {
	b := tx.bolt.Bucket(sealBucket)
	var err error
	if tx.seal, err = decodeSeal(b.Get(sealKey)); err != nil {
		return tx.damaged(err)
	}
	if err := fn(tx); err != nil {
		return err
	}
	stored, _ := wrap(sealBucket, sealKey, tx.seal.encode())
	return b.Put(sealKey, stored)
}

// CopyTo writes the state of the file to another one.
func (d *DB) CopyTo(file string) error {
	return d.View(func(tx *Tx) error { return tx.bolt.CopyFile(file, 0o600) })
}

// Guard runs fn, which uses a bbolt file that was opened elsewhere, and turns
// its panics into a *DamagedError.
func Guard(file string, fn func() error) error { return guarded(file, fn) }

// guarded turns the panics of bbolt on a damaged file into errors, those of
// reading behind the end of its memory map included.
func guarded(file string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &DamagedError{File: file, Err: fmt.Errorf("%v", p)}
		}
	}()
	return fn()
}
