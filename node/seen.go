package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/transport"
)

// seenFile is seen.json: what outlives the daemon of what it saw of the
// others, for `recover` and against copied data directories.
type seenFile struct {
	Time     time.Time                       `json:"time"`
	Revision uint64                          `json:"revision"`
	Applied  uint64                          `json:"applied"` // index of the newest entry that was known to be committed
	Node     cluster.NodeID                  `json:"node"`    // whose log that is said of, and of …
	Life     cluster.Incarnation             `json:"life"`    // … which incarnation
	Members  map[cluster.NodeID]seenOfMember `json:"members"`
}

type seenOfMember struct {
	Heard time.Time       `json:"heard,omitzero"`
	Run   transport.Known `json:"run"`
}

// atLeast keeps what was known before: without a leader a log that was opened
// anew does not know what of it is committed.
func (f seenFile) atLeast(last seenFile) seenFile {
	if f.Node == last.Node && f.Life == last.Life && f.Applied < last.Applied {
		f.Applied, f.Revision = last.Applied, max(f.Revision, last.Revision)
	}
	return f
}

// seen keeps seen.json. A lost or damaged one costs a hint and some memory; it
// is made anew.
type seen struct {
	path string
	log  *slog.Logger
	last seenFile      // as read at the start; immutable after that
	wake chan struct{} // a member's run was replaced: to be kept at once
}

func readSeen(path string) (f seenFile, err error) {
	err = readJSON(path, &f)
	return f, err
}

func openSeen(path string, log *slog.Logger) *seen {
	s := &seen{path: path, log: log, wake: make(chan struct{}, 1)}
	var err error
	if s.last, err = readSeen(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("what was seen of the other members cannot be read; it is learned anew", "file", path, "err", err)
	}
	return s
}

// runs lists the members' runs that are remembered.
func (s *seen) runs() map[cluster.NodeID]transport.Known {
	out := map[cluster.NodeID]transport.Known{}
	for id, m := range s.last.Members {
		if m.Run.Nonce != "" {
			out[id] = m.Run
		}
	}
	return out
}

func (s *seen) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

const (
	seenLook  = time.Second
	seenEvery = time.Minute
)

// seeing writes seen.json: when a member's run was replaced, when one was lost
// or came back, at the end, and once a minute. One goroutine.
type seeing struct {
	*seen
	now func() (seenFile, map[cluster.NodeID]bool) // and who is alive
}

func (n *Node) seeing() *seeing {
	return &seeing{seen: n.seen, now: func() (seenFile, map[cluster.NodeID]bool) {
		_, applied, _ := n.log.Extent()
		f := seenFile{
			Time: time.Now(), Revision: uint64(n.log.Revision()), Applied: applied, Members: map[cluster.NodeID]seenOfMember{},
			Node: n.file.Node, Life: n.file.incarnation(),
		}.atLeast(n.seen.last)
		alive := map[cluster.NodeID]bool{}
		runs := n.instances.Export()
		for _, m := range n.others() {
			h, up := n.peers.last(m.ID)
			at := h.at
			if at.IsZero() {
				at = n.seen.last.Members[m.ID].Heard
			}
			f.Members[m.ID] = seenOfMember{Heard: at, Run: runs[m.ID]}
			alive[m.ID] = up
		}
		return f, alive
	}}
}

// readAll tells whether the machine has come as far as it was known to be
// committed before: a log that was opened anew begins at its snapshot, or at
// nothing, until there is a leader.
func (n *Node) readAll() bool {
	_, applied, _ := n.log.Extent()
	f := seenFile{Node: n.file.Node, Life: n.file.incarnation(), Applied: applied}
	id, _, _ := n.log.Cluster()
	return id != "" && f.atLeast(n.seen.last).Applied == applied
}

func (s *seeing) run(ctx context.Context) error {
	tick := time.NewTicker(seenLook)
	defer tick.Stop()
	written := time.Time{}
	var before map[cluster.NodeID]bool
	for {
		f, alive := s.now()
		if !maps.Equal(alive, before) || time.Since(written) >= seenEvery {
			s.write(f)
			before, written = alive, time.Now()
		}
		select {
		case <-ctx.Done():
			f, _ := s.now()
			s.write(f)
			return nil
		case <-s.wake:
			before = nil
		case <-tick.C:
		}
	}
}

func (s *seeing) write(f seenFile) {
	if err := writeJSON(s.path, f); err != nil {
		s.log.Warn("cannot keep what was seen of the other members", "err", err)
	}
}
