package raftstore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/vfs"
)

// Store is this node's part of the replicated log. Open starts it, Close stops
// it; all methods are safe for concurrent use.
type Store struct {
	cfg       Config
	log       *slog.Logger
	machine   *Machine
	fsm       *fsm
	disk      *disk
	logs      *watchedLogs
	stable    *steadfast
	failed    chan error // the disk's last failure, see Failed
	stream    *stream
	transport *strict
	kept      *snapshots
	raft      *raft.Raft
	sequence  *sequence
	barriers  barriers

	watchers watchers
	leaders  beacon // signalled when the leader may have changed
	applied  beacon // signalled when the machine has moved on
	silent   silence
	outdated chan uint32

	feeding sync.Mutex           // held by who feeds this node
	fed     atomic.Pointer[Told] // what the parent said last; nil: this node is not fed

	led      led
	slots    chan struct{} // bounds the commands inside Raft
	caughtUp atomic.Bool
	free     atomic.Int64 // bytes on the disk

	started atomic.Bool           // Raft runs
	damaged chan struct{}         // closed when the log turned out to be damaged
	damage  atomic.Pointer[error] // set before

	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
	running   sync.WaitGroup // watchdog, follow

	entering sync.RWMutex // held (shared) while a command is counted in
	inside   sync.WaitGroup
	pending  atomic.Int64 // commands inside Raft
}

const (
	logFile = "log.db"
	// keepSnapshots: the newest may turn out to be damaged.
	keepSnapshots = 2
	// maxInside bounds the commands that wait inside Raft.
	maxInside = 1024
	// defaultReserve is room for Raft to save its term, whatever happens.
	defaultReserve = 32 << 20
)

// Bootstrap begins the log of a new cluster whose only voter is first, in a
// directory that is missing or empty (else ErrExists). The first entries are
// written here, at once: a cluster that exists knows its identity. Of cfg, only
// Dir, ID and Tuning matter.
func Bootstrap(cfg Config, init *pb.InitCluster, first cluster.Member) error {
	cfg = cfg.withDefaults()
	if entries, err := os.ReadDir(cfg.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("begin the log: %w", err)
	} else if len(entries) > 0 {
		return fmt.Errorf("%s: %w", cfg.Dir, ErrExists)
	}
	// Made beside and moved into place: a crash leaves no half of a log.
	made := cfg
	made.Dir = filepath.Clean(cfg.Dir) + ".new"
	if err := os.RemoveAll(made.Dir); err != nil {
		return fmt.Errorf("begin the log: %w", err)
	}
	if err := writeFirst(made, init, first); err != nil {
		_ = os.RemoveAll(made.Dir)
		return fmt.Errorf("begin the log: %w", err)
	}
	if err := os.Rename(made.Dir, cfg.Dir); err != nil {
		return fmt.Errorf("begin the log: %w", err)
	}
	return vfs.SyncDir(filepath.Dir(filepath.Clean(cfg.Dir)))
}

// writeFirst writes the entries that every log begins with. They are committed
// when the single voter first elects itself.
func writeFirst(cfg Config, init *pb.InitCluster, first cluster.Member) (err error) {
	disk, err := openDisk(cfg.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, keepSnapshots, newRaftLogger(cfg.Log))
	if err != nil {
		return err
	}
	voters := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(cfg.ID), Address: raft.ServerAddress(cfg.ID),
	}}}
	if err := raft.BootstrapCluster(cfg.raftConfig(), disk, disk, snapshots, nil, voters); err != nil {
		return err
	}
	now := time.Now().UnixNano()
	commands := []*pb.Command{
		{Format: Format, TimeNs: now, Do: &pb.Command_InitCluster{InitCluster: init}},
		{Format: Format, TimeNs: now, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: FromMember(first)}}},
	}
	var entries []*raft.Log
	for i, cmd := range commands {
		data, err := proto.Marshal(cmd)
		if err != nil {
			return err
		}
		// Index 1 is the configuration; the term is the one it was given.
		entries = append(entries, &raft.Log{Index: uint64(i) + 2, Term: 1, Type: raft.LogCommand, Data: data, AppendedAt: time.Unix(0, now)})
	}
	if err := disk.StoreLogs(entries); err != nil {
		return err
	}
	return vfs.SyncDir(cfg.Dir)
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Reserve == 0 {
		c.Reserve = defaultReserve
	}
	if c.free == nil {
		c.free = freeSpace
	}
	if c.saves == nil {
		c.saves = func(s raft.StableStore) raft.StableStore { return s }
	}
	c.Tuning = c.Tuning.withDefaults()
	return c
}

// Open starts this node's part of the log: on what the directory holds, or, in
// an empty one, as a node that waits for a leader to add it.
func Open(cfg Config) (*Store, error) {
	return open(cfg, func(disk logs) logs { return disk })
}

// open lets a test put a faulty disk under the log.
func open(cfg Config, wrap func(logs) logs) (*Store, error) {
	cfg = cfg.withDefaults()
	disk, err := openDisk(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", promised(err))
	}
	s := &Store{
		cfg: cfg, log: cfg.Log, machine: NewMachine(), disk: disk, stream: newStream(cfg.Stream, cfg.ID),
		slots: make(chan struct{}, maxInside), closing: make(chan struct{}), damaged: make(chan struct{}),
		outdated: make(chan uint32, 1), failed: make(chan error, 1),
	}
	s.fsm = &fsm{machine: s.machine, moved: func() { s.applied.signal(); s.watchers.notify() }, ahead: s.fellBehind}
	s.logs = &watchedLogs{logs: wrap(disk)}
	s.stable = &steadfast{
		StableStore: cfg.saves(guardedStable{disk, s}), log: s.log, closing: s.closing, failed: s.failed, fence: func() { s.stream.fence(termNotSaved) },
	}
	s.lookAtDisk()
	if err := s.start(); err != nil {
		_ = disk.Close()
		return nil, fmt.Errorf("open the log in %s: %w", cfg.Dir, promised(err))
	}
	return s, nil
}

func (s *Store) start() (err error) {
	if s.sequence, err = newSequence(s.disk, s.cfg.FirstSequence); err != nil {
		return err
	}
	config := s.cfg.raftConfig()
	files, err := raft.NewFileSnapshotStoreWithLogger(s.cfg.Dir, keepSnapshots, config.Logger)
	if err != nil {
		return err
	}
	renew := make(chan struct{}, 1)
	kept := &snapshots{
		SnapshotStore: files, dir: s.cfg.Dir, log: s.log,
		made:  func(index uint64) error { return s.disk.SetUint64(snapshotKey, index) },
		renew: func() { nudge(renew) },
	}
	if err := s.whole(kept); err != nil {
		return err
	}
	cache, err := raft.NewLogCache(512, &guardedLogs{logs: s.logs, store: s, keep: kept.oldest})
	if err != nil {
		return err
	}
	s.transport = newStrict(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s.stream, Logger: config.Logger, MaxPool: 3, Timeout: s.cfg.Tuning.RPC,
		MaxRPCsInFlight: 1, // pipelining can lock a follower out for good
	}), s.log)
	s.kept = kept
	if s.raft, err = raft.NewRaft(config, s.fsm, cache, s.stable, kept, s.transport); err != nil {
		s.transport.CloseStreams()
		_ = s.transport.Close()
		s.stream.wait()
		return err
	}
	s.started.Store(true)
	s.transport.serve(s.raft)
	s.running.Add(3)
	go s.watchdog()
	go s.follow()
	go s.renewSnapshots(renew)
	return nil
}
