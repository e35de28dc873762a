package raftstore

import "sync"

// watchers wakes whoever waits for news. Each has a channel of one slot: news
// that nobody has looked at yet is told once.
type watchers struct {
	mu  sync.Mutex
	all map[chan struct{}]struct{}
}

// Watch returns a channel that becomes readable after each applied entry,
// restored snapshot and change of leader; several may be told as one. stop ends
// it; the channel is never closed.
func (s *Store) Watch() (ch <-chan struct{}, stop func()) { return s.watchers.add() }

func (w *watchers) add() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[chan struct{}]struct{})
	}
	w.all[ch] = struct{}{}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, ch)
	}
}

func (w *watchers) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.all {
		select {
		case ch <- struct{}{}:
		default: // told, and not yet looked at
		}
	}
}

// beacon lets any number of goroutines wait for the next signal.
type beacon struct {
	mu   sync.Mutex
	next chan struct{}
}

// wait returns a channel that is closed at the next signal. Take it first, then
// look at what it is about: so no signal is missed.
func (b *beacon) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *beacon) signal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}
