package raftstore

import (
	"sync"
	"time"
)

// verifyWithin bounds how long a leader waits for a majority to say that it
// still leads; verifyFresh is for how long their word counts.
const (
	verifyWithin = 500 * time.Millisecond
	verifyFresh  = 200 * time.Millisecond
)

// led is when a majority last said that this node leads. One question is under
// way at a time; its waiter ends with Raft's answer, which comes at the latest
// with the lease's end.
type led struct {
	mu      sync.Mutex
	at      time.Time
	pending chan struct{} // closed when the question under way is answered
}

// verifyLeader asks a majority whether this node still leads, and has it told
// when they have answered. false: the store is closing.
func (s *Store) verifyLeader(told func(error)) bool {
	s.entering.RLock()
	defer s.entering.RUnlock()
	if s.isClosing() {
		return false
	}
	s.inside.Add(1)
	go func() {
		defer s.inside.Done()
		told(s.raft.VerifyLeader().Error())
	}()
	return true
}

// latest asks, unless that was done a moment ago, and returns when it was last
// true.
func (l *led) latest(verify func(told func(error)) bool) time.Time {
	l.mu.Lock()
	if time.Since(l.at) < verifyFresh {
		defer l.mu.Unlock()
		return l.at
	}
	if l.pending == nil {
		answered, asked := make(chan struct{}), time.Now()
		l.pending = answered
		if !verify(func(err error) { l.told(answered, asked, err) }) {
			l.pending = nil
			defer l.mu.Unlock()
			return l.at
		}
	}
	wait := l.pending
	l.mu.Unlock()
	timer := time.NewTimer(verifyWithin)
	defer timer.Stop()
	select {
	case <-wait:
	case <-timer.C:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

// told takes the answer to the question under way.
func (l *led) told(answered chan struct{}, asked time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.at = asked
	}
	l.pending = nil
	close(answered)
}
