package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/sealed"
)

// The buckets of the log's file.
const (
	bucketLog    = "log"    // index (8 bytes, big endian) → entry
	bucketStable = "stable" // term, vote, and what else must survive
)

// errKeyNotFound: Raft knows it by its text.
var errKeyNotFound = errors.New("not found")

// disk is the log and the stable store in one sealed file: what is read is
// what was written, or a *sealed.DamagedError. The entries are without a gap:
// one that does not follow the last begins the log anew (behind a snapshot that
// came from the leader). Safe for concurrent use.
type disk struct {
	db *sealed.DB

	mu          sync.Mutex
	first, last uint64 // 0, 0: empty
}

func openDisk(file string) (*disk, error) {
	db, _, err := sealed.Open(file, bucketLog, bucketStable)
	if err != nil {
		return nil, err
	}
	d := &disk{db: db}
	if err := db.View(d.measure); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

// measure reads every entry once, and finds the ends of the log.
func (d *disk) measure(tx *sealed.Tx) error {
	d.first, d.last = 0, 0
	return tx.Bucket(bucketLog).ForEach(func(k, v []byte) error {
		var entry raft.Log
		err := decodeLog(k, v, &entry)
		if err == nil && d.last != 0 && entry.Index != d.last+1 {
			err = fmt.Errorf("entry %d follows entry %d", entry.Index, d.last)
		}
		if err != nil {
			return &sealed.DamagedError{File: d.db.Path(), Err: err}
		}
		if d.first == 0 {
			d.first = entry.Index
		}
		d.last = entry.Index
		return nil
	})
}

func (d *disk) ends() (first, last uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.first, d.last
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
	return d.db.View(func(tx *sealed.Tx) error {
		key := indexKey(index)
		v, err := tx.Bucket(bucketLog).Get(key)
		if err == nil && v == nil {
			if now, end := d.ends(); index < now || index > end {
				return raft.ErrLogNotFound // deleted meanwhile
			}
			err = fmt.Errorf("entry %d is gone", index)
		}
		if err == nil {
			err = decodeLog(key, v, entry)
		}
		if err != nil && !errors.Is(err, sealed.ErrDamaged) {
			err = &sealed.DamagedError{File: d.db.Path(), Err: err}
		}
		return err
	})
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(entry *raft.Log) error { return d.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (d *disk) StoreLogs(entries []*raft.Log) error {
	first, last := d.ends()
	err := d.db.Update(func(tx *sealed.Tx) error {
		b := tx.Bucket(bucketLog)
		for _, e := range entries {
			if first != 0 && (e.Index > last+1 || e.Index < first) {
				if err := b.DeleteRange(indexKey(first), indexKey(last)); err != nil {
					return err
				}
				first = 0
			}
			if first == 0 {
				first, last = e.Index, e.Index
			}
			last = max(last, e.Index)
			if err := b.Put(indexKey(e.Index), encodeLog(e)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.first, d.last = first, last
	return nil
}

// DeleteRange implements raft.LogStore. Raft deletes at the ends of the log.
func (d *disk) DeleteRange(from, to uint64) error {
	first, last := d.ends()
	from, to = max(from, first), min(to, last)
	if first == 0 || from > to {
		return nil
	}
	if from > first && to < last {
		return fmt.Errorf("delete the entries %d to %d of a log from %d to %d: it would get a gap", from, to, first, last)
	}
	err := d.db.Update(func(tx *sealed.Tx) error {
		return tx.Bucket(bucketLog).DeleteRange(indexKey(from), indexKey(to))
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case from == first && to == last:
		d.first, d.last = 0, 0
	case from == first:
		d.first = to + 1
	default:
		d.last = from - 1
	}
	return nil
}

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error {
	return d.db.Update(func(tx *sealed.Tx) error { return tx.Bucket(bucketStable).Put(key, value) })
}

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) (value []byte, err error) {
	err = d.db.View(func(tx *sealed.Tx) error {
		v, err := tx.Bucket(bucketStable).Get(key)
		if err == nil && v == nil {
			err = errKeyNotFound
		}
		value = append([]byte(nil), v...)
		return err
	})
	return value, err
}

// SetUint64 implements raft.StableStore.
func (d *disk) SetUint64(key []byte, v uint64) error { return d.Set(key, indexKey(v)) }

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (uint64, error) {
	b, err := d.Get(key)
	if err == nil && len(b) != 8 {
		err = &sealed.DamagedError{File: d.db.Path(), Err: fmt.Errorf("%q is no number", key)}
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// Close closes the file.
func (d *disk) Close() error { return d.db.Close() }

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// logFormat is the first byte of each entry.
const logFormat = 1

// encodeLog writes an entry: format, type, term, time, extensions, data. The
// index is its key.
func encodeLog(e *raft.Log) []byte {
	b := make([]byte, 0, 32+len(e.Extensions)+len(e.Data))
	b = append(b, logFormat, byte(e.Type))
	b = binary.AppendUvarint(b, e.Term)
	var at int64
	if !e.AppendedAt.IsZero() {
		at = e.AppendedAt.UnixNano()
	}
	b = binary.AppendVarint(b, at)
	b = binary.AppendUvarint(b, uint64(len(e.Extensions)))
	b = append(b, e.Extensions...)
	return append(b, e.Data...)
}

var errEntry = errors.New("an entry is truncated or of an unknown format")

// decodeLog reads what encodeLog wrote; the entry shares nothing with b.
func decodeLog(key, b []byte, e *raft.Log) error {
	if len(key) != 8 || len(b) < 2 || b[0] != logFormat {
		return errEntry
	}
	*e = raft.Log{Index: binary.BigEndian.Uint64(key), Type: raft.LogType(b[1])}
	b = b[2:]
	term, n := binary.Uvarint(b)
	if n <= 0 {
		return errEntry
	}
	b = b[n:]
	at, n := binary.Varint(b)
	if n <= 0 {
		return errEntry
	}
	b = b[n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return errEntry
	}
	b = b[n:]
	e.Term = term
	if at != 0 {
		e.AppendedAt = time.Unix(0, at)
	}
	e.Extensions = append([]byte(nil), b[:size]...)
	e.Data = append([]byte(nil), b[size:]...)
	return nil
}
