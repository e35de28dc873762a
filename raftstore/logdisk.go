package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs"
)

// The buckets of raft-boltdb's file.
var (
	bucketLogs = []byte("logs") // index (8 bytes, big endian) → entry
	bucketConf = []byte("conf") // term, vote, and what else must survive
)

// errKeyNotFound: Raft knows it by its text.
var errKeyNotFound = raftboltdb.ErrKeyNotFound

// disk is the log and the stable store in raft-boltdb's file, sealed: each
// entry and each value carries its checksum, and entry 0, which Raft never
// sees, says where the log ends. So what is read is what was written, or a
// *sealed.DamagedError. The entries are without a gap: one that does not follow
// the last begins the log anew (behind a snapshot that came from the leader).
// Safe for concurrent use.
type disk struct {
	file string
	bolt *raftboltdb.BoltStore
	size int64                 // of the file, at least
	hurt atomic.Pointer[error] // a *sealed.DamagedError: nothing works any more

	writing     sync.Mutex // held while the log's ends move: Raft deletes behind a snapshot while it appends
	mu          sync.Mutex
	first, last uint64 // 0, 0: empty
}

// openDisk opens the log in dir and makes it where there is none.
func openDisk(dir string) (*disk, error) {
	file := filepath.Join(dir, logFile)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		if err := makeDisk(file); err != nil {
			return nil, err
		}
	}
	return useDisk(file, false)
}

// makeDisk makes the file beside and moves it into place, so that one that is
// not whole is a damaged one.
func makeDisk(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	beside := file + ".new"
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	bolt, err := openBolt(beside, false)
	if err != nil {
		return err
	}
	if err := errors.Join(bolt.StoreLog(end{}.entry()), bolt.Close()); err != nil {
		return err
	}
	if err := os.Rename(beside, file); err != nil {
		return err
	}
	return vfs.SyncDir(filepath.Dir(file))
}

func openBolt(file string, readOnly bool) (bolt *raftboltdb.BoltStore, err error) {
	err = sealed.Guard(file, func() error {
		bolt, err = raftboltdb.New(raftboltdb.Options{Path: file, BoltOptions: &bbolt.Options{
			// The free list is rebuilt at a start instead of written with each
			// append, where nobody would check it; as a map it stays fast after a
			// log was truncated.
			NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
			Timeout:  time.Second, // of the file lock
			ReadOnly: readOnly,
		}})
		return err
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		err = fmt.Errorf("%s: %w", file, sealed.ErrInUse)
	}
	return bolt, err
}

// useDisk reads the whole file before it opens it: bbolt ends the process over
// some of what may be wrong.
func useDisk(file string, readOnly bool) (*disk, error) {
	d := &disk{file: file}
	if err := sealed.Inspect(file, d.measure); err != nil {
		return nil, err
	}
	bolt, err := openBolt(file, readOnly)
	if err != nil {
		return nil, err
	}
	d.bolt = bolt
	if err := d.verify(readOnly); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	st, err := os.Stat(file)
	if err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	d.size = st.Size()
	return d, nil
}

// measure finds the ends of the log and reads the stable values.
func (d *disk) measure(bucket, key, stored []byte) error {
	switch {
	case string(bucket) == string(bucketConf):
		if _, ok := sealed.Unwrap(bucket, key, stored); !ok {
			return fmt.Errorf("%q is not what was written", key)
		}
		return nil
	case string(bucket) != string(bucketLogs) || len(key) != 8:
		return fmt.Errorf("it has %q in a bucket %q", key, bucket)
	}
	index := binary.BigEndian.Uint64(key)
	switch {
	case index == 0:
		return nil
	case d.last != 0 && index != d.last+1:
		return fmt.Errorf("entry %d follows entry %d", index, d.last)
	case d.first == 0:
		d.first = index
	}
	d.last = index
	return nil
}

// verify reads every entry once, and whether they are all. A cut that a crash
// interrupted is finished.
func (d *disk) verify(readOnly bool) error {
	mark, err := d.read(0)
	if err != nil {
		return err
	}
	want, ok := endOf(mark)
	cut := ok && want.cutting && d.last == want.cut
	if !ok || d.last != want.last && !cut {
		return d.damaged(fmt.Errorf("its last entry is %d, and %d was written", d.last, want.last))
	}
	for i := d.first; i <= d.last && i > 0; i++ {
		if _, err := d.read(i); err != nil {
			return err
		}
	}
	if !want.cutting || readOnly {
		return nil
	}
	if !cut {
		if err := d.write(func() error { return d.bolt.DeleteRange(want.cut+1, want.last) }); err != nil {
			return err
		}
		if d.last = want.cut; d.last < d.first || d.last == 0 {
			d.first, d.last = 0, 0
		}
	}
	return d.write(func() error { return d.bolt.StoreLog(end{last: d.last}.entry()) })
}

// damaged makes all calls from now on fail.
func (d *disk) damaged(err error) error {
	if !errors.Is(err, sealed.ErrDamaged) {
		err = &sealed.DamagedError{File: d.file, Err: err}
	}
	d.hurt.CompareAndSwap(nil, &err)
	return err
}

// do runs what uses bolt. bbolt that stumbles keeps its locks: nobody may wait
// for one of them then.
func (d *disk) do(fn func() error) error {
	if hurt := d.hurt.Load(); hurt != nil {
		return *hurt
	}
	err := sealed.Guard(d.file, fn)
	if errors.Is(err, sealed.ErrDamaged) {
		return d.damaged(err)
	}
	return err
}

// write is do for what changes the file. A file that was cut off is noticed
// before: bbolt would read all of it again on a goroutine of its own, which
// nobody guards.
func (d *disk) write(fn func() error) error {
	st, err := os.Stat(d.file)
	if err == nil && st.Size() < d.size {
		return d.damaged(fmt.Errorf("it was cut off: %d of %d bytes are left", st.Size(), d.size))
	}
	return d.do(fn)
}

func (d *disk) ends() (first, last uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.first, d.last
}

func (d *disk) setEnds(first, last uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.first, d.last = first, last
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (uint64, error) {
	first, _ := d.ends()
	return first, nil
}

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (uint64, error) {
	_, last := d.ends()
	return last, nil
}

// GetLog implements raft.LogStore.
func (d *disk) GetLog(index uint64, entry *raft.Log) error {
	first, last := d.ends()
	if index == 0 || index < first || index > last {
		return raft.ErrLogNotFound
	}
	e, err := d.read(index)
	if errors.Is(err, raft.ErrLogNotFound) {
		if now, end := d.ends(); index < now || index > end {
			return raft.ErrLogNotFound // deleted meanwhile
		}
		return d.damaged(fmt.Errorf("entry %d is gone", index))
	}
	if err == nil {
		*entry = e
	}
	return err
}

// read reads and verifies an entry.
func (d *disk) read(index uint64) (entry raft.Log, err error) {
	var broken error
	err = d.do(func() error {
		err := d.bolt.GetLog(index, &entry)
		if err != nil && !errors.Is(err, raft.ErrLogNotFound) && !errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
			broken = fmt.Errorf("entry %d cannot be decoded: %w", index, err)
		}
		return err
	})
	if err == nil && (entry.Index != index || !unseal(&entry)) {
		broken = fmt.Errorf("entry %d is not what was written", index)
	}
	if broken != nil {
		err = &sealed.DamagedError{File: d.file, Err: broken}
	}
	return entry, err
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(entry *raft.Log) error { return d.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (d *disk) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	first, last := d.ends()
	if next := entries[0].Index; first != 0 && (next > last+1 || next < first) {
		if err := d.deleteRange(first, last); err != nil {
			return err
		}
		first, last = 0, 0
	}
	if first == 0 {
		first = entries[0].Index
	}
	stored := make([]*raft.Log, 0, len(entries)+1)
	for i, e := range entries {
		if e.Index != entries[0].Index+uint64(i) {
			return fmt.Errorf("entry %d is to be stored behind entry %d", e.Index, entries[i-1].Index)
		}
		last = max(last, e.Index)
		stored = append(stored, seal(e))
	}
	stored = append(stored, end{last: last}.entry())
	if err := d.write(func() error { return d.bolt.StoreLogs(stored) }); err != nil {
		return err
	}
	d.setEnds(first, last)
	return nil
}

// DeleteRange implements raft.LogStore. Raft deletes at the ends of the log.
func (d *disk) DeleteRange(from, to uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	return d.deleteRange(from, to)
}

func (d *disk) deleteRange(from, to uint64) error {
	first, last := d.ends()
	from, to = max(from, first), min(to, last)
	if first == 0 || from > to {
		return nil
	}
	if from > first && to < last {
		return fmt.Errorf("delete the entries %d to %d of a log from %d to %d: it would get a gap", from, to, first, last)
	}
	if to < last { // its end stays where it is
		// First, so that who reads an entry at this moment does not take it for
		// lost. If the deletion fails, the next start measures again.
		d.setEnds(to+1, last)
		return d.write(func() error { return d.bolt.DeleteRange(from, to) })
	}
	left := from - 1
	if from == first {
		first, left = 0, 0
	}
	// Three transactions: after a crash verify finishes what began.
	for _, step := range []func() error{
		func() error { return d.bolt.StoreLog(end{last: last, cutting: true, cut: left}.entry()) },
		func() error { return d.bolt.DeleteRange(from, to) },
		func() error { return d.bolt.StoreLog(end{last: left}.entry()) },
	} {
		if err := d.write(step); err != nil {
			return err
		}
	}
	d.setEnds(first, left)
	return nil
}

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error {
	return d.write(func() error { return d.bolt.Set(key, sealed.Wrap(bucketConf, key, value)) })
}

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) (value []byte, err error) {
	var stored []byte
	err = d.do(func() (err error) {
		stored, err = d.bolt.Get(key)
		return err
	})
	if err != nil {
		return nil, err
	}
	value, ok := sealed.Unwrap(bucketConf, key, stored)
	if !ok {
		return nil, &sealed.DamagedError{File: d.file, Err: fmt.Errorf("%q is not what was written", key)}
	}
	return value, nil
}

// SetUint64 implements raft.StableStore.
func (d *disk) SetUint64(key []byte, v uint64) error { return d.Set(key, indexKey(v)) }

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (uint64, error) {
	b, err := d.Get(key)
	if err == nil && len(b) != 8 {
		err = &sealed.DamagedError{File: d.file, Err: fmt.Errorf("%q is no number", key)}
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// Close closes the file. One in which bbolt stumbled over damage stays open
// until the process ends: its locks and transactions are not fit for use.
func (d *disk) Close() error {
	if d.hurt.Load() != nil {
		return nil
	}
	return d.do(d.bolt.Close)
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// end is what entry 0 says: where the log ends, and, while its tail is being
// cut off, where it will end.
type end struct {
	last    uint64
	cutting bool
	cut     uint64
}

func (e end) entry() *raft.Log {
	b := binary.BigEndian.AppendUint64(nil, e.last)
	if e.cutting {
		b = binary.BigEndian.AppendUint64(b, e.cut)
	}
	return seal(&raft.Log{Type: raft.LogNoop, Data: b})
}

func endOf(entry raft.Log) (e end, ok bool) {
	switch b := entry.Data; len(b) {
	case 16:
		return end{last: binary.BigEndian.Uint64(b), cutting: true, cut: binary.BigEndian.Uint64(b[8:])}, true
	case 8:
		return end{last: binary.BigEndian.Uint64(b)}, true
	}
	return e, false
}

// seal is an entry as it is stored: a checksum of everything stands behind its
// data.
func seal(e *raft.Log) *raft.Log {
	stored := *e
	stored.Data = make([]byte, 0, len(e.Data)+8)
	stored.Data = binary.LittleEndian.AppendUint64(append(stored.Data, e.Data...), checksum(e))
	return &stored
}

// unseal takes the checksum off; false where it does not fit.
func unseal(e *raft.Log) bool {
	n := len(e.Data) - 8
	if n < 0 {
		return false
	}
	want := binary.LittleEndian.Uint64(e.Data[n:])
	e.Data = e.Data[:n:n]
	return checksum(e) == want
}

func checksum(e *raft.Log) uint64 {
	b := make([]byte, 0, 32+len(e.Extensions)+len(e.Data))
	b = append(b, byte(e.Type))
	b = binary.AppendUvarint(b, e.Term)
	var at int64
	if !e.AppendedAt.IsZero() {
		at = e.AppendedAt.UnixNano()
	}
	b = binary.AppendVarint(b, at)
	b = binary.AppendUvarint(b, uint64(len(e.Extensions)))
	b = append(b, e.Extensions...)
	return sealed.Checksum(bucketLogs, indexKey(e.Index), append(b, e.Data...))
}
