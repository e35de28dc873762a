package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/vfs"
)

// Recovery is a stopped node that may become the only voter of its cluster's
// next life, because the majority is lost for good. It holds the lock of the
// data directory until Close.
type Recovery struct {
	Facts RecoveryFacts

	dir  dataDir
	lock *os.File
	file nodeFile
	log  raftstore.Replayed

	ask   func() error // asks the members again whether they are alive
	asked time.Time    // last
}

// OpenRecovery reads the local log and asks the other members whether they are
// alive. It changes nothing.
func OpenRecovery(ctx context.Context, cfg config.Config) (_ *Recovery, err error) {
	d := dataDir(cfg.DataDir)
	if _, err := d.readNode(); err != nil {
		return nil, err
	}
	r := &Recovery{dir: d}
	if r.lock, err = d.lock(); err != nil {
		return nil, err
	}
	if err := r.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close lets go of the data directory.
func (r *Recovery) Close() error { return r.lock.Close() }

func (r *Recovery) open(ctx context.Context, cfg config.Config) (err error) {
	if r.file, err = r.dir.readNode(); err != nil {
		return err
	}
	if r.file.YieldTo > r.file.incarnation() {
		return fmt.Errorf("the cluster was recovered on another node already: start this node's daemon, it rejoins by itself")
	}
	if !raftstore.Exists(r.dir.raft()) {
		return &PartError{DataDir: string(r.dir), Part: "raft"}
	}
	seen, err := readSeen(r.dir.seen())
	if err != nil {
		seen = seenFile{} // a hint that is not there
	}
	r.Facts = RecoveryFacts{
		Members: []RecoveryMember{}, Trees: []RecoveryTree{}, Uncertain: []UncertainRevision{}, Missing: []MissingContent{}, // [] in JSON, not null
		Cluster: r.file.Cluster, Node: string(r.file.Node), Name: r.file.Name, Incarnation: r.file.incarnation().Number(), KnownCommitted: seen.Applied,
	}
	r.log, err = raftstore.Replay(r.dir.raft(), 0, seen.Applied, func(t raftstore.Tailing) { r.Facts.uncertain(t) })
	if err != nil {
		return err
	}
	m := r.log.Machine
	if id, _, _ := m.Cluster(); id != r.file.Cluster {
		return fmt.Errorf("this node's log is empty: it has not received the cluster's yet. Recover on another survivor, or `gatesync restore-cluster` from a backup")
	}
	if !contains(m.Members(), r.file.Node) {
		return fmt.Errorf("this node's own log says that it is no member of the cluster any more: recover on another survivor. To come back, "+cluster.JoinAgain+": %w", cluster.ErrNotMember)
	}
	r.Facts.Revision, r.Facts.LastIndex, r.Facts.LastTerm = uint64(m.Revision()), r.log.End, r.log.LastTerm
	r.ask = func() error {
		r.Facts.Members, r.asked = []RecoveryMember{}, time.Now()
		return r.members(ctx, cfg, seen)
	}
	if err := r.ask(); err != nil {
		return err
	}
	return r.content(cfg)
}

// askAgain is how old the members' answers may be when it is done: a person may
// have thought for long.
const askAgain = 10 * time.Second

// content finds what is committed and not in this node's blob store.
func (r *Recovery) content(cfg config.Config) (err error) {
	blobs, err := openBlobs(r.dir, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	for _, t := range r.log.Machine.Trees() {
		view, _ := r.log.Machine.View(t.Name)
		tree := RecoveryTree{Name: t.Name, RootDigest: view.Manifest.RootDigest().String()}
		view.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
			tree.Entries++
			if n.Entry.HasContent() && !blobs.Has(n.Entry.Digest) {
				r.Facts.Missing = append(r.Facts.Missing, MissingContent{Tree: t.Name, Path: string(p), Digest: n.Entry.Digest.String(), Size: n.Entry.Size})
			}
			return true
		})
		r.Facts.Trees = append(r.Facts.Trees, tree)
	}
	return nil
}

// AliveError: a majority of the voters is there, or would be with this node.
type AliveError struct {
	Names         []string // who answers
	Alive, Voters int      // with this node
}

func (e *AliveError) Error() string {
	return fmt.Sprintf("the majority is not lost: %s answer, with this node that is %d of %d voters. Recovering here would throw away what they commit: start this node's daemon instead. (If those daemons are to be given up all the same, stop them first)",
		strings.Join(e.Names, ", "), e.Alive, e.Voters)
}

// Recovered is what Do has done.
type Recovered struct {
	Cluster     string `json:"cluster"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Revision    uint64 `json:"revision"`
	OldLog      string `json:"old_log"` // where the log of the old life is kept
}

// Do makes this node the only voter of the cluster's next life. All entries of
// its log count as committed. The step that counts is one rename; what comes
// after it the next start completes.
func (r *Recovery) Do() (Recovered, error) {
	if time.Since(r.asked) > askAgain {
		if err := r.ask(); err != nil {
			return Recovered{}, err
		}
	}
	if err := r.Facts.Needless(); err != nil {
		return Recovered{}, err
	}
	next := max(r.file.incarnation(), r.log.Machine.Incarnation()).Next()
	begin := &pb.BeginIncarnation{Incarnation: uint64(next)}
	if err := r.log.Machine.Begin(begin, string(r.file.Node), time.Now().UnixNano()); err != nil {
		return Recovered{}, err
	}
	fresh := r.dir.newRaft()
	if err := os.RemoveAll(fresh); err != nil { // of an interrupted attempt
		return Recovered{}, err
	}
	if err := r.log.Rebegin(fresh, r.file.Node); err != nil {
		return Recovered{}, err
	}
	if err := exchange(fresh, r.dir.raft()); err != nil {
		return Recovered{}, err
	}
	done := Recovered{
		Cluster: r.file.Cluster, Node: string(r.file.Node), Incarnation: next.Number(), Revision: r.Facts.Revision, OldLog: r.dir.oldRaft(next),
	}
	r.file.takeOver(next)
	return done, errors.Join(moveAside(fresh, done.OldLog), r.dir.writeNode(r.file))
}

// exchange swaps two directories in one step.
func exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return vfs.SyncDir(filepath.Dir(b))
}

func (d dataDir) newRaft() string { return d.join("raft.new") }

func (d dataDir) oldRaft(next cluster.Incarnation) string {
	return d.join("raft.before-incarnation-" + next.String())
}
