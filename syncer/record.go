package syncer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
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
	metaMarker     = "marker"     // name of the root's marker that the records belong to
	metaUnplanned  = "unplanned"  // present: what is staged may be of an earlier record file's plan
	metaAside      = "aside"      // present, with joiner: what the log does not hold goes aside
	metaGeneration = "generation" // of the marker that the records belong to
	metaReached    = "reached"    // steps of revisions up to this one have begun
	metaBegun      = "begun"      // present, beside metaJoiner: what the log said after metaFollowed is news to the disk
	metaLost       = "lost"       // present, beside metaJoiner: it was known, and the records were damaged
	metaClosed     = "closed"     // present: the tree took no edits when it was open last
	metaFollowed   = "followed"   // the disk has followed every revision up to this one
)

const recordFormat = "1"

// records is the record file of one tree: what disk and log agreed on, and
// what must be known after a crash. Safe for concurrent use (bbolt has one
// writer at a time).
type records struct {
	file string
	db   database
	boot string // of the machine, as load was told
	// fresh: the file was made by this opening.
	fresh bool
	// unplanned: what is staged may be of an earlier file's plan. Owned by recoverStaging.
	unplanned bool
}

// database is what records asks of a sealed file; a test puts a failing one on top.
type database interface {
	View(fn func(*sealed.Tx) error) error
	Update(fn func(*sealed.Tx) error) error
	Close() error
}

// loaded is what a record file holds, for the loop.
type loaded struct {
	state  State
	rooted bool
	marker string // that the records belong to, "": not known
	// generation of the cluster's marker that it belongs to, 0: not known.
	generation uint64
}

func openRecords(file string) (r *records, err error) {
	r = &records{file: file}
	r.db, r.fresh, err = sealed.Open(file, bucketAncestor, bucketNotes, bucketConflicts, bucketPlan, bucketMeta)
	if err != nil {
		return nil, err
	}
	err = r.db.Update(func(tx *sealed.Tx) error {
		meta := tx.Bucket(bucketMeta)
		f, err := meta.Get([]byte(metaFormat))
		if err != nil {
			return err
		}
		if f == nil {
			r.unplanned = true
			return putAll(meta, map[string][]byte{metaFormat: []byte(recordFormat), metaUnplanned: {1}})
		}
		unplanned, err := meta.Get([]byte(metaUnplanned))
		if err != nil {
			return err
		}
		r.unplanned = unplanned != nil
		if string(f) != recordFormat {
			return &NewerRecordsError{File: file, Format: string(f)}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, r.db.Close())
	}
	return r, nil
}

// NewerRecordsError: a newer version has written the record file.
type NewerRecordsError struct{ File, Format string }

func (e *NewerRecordsError) Error() string {
	return fmt.Sprintf("%s has format %s, this gatesync knows %s: a newer version ran here; install it again; nothing was changed", e.File, e.Format, recordFormat)
}

// load reads everything that the loop starts from.
func (r *records) load(bootID string) (out loaded, err error) {
	out.state = State{Ancestors: NewAncestorMap(), Notes: map[manifest.Path]Note{}}
	r.boot = bootID
	authors := map[string]string{} // a few nodes wrote 50,000 paths
	known := false                 // under which boot the disk was last looked at
	err = r.db.View(func(tx *sealed.Tx) error {
		err := tx.Bucket(bucketMeta).ForEach(func(k, v []byte) error {
			switch string(k) {
			case metaRooted:
				out.rooted = true
			case metaMarker:
				out.marker = string(v)
			case metaJoiner:
				out.state.Joiner = true
			case metaAside:
				out.state.Aside = true
			case metaBegun:
				out.state.Begun = true
			case metaLost:
				out.state.Lost = true
			case metaClosed:
				out.state.Closed = true
			case metaBoot:
				known = true
				out.state.SameBoot = bootID != "" && string(v) == bootID
			case metaGeneration:
				out.generation = uint64(revisionOf(v))
			case metaFollowed:
				out.state.Followed = revisionOf(v)
			case metaReached:
				out.state.Reached = revisionOf(v)
			}
			return nil
		})
		if err != nil {
			return err
		}
		err = tx.Bucket(bucketAncestor).ForEach(func(k, v []byte) error {
			a, err := decodeAncestor(v)
			if err != nil {
				return fmt.Errorf("%s: %q: %w", r.file, k, err)
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
		return tx.Bucket(bucketNotes).ForEach(func(k, v []byte) error {
			n, err := decodeNote(v)
			out.state.Notes[noteKey(k)] = n
			return err
		})
	})
	if err == nil && r.fresh && !known && bootID != "" && !out.state.Lost { // no power cut has left anything that is to be looked at
		out.state.SameBoot = true
		err = r.setMeta(map[string][]byte{metaBoot: []byte(bootID)})
	}
	return out, err
}

// revisionOf reads a revision of bucketMeta, 0 where there is none.
func revisionOf(b []byte) manifest.Revision {
	if len(b) != 8 {
		return 0
	}
	return manifest.Revision(binary.BigEndian.Uint64(b))
}

// There are no empty keys; the note of the whole tree stands under "/".
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
	return r.db.Update(func(tx *sealed.Tx) error {
		return putAll(tx.Bucket(bucketMeta), values)
	})
}

func putAll(b *sealed.Bucket, values map[string][]byte) error {
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
func forgetAll(tx *sealed.Tx, aside bool) error {
	anc := tx.Bucket(bucketAncestor)
	if last := anc.Last(); last != nil {
		if err := anc.DeleteRange(anc.First(), last); err != nil {
			return err
		}
	}
	return putAll(tx.Bucket(bucketMeta), joinerMeta(aside))
}

func (r *records) close() error { return r.db.Close() }

// recordJob is what one transaction is to persist. Jobs are persisted in the
// order in which they were handed over.
type recordJob struct {
	// marker of the root that it is about: where the records belong to another
	// one by now, what it says of agreement is void. "": not known.
	marker   string
	updates  []Update
	notes    []Remember
	joined   bool
	opened   bool               // the tree takes edits, and what was edited before is held
	followed manifest.Revision  // 0: as before
	begun    *manifest.Revision // a joiner's first view; nil: as before
	boot     string             // that looked speaks of
	looked   bool               // what a loss of power had left was looked at: the boot is written
	reached  manifest.Revision  // 0: as before

	conflicts  []Conflict
	unconflict []string // ids
	plan       []planned
	unplan     []string // staged names that are done with

	done func(error) // called when it is on disk; may be nil
}

func (j recordJob) write(tx *sealed.Tx) error {
	void, err := j.void(tx)
	if err != nil {
		return err
	}
	if void {
		j.updates, j.followed, j.begun, j.looked, j.joined = nil, 0, nil, false, false
	}
	for _, write := range []func() error{
		func() error { return writeAncestors(tx.Bucket(bucketAncestor), j.updates) },
		func() error { return writeNotes(tx.Bucket(bucketNotes), j.notes) },
		func() error { return writeConflicts(tx.Bucket(bucketConflicts), j.conflicts, j.unconflict) },
		func() error { return writePlan(tx.Bucket(bucketPlan), j.plan, j.unplan) },
		func() error { return j.writeMeta(tx.Bucket(bucketMeta)) },
	} {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// void tells whether the records belong to another root by now.
func (j recordJob) void(tx *sealed.Tx) (bool, error) {
	if j.marker == "" {
		return false, nil
	}
	now, err := tx.Bucket(bucketMeta).Get([]byte(metaMarker))
	return now != nil && string(now) != j.marker, err
}

func writeAncestors(b *sealed.Bucket, updates []Update) error {
	for _, u := range updates {
		var err error
		if u.Ancestor == nil {
			err = b.Delete([]byte(u.Path))
		} else {
			err = b.Put([]byte(u.Path), encodeAncestor(*u.Ancestor))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func writeNotes(b *sealed.Bucket, notes []Remember) error {
	for _, n := range notes {
		var err error
		if n.Note == nil {
			err = b.Delete(keyOfNote(n.Path))
		} else {
			err = b.Put(keyOfNote(n.Path), encodeNote(*n.Note))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func writeConflicts(b *sealed.Bucket, kept []Conflict, dropped []string) error {
	for _, c := range kept {
		if err := b.Put([]byte(c.ID), encodeConflict(c)); err != nil {
			return err
		}
	}
	for _, id := range dropped {
		if err := b.Delete([]byte(id)); err != nil {
			return err
		}
	}
	return nil
}

func writePlan(b *sealed.Bucket, plan []planned, done []string) error {
	for _, name := range done { // first: a name may be planned anew
		if err := b.Delete([]byte(name)); err != nil {
			return err
		}
	}
	for _, p := range plan {
		if err := b.Put([]byte(p.name), encodePlanned(p)); err != nil {
			return err
		}
	}
	return nil
}

func (j recordJob) writeMeta(meta *sealed.Bucket) error {
	values := map[string][]byte{}
	if j.looked {
		values[metaBoot] = []byte(j.boot)
	}
	if j.followed > 0 {
		values[metaFollowed] = binary.BigEndian.AppendUint64(nil, uint64(j.followed))
	}
	if j.begun != nil {
		if err := beginMeta(meta, values, *j.begun); err != nil {
			return err
		}
	}
	before, err := meta.Get([]byte(metaReached))
	if err != nil {
		return err
	}
	if j.reached > revisionOf(before) { // there are two lanes
		values[metaReached] = binary.BigEndian.AppendUint64(nil, uint64(j.reached))
	}
	if j.opened {
		values[metaClosed] = nil
	}
	if j.joined {
		values[metaJoiner], values[metaBegun], values[metaAside], values[metaLost] = nil, nil, nil, nil
	}
	return putAll(meta, values)
}
