package syncer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs"
)

// damagedMark stands in the name of a record file that was set aside.
const damagedMark = ".damaged-"

// openOrReplace opens the record file. One that is damaged is set aside, and a
// new one begun: the tree is then as unknown as a joiner's, and more careful
// still (State.Lost). Conflicts that can be read in the damaged one are kept.
func (s *Syncer) openOrReplace() (*records, error) {
	file := s.cfg.Records
	r, err := openRecords(file)
	if !errors.Is(err, sealed.ErrDamaged) {
		return r, err
	}
	aside := file + damagedMark + s.cfg.Now().UTC().Format("20060102-150405.000000")
	if err := os.Link(file, aside); err != nil {
		return nil, fmt.Errorf("set the damaged %s aside: %w", file, err)
	}
	// The new one comes in its place in one step.
	fresh := file + ".rebuilt"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	kept, err := s.rebuild(fresh, aside)
	if err != nil {
		return nil, fmt.Errorf("begin the records of the tree anew: %w", err)
	}
	if err := os.Rename(fresh, file); err != nil {
		return nil, err
	}
	s.log.Error("the tree's records are damaged and were set aside; what stands in the tree and is not what is committed is held: "+
		"see `gatesync held`, then approve or restore it", "file", file, "moved_to", aside, "conflicts_kept", kept)
	return openRecords(file)
}

// rebuild makes a record file that knows nothing but the conflicts of a damaged
// one, and what can be read of its plan.
func (s *Syncer) rebuild(fresh, damaged string) (kept int, err error) {
	r, err := openRecords(fresh)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	job := recordJob{}
	err = sealed.Salvage(damaged, bucketConflicts, func(k, v []byte) {
		c, err := decodeConflict(string(k), v)
		if err == nil && (!c.Lost.HasContent() || s.cfg.Blobs.Has(c.Lost.Digest)) {
			job.conflicts = append(job.conflicts, c)
		}
	})
	if err != nil {
		return 0, err
	}
	err = sealed.Salvage(damaged, bucketPlan, func(k, v []byte) {
		if p, err := decodePlanned(string(k), v); err == nil {
			job.plan = append(job.plan, p)
		}
	})
	if err != nil {
		return 0, err
	}
	err = r.db.Update(func(tx *sealed.Tx) error {
		// The root had its marker: one without is lost, and not new.
		known := map[string][]byte{metaRooted: {1}, metaJoiner: {1}, metaLost: {1}}
		return errors.Join(putAll(tx.Bucket(bucketMeta), known), job.write(tx))
	})
	return len(job.conflicts), err
}

// setAside names the damaged record files that nobody has removed yet.
func (s *Syncer) setAside() []string {
	all, _ := vfs.Like(filepath.Dir(s.cfg.Records), filepath.Base(s.cfg.Records)+damagedMark+"*")
	return all
}

// undecided tells whether a path that differs from what is committed is held,
// because the records that knew which of both is newer are lost.
func (l *Loop) undecided(w *work, a Ancestor, d manifest.Entry, c manifest.Node) bool {
	n, noted := l.notes[w.path]
	noted = noted && n.Guard == GuardRecords
	lost := l.state.Lost && l.state.Joiner && a.Entry.Absent() && !l.refill
	lost = lost || a.Entry.Absent() && l.unreadAbove(w.path) == GuardUnreadLost
	if !noted && !lost || l.rulings[w.path] != 0 {
		return false
	}
	l.note(w.path, Note{
		Guard: GuardRecords, Why: "it is not what is committed, and this node's records of the tree were damaged", Entry: d, Base: c.Revision,
	})
	return true
}

// recordsLost is what status says of damaged records.
func recordsLost(file string) string {
	when := ""
	if st, err := os.Stat(file); err == nil {
		when = " (last written " + st.ModTime().UTC().Format(time.RFC3339) + ")"
	}
	return fmt.Sprintf("the tree's records were damaged and set aside as %s%s; what differs is held; remove the file once all is well", file, when)
}
