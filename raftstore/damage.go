package raftstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/sealed"
)

// ErrDamaged: what this node has promised to Raft is lost. See DamagedError.
var ErrDamaged = errors.New("this node's part of the log is damaged")

// DamagedError names what is damaged. The node must not go on as itself: it may
// have voted, and acknowledged entries, and know it no longer; a majority that
// counts on it could lose what was committed.
type DamagedError struct {
	File string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged (%v): this node may have forgotten what it promised to the others and must not go on as the member that it was. "+
		"Its trees and its content are untouched. Check the disk; "+cluster.ReplaceSelf,
		e.File, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Is makes it an ErrDamaged.
func (e *DamagedError) Is(target error) bool { return target == ErrDamaged }

// promised names what a damaged file means for this node.
func promised(err error) error {
	var d *sealed.DamagedError
	if errors.As(err, &d) {
		return &DamagedError{File: d.File, Err: d.Err}
	}
	return err
}

// snapshotKey is the index of the newest snapshot that there ever was: the log
// must not end before it.
var snapshotKey = []byte("gatesync-snapshot")

// whole makes sure that snapshot and log together are all that this node ever
// acknowledged: Raft does not look.
func (s *Store) whole(kept *snapshots) error {
	newest, damaged, err := kept.inspect()
	if err != nil {
		return fmt.Errorf("read the snapshots: %w", err)
	}
	last, err := s.disk.GetUint64(snapshotKey)
	if err != nil && !errors.Is(err, errKeyNotFound) {
		return err
	}
	first, end := s.disk.ends()
	var gap error
	switch {
	case first > newest+1:
		gap = fmt.Errorf("the log begins with entry %d, and the newest usable snapshot ends with %d", first, newest)
	case max(newest, end) < last:
		gap = fmt.Errorf("a snapshot reached up to entry %d, and snapshot and log now end with %d", last, max(newest, end))
	case len(damaged) > 0:
		s.log.Warn("an older snapshot and the log make up for the damaged one", "snapshot", newest, "log_from", first, "log_to", end)
	}
	if gap == nil {
		return nil
	}
	file := filepath.Join(s.cfg.Dir, snapshotDir)
	if len(damaged) > 0 {
		file = strings.Join(damaged, ", ")
	}
	return &DamagedError{File: file, Err: gap}
}

// guardedLogs is the log as Raft sees it. Raft applies what it reads, and ends
// the process where it cannot read: instead, damage is told to whoever runs
// Guard, and Raft's goroutine waits for the end.
type guardedLogs struct {
	logs
	store *Store
	keep  func() uint64 // entries behind it are kept, whatever Raft says
}

// GetLog implements raft.LogStore.
func (g *guardedLogs) GetLog(index uint64, entry *raft.Log) error {
	err := g.logs.GetLog(index, entry)
	g.store.halt(err)
	return err
}

// StoreLog implements raft.LogStore.
func (g *guardedLogs) StoreLog(entry *raft.Log) error { return g.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (g *guardedLogs) StoreLogs(entries []*raft.Log) error {
	err := g.logs.StoreLogs(entries)
	g.store.halt(err)
	return err
}

// DeleteRange implements raft.LogStore. What is behind a snapshot goes only as
// far as an older snapshot could stand in for it.
func (g *guardedLogs) DeleteRange(from, to uint64) error {
	first, err := g.FirstIndex()
	if err != nil {
		return err
	}
	last, err := g.LastIndex()
	if err != nil {
		return err
	}
	if from <= first && to < last {
		to = min(to, g.keep())
	}
	if from > to {
		return nil
	}
	err = g.logs.DeleteRange(from, to)
	g.store.halt(err)
	return err
}

// guardedStable is the same for term and vote. It lies below steadfast, which
// waits for a full disk, and would wait for a damaged one too.
type guardedStable struct {
	raft.StableStore
	store *Store
}

// Set implements raft.StableStore.
func (g guardedStable) Set(key, value []byte) error {
	err := g.StableStore.Set(key, value)
	g.store.halt(err)
	return err
}

// SetUint64 implements raft.StableStore.
func (g guardedStable) SetUint64(key []byte, v uint64) error {
	err := g.StableStore.SetUint64(key, v)
	g.store.halt(err)
	return err
}

// report makes this node fall silent and Guard return, if err is damage.
func (s *Store) report(err error) {
	if !errors.Is(err, sealed.ErrDamaged) {
		return
	}
	err = promised(err)
	if s.damage.CompareAndSwap(nil, &err) {
		s.log.Error("the log is damaged; this node stops", "err", err)
		s.stream.fence(logDamaged)
		close(s.damaged)
	}
}

// halt does nothing unless err is damage. Then the calling goroutine, which is
// one of Raft's, waits for Close and ends: whatever it did next would be built
// on the damage.
func (s *Store) halt(err error) {
	if !errors.Is(err, sealed.ErrDamaged) || !s.started.Load() {
		return
	}
	s.report(err)
	<-s.closing
	runtime.Goexit()
}

// Guard waits until ctx ends (nil) or this node's part of the log turns out to
// be damaged (*DamagedError): it has to be closed then.
func (s *Store) Guard(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.damaged:
		return *s.damage.Load()
	}
}

// renewSnapshots makes a new snapshot whenever one was found damaged, until the
// store closes: followers that lag need one.
func (s *Store) renewSnapshots(wanted <-chan struct{}) {
	defer s.running.Done()
	for {
		select {
		case <-s.closing:
			return
		case <-wanted:
		}
		if err := s.raft.Snapshot().Error(); err != nil && !s.isClosing() {
			s.log.Warn("cannot make a new snapshot in place of the damaged one yet", "err", err)
		}
	}
}

// nudge leaves a token, unless there is one.
func nudge(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
