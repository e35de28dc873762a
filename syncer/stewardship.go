package syncer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/gatesync/gatesync/vfs"
)

const (
	stewardNote = "steward"
	// beatEvery is how often a steward looks whether another one stands beside
	// the tree.
	beatEvery = 2 * time.Second
	// SureFor is for how long a steward goes on after it last knew of a leader. It
	// is shorter than the time after which the leader names another one.
	SureFor = 2500 * time.Millisecond
	// beatFor is for how long a look at the note beside the tree counts.
	beatFor = 200 * time.Millisecond
	// hungAfter is when a root that does not answer is nobody's to write to.
	hungAfter = 3 * time.Second
)

// stewardNoted is what stands beside a shared tree: who writes there.
type stewardNoted struct {
	Mount string `json:"mount"`
	Epoch uint64 `json:"epoch"`
	Node  string `json:"node"`
	// Generation of the tree: epochs of an older life of the cluster are over.
	Generation uint64 `json:"generation"`
}

// errNotSteward: this node is not, or not surely, the one that writes to the
// shared tree.
var errNotSteward = errors.New("another node may write to this mount now: it is left to the steward")

// errAsking: the root is being asked something just now; it may answer in a moment.
var errAsking = errors.New("the root is being asked already")

// beat is what a steward knows of the note beside the tree.
type beat struct {
	at      atomic.Int64 // Unix nanoseconds of the monotonic process clock: the last look that found this node's epoch
	epoch   atomic.Uint64
	pending atomic.Int64 // since when a look is under way, 0: none
	failed  atomic.Bool  // the last one failed
}

// stewarding tells whether the log names this node as the steward.
func (p *placer) stewarding() bool {
	at, _ := p.current()
	return at.Mount != "" && string(at.Steward) == p.s.cfg.Self
}

// takeUp writes this node's epoch beside the tree, or sees that it still stands
// there. asking: that somebody else asks the root just now tells nothing; again soon.
func (p *placer) takeUp() (asking bool) {
	at, taken := p.current()
	err := p.s.checkBeat(at, taken != at.Epoch)
	if errors.Is(err, errAsking) {
		return true
	}
	p.mu.Lock()
	was := p.taken
	if p.taken = at.Epoch; err != nil {
		p.taken = 0
	}
	changed := was != p.taken
	p.mu.Unlock()
	if changed {
		if err != nil {
			p.s.log.Warn("cannot be the steward of the shared tree", "epoch", at.Epoch, "err", err)
		} else {
			p.s.log.Info("this node is the steward of the shared tree now", "mount", at.Mount, "epoch", at.Epoch)
		}
		p.settle()
	}
	return false
}

// checkBeat reads the note beside the tree, and writes it where this node begins
// an epoch. An error: another one is newer, or the root does not answer.
func (s *Syncer) checkBeat(at Place, begin bool) error {
	return s.question(func(root vfs.Shared) error { return s.checkNote(root, at, begin) })
}

// probe asks the root anything at all.
func (s *Syncer) probe() error {
	return s.question(func(root vfs.Shared) error { _, err := readSteward(root); return err })
}

// question asks the root something, and notes whether it answers. One question is
// under way at a time.
func (s *Syncer) question(ask func(vfs.Shared) error) (err error) {
	if !s.beat.pending.CompareAndSwap(0, s.clock()) {
		since := s.beat.pending.Load()
		silent := time.Duration(s.clock() - since)
		if since == 0 || silent < hungAfter {
			return fmt.Errorf("%w: %w", errNotSteward, errAsking)
		}
		return fmt.Errorf("%w: the root has not answered for %s", errNotSteward, silent.Round(time.Second))
	}
	defer func() {
		s.beat.failed.Store(err != nil && !errors.Is(err, errNotSteward))
		s.beat.pending.Store(0)
	}()
	g, done, err := s.root.borrow()
	if err != nil {
		return err
	}
	defer done()
	return ask(g.fs)
}

// checkNote is checkBeat on a root.
func (s *Syncer) checkNote(root vfs.Shared, at Place, begin bool) error {
	begun := s.clock()
	noted, err := readSteward(root)
	if err != nil {
		return err
	}
	mine := stewardNoted{Mount: at.Mount, Epoch: at.Epoch, Node: s.cfg.Self, Generation: s.cfg.Generation}
	if noted != mine {
		switch {
		case noted.Generation > mine.Generation, noted.Generation == mine.Generation && noted.Mount == at.Mount && noted.Epoch >= at.Epoch:
			return fmt.Errorf("%w: epoch %d of node %s stands beside the tree, this node has epoch %d", errNotSteward, noted.Epoch, noted.Node, at.Epoch)
		case !begin:
			return fmt.Errorf("%w: the note beside the tree is not this node's any more", errNotSteward)
		}
		b, err := json.Marshal(mine)
		if err != nil {
			return err
		}
		if err := root.WriteNote(stewardNote, b); err != nil {
			return fmt.Errorf("write the epoch beside the tree: %w", err)
		}
	}
	s.beat.epoch.Store(at.Epoch)
	s.beat.at.Store(begun)
	return nil
}

func readSteward(root vfs.Shared) (n stewardNoted, err error) {
	b, err := root.ReadNote(stewardNote)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err == nil && json.Unmarshal(b, &n) != nil {
		return stewardNoted{}, nil // torn by a full disk, or by hand: to be written anew
	}
	return n, err
}

// sure tells whether this node may change the tree just now: nil where it is its
// own, or where it is the steward, has heard from a leader a moment ago, and
// its epoch stands beside the tree.
func (s *Syncer) sure() error {
	if s.cfg.Mounts == nil {
		return nil
	}
	at, taken := s.placer.current()
	switch {
	case at.Unknown:
		return fmt.Errorf("%w (%s)", errNotSteward, at.Why)
	case at.Mount == "":
		return nil
	case string(at.Steward) != s.cfg.Self || taken != at.Epoch || time.Since(s.cfg.Mounts.Heard()) > SureFor:
		return errNotSteward
	case s.beat.epoch.Load() == at.Epoch && s.clock()-s.beat.at.Load() < int64(beatFor):
		return nil
	}
	return s.checkBeat(at, false)
}

// Steady tells whether this node could be the steward of its tree's mount: its root
// is in order and answers.
func (s *Syncer) Steady() bool {
	lost, _ := s.root.state()
	s.placer.mu.Lock()
	refuses := s.placer.refuses
	s.placer.mu.Unlock()
	since := s.beat.pending.Load()
	return !refuses && lost == "" && !s.beat.failed.Load() && (since == 0 || s.clock()-since < int64(hungAfter))
}

// clock is a clock that nobody sets; it is never 0.
func (s *Syncer) clock() int64 { return int64(time.Since(s.opened)) + 1 }
