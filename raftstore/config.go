package raftstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Config says what a Store is made of.
type Config struct {
	Dir     string           // of the log and the snapshots; made if missing
	ID      cluster.NodeID   // this node; also its address towards Raft
	Stream  raft.StreamLayer // Raft's connections; dials by node id. The Store closes it.
	Log     *slog.Logger     // nil: silent
	Forward Forwarder        // nil: commands are accepted on the leader only
	Tuning  Tuning           // zero values: defaults
	// FirstSequence: this node's proposals have no number below it. A node whose
	// log was set aside has used the ones before.
	FirstSequence uint64
	Reserve       int64 // bytes to keep free on Dir's disk; 0: 32 MB, negative: do not look

	free func(dir string) (int64, error) // nil: asks the file system
	// saves lets a test put a faulty disk under Raft's term and vote.
	saves func(raft.StableStore) raft.StableStore
}

// Forwarder carries a command to the leader. Package node implements it over
// the transport. It returns a *cluster.NotLeaderError where leader is not (or no
// longer) the leader. The command may be committed although an error is returned.
type Forwarder interface {
	Forward(ctx context.Context, leader cluster.NodeID, cmd *pb.Command) (*pb.Outcome, uint64, error)
}

// Tuning holds the times and sizes of Raft; zero values mean the defaults.
type Tuning struct {
	Heartbeat         time.Duration // a follower without contact for this long calls an election (1 s)
	Election          time.Duration // a candidate tries again after this long (1 s)
	Lease             time.Duration // a leader without contact to a majority for this long steps down (500 ms)
	Commit            time.Duration // an idle leader tells the commit index this often (500 ms: after a commit the second, empty entry tells it)
	RPC               time.Duration // bounds one exchange between nodes (10 s)
	SnapshotInterval  time.Duration // how often a snapshot is considered (2 min)
	SnapshotThreshold uint64        // new entries that make a snapshot worth while (8192)
	TrailingLogs      uint64        // entries kept behind a snapshot for followers that lag (4096)
	Stall             time.Duration // a write to the log that takes this long makes a node fall silent, and so a leader give up (5 s)
}

func (t Tuning) withDefaults() Tuning {
	orTime := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	orCount := func(n *uint64, def uint64) {
		if *n == 0 {
			*n = def
		}
	}
	orTime(&t.Heartbeat, time.Second)
	orTime(&t.Election, time.Second)
	orTime(&t.Lease, 500*time.Millisecond)
	orTime(&t.Commit, 500*time.Millisecond)
	orTime(&t.RPC, 10*time.Second)
	orTime(&t.SnapshotInterval, snapshotInterval)
	orTime(&t.Stall, 5*time.Second)
	orCount(&t.SnapshotThreshold, snapshotThreshold)
	orCount(&t.TrailingLogs, trailingLogs)
	return t
}

// raftConfig translates the tuning for Raft.
func (c *Config) raftConfig() *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.ID)
	rc.HeartbeatTimeout, rc.ElectionTimeout = c.Tuning.Heartbeat, c.Tuning.Election
	rc.LeaderLeaseTimeout, rc.CommitTimeout = c.Tuning.Lease, c.Tuning.Commit
	rc.SnapshotInterval, rc.SnapshotThreshold = c.Tuning.SnapshotInterval, c.Tuning.SnapshotThreshold
	rc.TrailingLogs = c.Tuning.TrailingLogs
	rc.ShutdownOnRemove = false // a removed node says so; it does not vanish
	rc.NoLegacyTelemetry = true
	rc.Logger = newRaftLogger(c.Log)
	return rc
}

var (
	// ErrExists: there is a log already where a new one was to be begun.
	ErrExists = errors.New("the directory already holds a log; a node that is a member is started with gatesync run")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the log is closed")
	// ErrNoRoom: the disk is too full for the log to grow.
	ErrNoRoom = errors.New("no room for the log")
	// ErrNotStopped: Close gave up waiting, most likely for a disk that hangs.
	ErrNotStopped = errors.New("raft did not stop in time; is the disk of the data directory hanging?")
)

// TooLargeError: a command does not fit into one entry of the log.
type TooLargeError struct{ Size, Limit int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d bytes in one command, the limit is %d; split the changeset into smaller ones", e.Size, e.Limit)
}

// RoomError says how full the disk is.
type RoomError struct{ Free, Reserve int64 }

func (e *RoomError) Error() string {
	return fmt.Sprintf("%s: %d bytes are free and %d are kept in reserve; free some space, it goes on by itself", ErrNoRoom, e.Free, e.Reserve)
}

// Is makes every RoomError an ErrNoRoom.
func (e *RoomError) Is(target error) bool { return target == ErrNoRoom }
