package web

import "time"

// Source tells how the node is, at the moment of the call. It is called from
// several goroutines and must not block on a tree's disk.
type Source interface{ State() State }

// State is what the endpoints tell about one node.
type State struct {
	Version  string
	Node     string // id
	Name     string
	Revision uint64 // committed, as known here
	Quorum   bool   // a leader is known and was heard from
	CaughtUp bool   // the log was read up to where it stood at start
	Raft     string // leader, follower, candidate, shutdown
	Trees    []Tree
	Blobs    Blobs
	Carriers []Carrier
	Members  int
	Alive    int
	Data     Data
	// Proposals counts this node's proposed changes by how they ended.
	Proposals map[string]uint64
	// CertificateExpires is when this node's certificate ends.
	CertificateExpires time.Time
	// CAExpires is when the CA behind it ends.
	CAExpires time.Time
	Targets   []Target
	// Format is the log's active format, NewestFormat the newest that this
	// node understands.
	Format, NewestFormat uint32
}

// Tree is the state of one tree.
type Tree struct {
	Name      string
	Applied   uint64
	Lag       time.Duration // since the oldest revision not yet applied was seen; 0: current
	Entries   int           // files, directories and symlinks
	Held      int
	Edited    int    // edits that stand where none are taken
	Repaired  uint64 // edits that were put back where none are taken, since the start
	Conflicts int
	Rejected  int
	Busy      int
	Failing   int // committed changes that cannot be brought to this disk
	Unsent    int // local edits that could not be committed so far
	Watched   int // directories
	Overflows uint64
	Lost      string // why the root is not usable; "" when it is
}

// Target is a receiver that the cluster keeps current.
type Target struct {
	Name     string
	Revision uint64 // that it surely has
	Current  bool   // it was reached, and has all
	Held     int
	Mine     bool // this node pushes to it
}

// Data is the disk of the data directory.
type Data struct {
	Free, Reserve int64
	Trouble       bool // the log cannot be written, or content not be taken
}

// Blobs is the state of the blob store.
type Blobs struct {
	Count int
	Bytes int64 // of content
	Disk  int64 // on disk

	Corrupt  uint64 // found since the start
	Mended   uint64 // brought back since the start
	Lost     int    // corrupt here, and on no other member
	Scrubbed uint64 // bytes that the scrub has read
	Scrubs   uint64 // complete passes
}

// Carrier counts the bytes of one way of travelling, by what travels.
type Carrier struct {
	Name          string
	Whole, Deltas Moved
	Well          bool // it can be used
}

// Moved is bytes of content, and those that travelled for it.
type Moved struct{ Sent, SentWire, Received, ReceivedWire uint64 }

// Unready lists why a load balancer should not send traffic to the gateway
// beside this node; empty: it should.
func (s State) Unready(maxLag time.Duration) []string {
	var why []string
	if !s.CaughtUp {
		why = append(why, "still reading the log: it is not known yet what is current")
	}
	for _, t := range s.Trees {
		switch {
		case t.Lost != "":
			why = append(why, "tree "+t.Name+": "+t.Lost)
		case t.Lag > maxLag:
			why = append(why, "tree "+t.Name+" is "+t.Lag.Round(time.Second).String()+" behind, the limit is "+maxLag.String())
		}
	}
	return why
}
