package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/gatesync/gatesync/cluster"
)

// maxAddress bounds an address, in bytes.
const maxAddress = 300

// book is the address book: where each member was last heard to be. Nodes are
// known by id; an address is what the node itself announced, to us or in the
// log, each time with an epoch, and the greater wins. What others say about a
// member is hearsay: it never replaces the member's own word, and is tried only
// when that leads nowhere. So a liar can cost an attempt, and no more.
// The book is cached in the data directory, so that a node finds the others
// when all of them come back at once. Safe for concurrent use.
type book struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	entries map[cluster.NodeID]bookEntry
	hearsay map[cluster.NodeID]hint
}

// hint is where others say that a member is.
type hint struct {
	address string
	epoch   uint64
	try     bool // the member's own word has led nowhere
}

// maxBook bounds how many strangers a node that has not read the log believes
// to be members.
const maxBook = 1024

type bookEntry struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Epoch   uint64 `json:"epoch"`
	// Follower: as the log last said. A follower that has not read its log asks
	// others first.
	Follower bool `json:"follower,omitempty"`
}

// openBook reads the cache. A damaged one is no reason to stay off: it is made
// anew from what others say.
func openBook(path string, log *slog.Logger) *book {
	b := &book{path: path, log: log, entries: map[cluster.NodeID]bookEntry{}, hearsay: map[cluster.NodeID]hint{}}
	err := readJSON(path, &b.entries)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the cached addresses cannot be read; they are learned anew", "file", path, "err", err)
	}
	if b.entries == nil {
		b.entries = map[cluster.NodeID]bookEntry{}
	}
	for id, e := range b.entries {
		if id == "" || e.Address == "" {
			delete(b.entries, id)
		}
	}
	return b
}

// learn takes what members say of themselves, and what the log says.
func (b *book) learn(members ...cluster.Member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := false
	for _, m := range members {
		old, ok := b.entries[m.ID]
		e := bookEntry{Name: m.Name, Address: m.Address, Epoch: m.Epoch, Follower: m.Role == cluster.Follower || ok && old.Follower && m.Role == ""}
		if m.ID == "" || m.Address == "" || ok && (e.Epoch < old.Epoch || e == old || e.Epoch == old.Epoch && e.Address != old.Address) {
			continue
		}
		b.entries[m.ID], changed = e, true
		delete(b.hearsay, m.ID)
	}
	if changed {
		b.save()
	}
}

// hear takes what somebody says about another member. quiet: the member itself
// has not been heard of lately, so that the new address is tried at once.
// strangers: the log is not read, and anybody may be a member.
func (b *book) hear(m cluster.Member, quiet, strangers bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.entries[m.ID]
	if m.ID == "" || m.Address == "" || len(m.Address) > maxAddress {
		return
	}
	if !known {
		if strangers && len(b.entries) < maxBook {
			// Without an epoch: its own word, whatever it is, counts for more.
			b.entries[m.ID] = bookEntry{Name: m.Name, Address: m.Address}
			b.save()
		}
		return
	}
	if m.Epoch <= old.Epoch || m.Address == old.Address {
		return
	}
	if h, ok := b.hearsay[m.ID]; ok && (h.try || m.Epoch <= h.epoch) {
		return
	}
	b.hearsay[m.ID] = hint{address: m.Address, epoch: m.Epoch, try: quiet}
}

// failed is told that nobody, or somebody else, was found at an address.
func (b *book) failed(id cluster.NodeID, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.hearsay[id]
	switch {
	case !ok:
	case h.address == addr: // it was not true, or is not any more
		delete(b.hearsay, id)
	default:
		h.try = true
		b.hearsay[id] = h
	}
}

// found is told that a member was met at an address. Hearsay that proved true
// takes the place of the member's older word, with the epoch of that: its next
// word counts for more.
func (b *book) found(id cluster.NodeID, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.hearsay[id]
	if !ok || h.address != addr {
		return
	}
	delete(b.hearsay, id)
	e := b.entries[id]
	e.Address = addr
	b.entries[id] = e
	b.save()
}

// keep forgets everybody who is no member.
func (b *book) keep(member func(cluster.NodeID) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := false
	for id := range b.entries {
		if !member(id) {
			delete(b.entries, id)
			delete(b.hearsay, id)
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
	if h := b.hearsay[id]; h.try {
		return h.address, true
	}
	e, ok := b.entries[id]
	return e.Address, ok
}

// members lists the book in the form that Hello carries.
func (b *book) members() []cluster.Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]cluster.Member, 0, len(b.entries))
	for id, e := range b.entries {
		m := cluster.Member{ID: id, Name: e.Name, Address: e.Address, Epoch: e.Epoch}
		if e.Follower {
			m.Role = cluster.Follower
		}
		out = append(out, m)
	}
	return out
}
