package syncer

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
	"github.com/gatesync/gatesync/vfs"
)

const (
	// fewSyncs is up to how many files and directories are flushed one by one;
	// beyond it one syncfs is cheaper.
	fewSyncs = 8
	// bigFile is from which size on a file is worked on in the slow lanes, so
	// that nobody waits behind it.
	bigFile = 4 << 20
	// persistRetry is the pause after a failed transaction (a full disk).
	persistRetry = time.Second
)

// persister writes jobs to the record file, many in one transaction, in the
// order in which they came. What has to be flushed before is flushed here.
// A large file is flushed beside the queue: its update follows when it is on
// disk, unless something newer about the path has been handed over by then.
type persister struct {
	rec  *records
	root *rootKeeper
	log  *slog.Logger

	mu       sync.Mutex
	queue    []recordJob
	late     map[manifest.Path]uint64 // of large files that are being flushed: the ticket
	tickets  uint64
	followed manifest.Revision // held back until late is empty
	failing  string            // why the last transaction failed

	ready   chan struct{}
	damaged chan error // holds why, once the records turned out to be damaged
	slow    sync.WaitGroup
}

func newPersister(rec *records, root *rootKeeper, log *slog.Logger) *persister {
	return &persister{rec: rec, root: root, log: log, late: map[manifest.Path]uint64{}, ready: make(chan struct{}, 1), damaged: make(chan error, 1)}
}

// add hands a job over; it never blocks.
func (p *persister) add(j recordJob) {
	p.mu.Lock()
	for _, u := range j.updates {
		delete(p.late, u.Path)
	}
	p.queue = append(p.queue, j)
	p.mu.Unlock()
	p.wake()
}

func (p *persister) wake() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// run persists until ctx ends, and then what had been handed over by that time.
func (p *persister) run(ctx context.Context) {
	defer p.slow.Wait()
	for {
		select {
		case <-ctx.Done():
			p.round(ctx)
			return
		case <-p.ready:
			p.round(ctx)
		}
	}
}

// round persists everything that is queued now.
func (p *persister) round(ctx context.Context) {
	p.mu.Lock()
	jobs := p.queue
	p.queue = nil
	p.mu.Unlock()
	if len(jobs) == 0 {
		return
	}
	p.flush(ctx, jobs)
	p.holdFollowed(jobs)
	err := p.commit(ctx, jobs)
	for _, j := range jobs {
		if j.done != nil {
			j.done(err)
		}
	}
}

// holdFollowed keeps back what says "everything up to this revision is
// recorded" while the update of a large file is still to come.
func (p *persister) holdFollowed(jobs []recordJob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.late) == 0 {
		return
	}
	for i := range jobs {
		p.followed = max(p.followed, jobs[i].followed)
		jobs[i].followed = 0
	}
}

// commit writes the jobs in one transaction, again and again until it works or
// ctx ends: what it would lose is work only, never an edit.
func (p *persister) commit(ctx context.Context, jobs []recordJob) error {
	for {
		err := p.rec.db.Update(func(tx *sealed.Tx) error {
			for _, j := range jobs {
				j.boot = p.rec.boot
				if err := j.write(tx); err != nil {
					return err
				}
			}
			return nil
		})
		p.mu.Lock()
		said := p.failing
		p.failing = ""
		if err != nil {
			p.failing = err.Error()
		}
		p.mu.Unlock()
		if err == nil {
			return nil
		}
		if errors.Is(err, sealed.ErrDamaged) {
			select {
			case p.damaged <- err:
			default:
			}
			return err
		}
		if said != err.Error() {
			p.log.Error("cannot write the tree's records; trying again", "file", p.rec.file, "err", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(persistRetry):
		}
	}
}

// flush makes durable what the jobs' updates say was seen on disk. An update
// whose flush fails is left out: the next start finds the path again.
func (p *persister) flush(ctx context.Context, jobs []recordJob) {
	files, dirs := map[manifest.Path]error{}, map[manifest.Path]error{}
	for i := range jobs {
		jobs[i].updates = slices.DeleteFunc(slices.Clone(jobs[i].updates), func(u Update) bool {
			switch {
			case !u.Flush:
				return false
			case u.Ancestor != nil && u.Ancestor.Entry.HasContent() && u.Ancestor.Entry.Size >= bigFile:
				p.flushLate(ctx, u, jobs[i].marker)
				return true
			case u.Ancestor != nil && u.Ancestor.Entry.HasContent():
				files[u.Path] = nil
			}
			dirs[u.Path.Dir()] = nil
			return false
		})
	}
	if len(files)+len(dirs) == 0 {
		return
	}
	g, done, err := p.root.borrow()
	if err == nil {
		defer done()
		err = syncPaths(g.fs, files, dirs)
	}
	for i := range jobs {
		jobs[i].updates = slices.DeleteFunc(jobs[i].updates, func(u Update) bool {
			if !u.Flush {
				return false
			}
			failed := errors.Join(err, files[u.Path], dirs[u.Path.Dir()])
			if failed != nil {
				p.log.Warn("cannot flush a file; its agreement is not recorded", "path", u.Path, "err", failed)
			}
			return failed != nil
		})
	}
}

// syncPaths flushes files and directories: one by one where they are few, by
// one syncfs where they are many. What has vanished needs no flush.
func syncPaths(root vfs.Flusher, files, dirs map[manifest.Path]error) error {
	if len(files)+len(dirs) > fewSyncs {
		return root.SyncFS()
	}
	for f := range files {
		err := root.SyncFile(f)
		if errors.Is(err, fs.ErrPermission) { // its mode keeps us from opening it
			err = root.SyncFS()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, vfs.ErrNotRegular) {
			files[f] = err
		}
	}
	for d := range dirs {
		if err := root.SyncDir(d); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, vfs.ErrNotDir) {
			dirs[d] = err
		}
	}
	return nil
}

// flushLate flushes a large file beside the queue.
func (p *persister) flushLate(ctx context.Context, u Update, marker string) {
	p.mu.Lock()
	p.tickets++
	ticket := p.tickets
	p.late[u.Path] = ticket
	p.mu.Unlock()
	p.slow.Go(func() {
		g, done, err := p.root.borrow()
		if err == nil {
			files, dirs := map[manifest.Path]error{u.Path: nil}, map[manifest.Path]error{u.Path.Dir(): nil}
			err = errors.Join(syncPaths(g.fs, files, dirs), files[u.Path], dirs[u.Path.Dir()])
			done()
		}
		if err != nil {
			p.log.Warn("cannot flush a file; its agreement is not recorded", "path", u.Path, "err", err)
		}
		u.Flush = false
		p.mu.Lock()
		switch {
		case p.late[u.Path] != ticket: // something newer came meanwhile
		case err == nil && ctx.Err() == nil:
			delete(p.late, u.Path)
			p.queue = append(p.queue, recordJob{marker: marker, updates: []Update{u}})
		default:
			delete(p.late, u.Path)
			p.followed = 0
		}
		if len(p.late) == 0 && p.followed > 0 {
			p.queue = append(p.queue, recordJob{marker: marker, followed: p.followed})
			p.followed = 0
		}
		p.mu.Unlock()
		p.wake()
	})
}

// trouble tells why records cannot be written, "" if they can.
func (p *persister) trouble() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failing
}
