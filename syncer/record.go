package syncer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/gatesync/gatesync/manifest"
)

// The buckets of a record file.
const (
	bucketAncestor  = "ancestor"
	bucketNotes     = "notes"
	bucketConflicts = "conflicts"
	bucketPlan      = "plan"
	bucketMeta      = "meta"
)

// The keys of bucketMeta.
const (
	metaFormat     = "format"
	metaBoot       = "boot"       // id of the boot under which the file was made, or metaFollowed written last
	metaJoiner     = "joiner"     // present: what stands on disk is unknown to the cluster
	metaRooted     = "rooted"     // present: the root has been given its marker
	metaAside      = "aside"      // present, with joiner: what the log does not hold goes aside
	metaGeneration = "generation" // of the marker that the records belong to
	metaReached    = "reached"    // steps of revisions up to this one have begun
	metaFollowed   = "followed"   // the disk has followed every revision up to this one
)

const recordFormat = "1"

// DamagedError: the record file of a tree cannot be read.
type DamagedError struct {
	File string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged (%v): move it away and restart; the node then takes what is on its disk for a joiner's, and loses nothing", e.File, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// records is the record file of one tree: what disk and log agreed on, and
// what must be known after a crash. Safe for concurrent use (bbolt has one
// writer at a time).
type records struct {
	file string
	db   database
	boot string // of the machine, as load was told
	// fresh: the file was made by this opening.
	fresh bool
}

// database is what records asks of bbolt; a test puts a failing one on top.
type database interface {
	View(fn func(*bbolt.Tx) error) error
	Update(fn func(*bbolt.Tx) error) error
	Close() error
}

// loaded is what a record file holds, for the loop.
type loaded struct {
	state  State
	rooted bool
	// generation of the cluster's marker that it belongs to, 0: not known.
	generation uint64
}

func openRecords(file string) (r *records, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	_, statErr := os.Stat(file)
	r = &records{file: file, fresh: errors.Is(statErr, fs.ErrNotExist)}
	if !r.fresh {
		err = guarded(func() error { return walkRecords(file) })
	}
	if err != nil {
		return nil, openError(file, err)
	}
	err = guarded(func() error {
		db, err := bbolt.Open(file, 0o600, &bbolt.Options{
			Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		})
		if err != nil {
			return err
		}
		r.db = db
		return r.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{bucketAncestor, bucketNotes, bucketConflicts, bucketPlan, bucketMeta} {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			meta := tx.Bucket([]byte(bucketMeta))
			if f := meta.Get([]byte(metaFormat)); f != nil && string(f) != recordFormat {
				return &NewerRecordsError{File: file, Format: string(f)}
			}
			return meta.Put([]byte(metaFormat), []byte(recordFormat))
		})
	})
	if err != nil {
		if r.db != nil {
			_ = guarded(r.db.Close)
		}
		return nil, openError(file, err)
	}
	return r, nil
}

// NewerRecordsError: a newer version has written the record file.
type NewerRecordsError struct{ File, Format string }

func (e *NewerRecordsError) Error() string {
	return fmt.Sprintf("%s has format %s, this gatesync knows %s: a newer version ran here; install it again; nothing was changed", e.File, e.Format, recordFormat)
}

func openError(file string, err error) error {
	var newer *NewerRecordsError
	if errors.As(err, &newer) {
		return newer
	}
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("%s is in use: is another daemon running on this data directory?", file)
	}
	return &DamagedError{File: file, Err: err}
}

// walkRecords reads every page that a record file refers to. Opened for
// writing, bbolt does the same on a goroutine of its own, where a damaged page
// ends the process.
func walkRecords(file string) error {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, v []byte) error {
				if len(v) > 0 {
					_ = v[len(v)-1] // touch it
				}
				return nil
			})
		})
	})
}

// guarded turns the panics of bbolt on a damaged file into errors, those of
// reading behind the end of its memory map included.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return fn()
}

// load reads everything that the loop starts from.
func (r *records) load(bootID string) (out loaded, err error) {
	out.state = State{Ancestors: NewAncestorMap(), Notes: map[manifest.Path]Note{}}
	r.boot = bootID
	authors := map[string]string{} // a few nodes wrote 50,000 paths
	unknown := false // a new file: no power cut has left anything that is to be looked at
	err = guarded(func() error {
		return r.db.View(func(tx *bbolt.Tx) error {
			meta := tx.Bucket([]byte(bucketMeta))
			out.rooted = meta.Get([]byte(metaRooted)) != nil
			out.state.Joiner = meta.Get([]byte(metaJoiner)) != nil
			out.state.Aside = meta.Get([]byte(metaAside)) != nil
			if b := meta.Get([]byte(metaGeneration)); len(b) == 8 {
				out.generation = binary.BigEndian.Uint64(b)
			}
			boot := meta.Get([]byte(metaBoot))
			unknown = r.fresh && boot == nil && bootID != ""
			out.state.SameBoot = bootID != "" && string(boot) == bootID || unknown
			out.state.Followed, out.state.Reached = revisionOf(meta.Get([]byte(metaFollowed))), revisionOf(meta.Get([]byte(metaReached)))
			err := tx.Bucket([]byte(bucketAncestor)).ForEach(func(k, v []byte) error {
				a, err := decodeAncestor(v)
				if err != nil {
					return fmt.Errorf("%q: %w", k, err)
				}
				if _, ok := authors[a.Author]; !ok {
					authors[a.Author] = a.Author
				}
				a.Author = authors[a.Author]
				out.state.Ancestors.Set(manifest.Path(k), a)
				return nil
			})
			if err != nil {
				return err
			}
			return tx.Bucket([]byte(bucketNotes)).ForEach(func(k, v []byte) error {
				n, err := decodeNote(v)
				out.state.Notes[noteKey(k)] = n
				return err
			})
		})
	})
	if err != nil {
		return out, &DamagedError{File: r.file, Err: err}
	}
	if unknown {
		return out, r.setMeta(map[string][]byte{metaBoot: []byte(bootID)})
	}
	return out, nil
}

// revisionOf reads a revision of bucketMeta, 0 where there is none.
func revisionOf(b []byte) manifest.Revision {
	if len(b) != 8 {
		return 0
	}
	return manifest.Revision(binary.BigEndian.Uint64(b))
}

// bbolt has no empty keys; the note of the whole tree stands under "/".
func noteKey(k []byte) manifest.Path {
	if string(k) == "/" {
		return ""
	}
	return manifest.Path(k)
}

func keyOfNote(p manifest.Path) []byte {
	if p == "" {
		return []byte("/")
	}
	return []byte(p)
}

// setMeta puts or (nil) deletes values of bucketMeta.
func (r *records) setMeta(values map[string][]byte) error {
	return r.db.Update(func(tx *bbolt.Tx) error {
		return putAll(tx.Bucket([]byte(bucketMeta)), values)
	})
}

func putAll(b *bbolt.Bucket, values map[string][]byte) error {
	for k, v := range values {
		var err error
		if v == nil {
			err = b.Delete([]byte(k))
		} else {
			err = b.Put([]byte(k), v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forgetAll makes the disk unknown: no ancestor, and a joiner's state.
func (r *records) forgetAll(aside bool) error {
	return r.db.Update(func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket([]byte(bucketAncestor)); err != nil {
			return err
		}
		if _, err := tx.CreateBucket([]byte(bucketAncestor)); err != nil {
			return err
		}
		return putAll(tx.Bucket([]byte(bucketMeta)), joinerMeta(aside))
	})
}

func (r *records) close() error { return r.db.Close() }

// recordJob is what one transaction is to persist. Jobs are persisted in the
// order in which they were handed over.
type recordJob struct {
	updates  []Update
	notes    []Remember
	joined   bool
	followed manifest.Revision // 0: as before
	reached  manifest.Revision // 0: as before

	conflicts  []Conflict
	unconflict []string // ids
	plan       []planned
	unplan     []string // staged names that are done with

	done func(error) // called when it is on disk; may be nil
}

func (j recordJob) write(tx *bbolt.Tx) error {
	anc := tx.Bucket([]byte(bucketAncestor))
	for _, u := range j.updates {
		var err error
		if u.Ancestor == nil {
			err = anc.Delete([]byte(u.Path))
		} else {
			err = anc.Put([]byte(u.Path), encodeAncestor(*u.Ancestor))
		}
		if err != nil {
			return err
		}
	}
	notes := tx.Bucket([]byte(bucketNotes))
	for _, n := range j.notes {
		var err error
		if n.Note == nil {
			err = notes.Delete(keyOfNote(n.Path))
		} else {
			err = notes.Put(keyOfNote(n.Path), encodeNote(*n.Note))
		}
		if err != nil {
			return err
		}
	}
	conflicts := tx.Bucket([]byte(bucketConflicts))
	for _, c := range j.conflicts {
		if err := conflicts.Put([]byte(c.ID), encodeConflict(c)); err != nil {
			return err
		}
	}
	for _, id := range j.unconflict {
		if err := conflicts.Delete([]byte(id)); err != nil {
			return err
		}
	}
	plan := tx.Bucket([]byte(bucketPlan))
	for _, name := range j.unplan {
		if err := plan.Delete([]byte(name)); err != nil {
			return err
		}
	}
	for _, p := range j.plan {
		if err := plan.Put([]byte(p.name), encodePlanned(p)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	if j.followed > 0 {
		if err := meta.Put([]byte(metaFollowed), binary.BigEndian.AppendUint64(nil, uint64(j.followed))); err != nil {
			return err
		}
	}
	if j.reached > revisionOf(meta.Get([]byte(metaReached))) { // there are two lanes
		if err := meta.Put([]byte(metaReached), binary.BigEndian.AppendUint64(nil, uint64(j.reached))); err != nil {
			return err
		}
	}
	if j.joined {
		return putAll(meta, map[string][]byte{metaJoiner: nil, metaAside: nil})
	}
	return nil
}
