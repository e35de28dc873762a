package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/backup"
	"github.com/gatesync/gatesync/config"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// currentWithin is how long a backup or a copy waits to have what was committed
// just now.
const currentWithin = 2 * time.Second

// upToDate waits, where there is a quorum, until this node has what was
// committed when it was called, and tells whether it has.
func (s *localService) upToDate(ctx context.Context) bool {
	if !s.log.Quorum() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, currentWithin)
	defer cancel()
	return s.log.Barrier(ctx) == nil
}

// Backup streams a backup of what is committed.
func (s *localService) Backup(_ *pb.BackupRequest, stream grpc.ServerStreamingServer[pb.BackupChunk]) error {
	ctx := stream.Context()
	_ = s.upToDate(ctx) // without a quorum it is of what this node knows
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.readAll() {
		return status.Error(codes.FailedPrecondition, "since its start this node has not learnt yet which entries of its log are committed: try again once there is a leader; if there will be none, stop this daemon and make the backup again, which then reads the log as far as it was known to be committed")
	}
	by := &pb.BackupHeader{Node: s.name, Version: s.version, TimeNs: time.Now().UnixNano()}
	_, err := backup.Write(ctx, chunks(stream.Send), by, s.log.Freeze(), s.blobs)
	var lack *backup.LackError
	if errors.As(err, &lack) {
		return status.Errorf(codes.FailedPrecondition, "%v: this node has not fetched it yet, or its store was damaged. Try again in a moment, or make the backup on another member", lack)
	}
	return err
}

// chunks is a stream of chunks as an io.Writer.
type chunks func(*pb.BackupChunk) error

func (c chunks) Write(b []byte) (int, error) {
	if err := c(&pb.BackupChunk{Data: bytes.Clone(b)}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// BackupStopped writes a backup of a node whose daemon does not run, up to what
// it last knew to be committed. Nothing in the data directory is changed.
// skipped tells how many entries of its log are newer than that.
func BackupStopped(ctx context.Context, cfg config.Config, version string, out io.Writer) (skipped uint64, err error) {
	d := dataDir(cfg.DataDir)
	f, err := d.readNode()
	if err != nil {
		return 0, err
	}
	lock, err := d.lock()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	seen, err := readSeen(d.seen())
	if err != nil {
		return 0, fmt.Errorf("how far this node's log is committed is not known (%w): start its daemon, then make the backup", err)
	}
	r, err := raftstore.Replay(d.raft(), max(seen.Applied, 1), 0, nil)
	if err != nil {
		return 0, err
	}
	if id, _, _ := r.Machine.Cluster(); id != f.Cluster {
		return 0, errors.New("this node has not received the cluster's log, or never knew how much of it is committed: make the backup on another member, or with its daemon running")
	}
	blobs, err := openBlobs(d, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	by := &pb.BackupHeader{Node: f.Name, Version: version, TimeNs: time.Now().UnixNano()}
	_, err = backup.Write(ctx, out, by, r.Machine.Freeze(), blobs)
	return r.End - r.Last, err
}
