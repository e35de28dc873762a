package raftstore

import (
	"fmt"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Format is the first format of the log. Every log begins with it and is
// raised by SetFormat, once all members understand the next one.
//
// The active format stands in the machine. It alone decides what the machine
// does: never the version of the program, never a member's, never the clock.
// So machines of different versions stay equal, entry by entry, as long as all
// of them understand the active format; and one that does not stops. A
// command's own format only says how to read it, and is never above the
// active one.
const Format = 1

// feature is something that the machine does differently since a format: its
// value is the number of that format.
type feature uint32

func (s *state) has(f feature) bool { return s.format >= uint32(f) }

// NewerError: something is of a format that this version does not know.
type NewerError struct {
	What   string // for people
	Format uint32
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s is of format %d, this gatesync knows formats up to %d: install the version that the other members run, then start this node again; nothing was changed", e.What, e.Format, Newest)
}

// setFormat raises the active format. That all members understand it is
// checked here, at the command's place in the log: a proposer cannot know who
// has joined meanwhile.
func (m *Machine) setFormat(c *pb.SetFormat) *pb.Outcome {
	to := c.GetFormat()
	switch {
	case to == 0:
		return refuse(CodeMalformed, "no format")
	case to <= m.format:
		return done()
	}
	for _, member := range m.members {
		if knownTo(member) < to {
			return refuse(CodeFormat, "not every member understands format %d yet", to)
		}
	}
	if to > Newest {
		m.ahead = to
		return refuse(CodeFormat, "the log was raised to format %d, this version knows %d; upgrade this node", to, Newest)
	}
	m.format = to
	return done()
}

// knownTo is the newest format that a member said to understand.
func knownTo(m *pb.Member) uint32 { return max(m.GetFormat(), Format) }

// Format returns the active format.
func (m *Machine) Format() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.format
}

// Ahead returns the format that the log was raised to, where it is not known
// here; else 0. The machine then applies nothing any more.
func (m *Machine) Ahead() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ahead
}

// NextFormat says to which format the log can be raised now (the active one:
// to none), and who holds it back from the newest. Everybody counts who is a
// member, dead or alive: a member that returns has to understand the log.
func NextFormat(active, newest uint32, members []cluster.Member) (to uint32, waits []cluster.Member) {
	to = newest
	for _, m := range members {
		if known := max(m.Format, Format); known < newest {
			waits = append(waits, m)
			to = min(to, known)
		}
	}
	if len(members) == 0 {
		to = active
	}
	return max(to, active), waits
}

// Outdated tells once when the log is of a format that this version does not
// know: the node has to stop.
func (s *Store) Outdated() <-chan uint32 { return s.outdated }

func (s *Store) fellBehind(format uint32) {
	select {
	case s.outdated <- format:
	default: // it was told
	}
}
