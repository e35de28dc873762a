package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/gatesync/gatesync/cluster"
)

// book is the address book: where each member was last heard to be. Nodes are
// known by id; addresses are hints, each with an epoch, and the greater wins.
// It is cached in the data directory, so that a node finds the others when all
// of them come back at once. Safe for concurrent use.
type book struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	entries map[cluster.NodeID]bookEntry
}

type bookEntry struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Epoch   uint64 `json:"epoch"`
}

// openBook reads the cache. A damaged one is no reason to stay off: it is made
// anew from what others say.
func openBook(path string, log *slog.Logger) *book {
	b := &book{path: path, log: log, entries: map[cluster.NodeID]bookEntry{}}
	err := readJSON(path, &b.entries)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the cached addresses cannot be read; they are learned anew", "file", path, "err", err)
	}
	if b.entries == nil {
		b.entries = map[cluster.NodeID]bookEntry{}
	}
	return b
}

// learn takes what somebody says about members.
func (b *book) learn(members ...cluster.Member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := false
	for _, m := range members {
		old, ok := b.entries[m.ID]
		e := bookEntry{Name: m.Name, Address: m.Address, Epoch: m.Epoch}
		if m.Address == "" || ok && (e.Epoch < old.Epoch || e == old || e.Epoch == old.Epoch && e.Address != old.Address) {
			continue
		}
		b.entries[m.ID], changed = e, true
	}
	if changed {
		b.save()
	}
}

// keep forgets everybody who is no member.
func (b *book) keep(member func(cluster.NodeID) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := false
	for id := range b.entries {
		if !member(id) {
			delete(b.entries, id)
			changed = true
		}
	}
	if changed {
		b.save()
	}
}

// save writes the cache; the lock is held, so that writes come in order.
func (b *book) save() {
	if err := writeJSON(b.path, b.entries); err != nil {
		b.log.Warn("cannot cache the addresses", "err", err)
	}
}

// address tells where a member is.
func (b *book) address(id cluster.NodeID) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[id]
	return e.Address, ok
}

// members lists the book in the form that Hello carries.
func (b *book) members() []cluster.Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]cluster.Member, 0, len(b.entries))
	for id, e := range b.entries {
		out = append(out, cluster.Member{ID: id, Name: e.Name, Address: e.Address, Epoch: e.Epoch})
	}
	return out
}
