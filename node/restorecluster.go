package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gatesync/gatesync/backup"
	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// RestoreCluster makes a cluster again out of a backup, with this node as its
// only member: the trees, the history and the identity of the backup, in its
// next incarnation. Members of the old life are removed and tokens are void.
// cfg.DataDir must be empty. What stands in the trees' directories is a
// joiner's.
func RestoreCluster(cfg config.Config, in io.Reader) (made Made, sum backup.Summary, err error) {
	d := dataDir(cfg.DataDir)
	if _, err := ignores(cfg); err != nil {
		return made, sum, err
	}
	if err := d.empty(); err != nil {
		return made, sum, err
	}
	lock, err := d.prepare()
	if err != nil {
		return made, sum, err
	}
	if err := d.empty(); err != nil { // another one has just filled it
		return made, sum, errors.Join(err, lock.Close())
	}
	defer func() {
		if err != nil { // it was empty: so it is again
			err = errors.Join(err, d.clear())
		}
		err = errors.Join(err, lock.Close())
	}()
	if _, err := checkApart(cfg); err != nil {
		return made, sum, err
	}
	missing, clusters, err := checkRoots(cfg)
	if err != nil {
		return made, sum, err
	}
	addr, guessed, err := ownAddress(cfg, "")
	if err != nil {
		return made, sum, err
	}
	blobs, err := openBlobs(d, cfg, nil)
	if err != nil {
		return made, sum, err
	}
	state, sum, err := fill(blobs, in)
	store := blobs.ID()
	if err = errors.Join(err, blobs.Close()); err != nil {
		return made, sum, err
	}
	if err := fitsBackup(cfg, state.Machine, sum, clusters); err != nil {
		return made, sum, err
	}
	made = Made{Cluster: sum.Cluster, Node: cluster.NewNodeID(), Address: addr, Guessed: guessed, Created: missing}
	if err := foundIdentity(cfg, made, state.Machine); err != nil {
		return made, sum, err
	}
	next := state.Machine.Incarnation().Next()
	now := time.Now().UnixNano()
	founder := cluster.Member{ID: made.Node, Name: cfg.Name, Address: addr, Store: store, Joined: now, Epoch: 1, Format: raftstore.Newest}
	begin := &pb.BeginIncarnation{Incarnation: uint64(next), Founder: raftstore.FromMember(founder)}
	if err := state.Machine.Begin(begin, string(made.Node), now); err != nil {
		return made, sum, err
	}
	if err := state.Rebegin(d.raft(), made.Node); err != nil {
		return made, sum, err
	}
	file := nodeFile{
		Node: made.Node, Name: cfg.Name, Cluster: made.Cluster, Address: addr, Epoch: 1, Joiner: true,
		Incarnation: next, HasLog: true, Store: store,
	}
	for _, t := range state.Machine.Trees() {
		file.Trees = append(file.Trees, treeFile{Name: t.Name, ID: t.ID, Generation: t.Generation})
	}
	return made, sum, finish(d, cfg, missing, file)
}

// fill puts a backup's content into the store, durably.
func fill(blobs *blob.Store, in io.Reader) (raftstore.Replayed, backup.Summary, error) {
	state, sum, err := backup.Read(in, func(ref manifest.BlobRef, r io.Reader) error { return blobs.PutKnown(ref, r) })
	if err != nil {
		return state, sum, err
	}
	return state, sum, blobs.Flush()
}

// fitsBackup compares the settings with what the backup holds.
func fitsBackup(cfg config.Config, m *raftstore.Machine, sum backup.Summary, clusters []string) error {
	for _, c := range clusters {
		if c != sum.Cluster {
			return fmt.Errorf("a tree's directory belongs to cluster %s, the backup is of cluster %s: choose another directory", c, sum.Cluster)
		}
	}
	var have, want []string
	for _, t := range m.Trees() {
		want = append(want, t.Name)
	}
	for _, t := range cfg.Trees {
		have = append(have, t.Name)
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		return fmt.Errorf("the backup holds the trees %s, and %s were named: name each with --tree NAME=PATH", strings.Join(want, ", "), strings.Join(have, ", "))
	}
	return nil
}

// foundIdentity signs this node's certificate with the CA of the backup.
func foundIdentity(cfg config.Config, made Made, m *raftstore.Machine) error {
	_, caPEM, caKey := m.Cluster()
	if cfg.TLS.Own() {
		if _, err := transport.LoadIdentity(identityFiles(cfg)); err != nil {
			return fmt.Errorf("certificates of your own PKI: %w", err)
		}
		return nil
	}
	if len(caKey) == 0 {
		return errors.New("this cluster uses certificates of its own PKI: bring this node's with --tls-ca, --tls-cert and --tls-key")
	}
	ca := transport.CA{ClusterID: made.Cluster, Cert: caPEM, Key: caKey, Life: cfg.TLS.Lifetime.Std()}
	cert, key, err := ca.Issue(made.Node, cfg.Name, time.Now())
	if err != nil {
		return err
	}
	return transport.WriteIdentity(identityFiles(cfg), caPEM, cert, key)
}

// empty refuses a data directory that holds anything.
func (d dataDir) empty() error {
	if err := d.vacant(); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(d))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		if d.join(e.Name()) != d.lockFile() {
			return fmt.Errorf("%s is not empty (it holds %s): choose another --data-dir, or empty this one", string(d), e.Name())
		}
	}
	return nil
}

// clear empties the directory but for the lock.
func (d dataDir) clear() error {
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		if d.join(e.Name()) != d.lockFile() {
			err = errors.Join(err, os.RemoveAll(d.join(e.Name())))
		}
	}
	return err
}
