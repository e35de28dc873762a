package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// Made is what init and join have made.
type Made struct {
	Cluster string         `json:"cluster"`
	Node    cluster.NodeID `json:"node"`
	Address string         `json:"address"` // what other nodes dial
	Guessed bool           `json:"address_guessed"`
	Created []string       `json:"created"` // directories that did not exist
	// Follower: the node takes no part in Raft.
	Follower bool `json:"follower,omitempty"`
}

// Init makes a new cluster with its first node in cfg.DataDir. node.json is
// written last: what an interrupted call left behind is made anew by the next.
func Init(_ context.Context, cfg config.Config) (made Made, err error) {
	d := dataDir(cfg.DataDir)
	lock, err := d.claim(cfg, false)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	places, err := checkApart(cfg)
	if err != nil {
		return made, err
	}
	missing, clusters, err := checkRoots(cfg)
	if err != nil {
		return made, err
	}
	if len(clusters) > 0 {
		return made, fmt.Errorf("a tree's directory belongs to cluster %s already: to add this node to it use `gatesync join`; to begin a new cluster remove the .gatesync directory in it", clusters[0])
	}
	if err := prepareShare(cfg, places); err != nil {
		return made, err
	}
	addr, guessed, err := ownAddress(cfg, "")
	if err != nil {
		return made, err
	}
	made = Made{Cluster: cluster.NewClusterID(), Node: cluster.NewNodeID(), Address: addr, Guessed: guessed, Created: missing}

	caPEM, caKey, err := makeIdentity(cfg, made)
	if err != nil {
		return made, err
	}
	store, err := storeID(cfg)
	if err != nil {
		return made, err
	}
	if err := os.RemoveAll(d.raft()); err != nil { // of an interrupted init
		return made, err
	}
	err = raftstore.Bootstrap(raftstore.Config{Dir: d.raft(), ID: made.Node},
		&pb.InitCluster{ClusterId: made.Cluster, CaCertPem: caPEM, CaKeyPem: caKey},
		cluster.Member{ID: made.Node, Name: cfg.Name, Address: addr, Store: store, Role: cluster.Voter, Joined: time.Now().UnixNano(), Epoch: 1, Format: raftstore.Newest})
	if err != nil {
		return made, fmt.Errorf("begin the cluster's log: %w", err)
	}
	file := nodeFile{Node: made.Node, Name: cfg.Name, Cluster: made.Cluster, Address: addr, Epoch: 1, HasLog: true, Store: store}
	for _, t := range cfg.Trees {
		file.Trees = append(file.Trees, treeFile{Name: t.Name, ID: cluster.NewTreeID(), Generation: 1, Made: true, New: true})
	}
	return made, finish(d, cfg, missing, file)
}

// makeIdentity makes the cluster's CA and this node's certificate, or takes
// what the operator brought; the CA's key is then not ours to have.
func makeIdentity(cfg config.Config, made Made) (caPEM, caKey []byte, err error) {
	if cfg.TLS.Own() {
		id, err := transport.LoadIdentity(identityFiles(cfg))
		if err != nil {
			return nil, nil, fmt.Errorf("certificates of your own PKI: %w", err)
		}
		return id.IssuerPEM(), nil, nil
	}
	if caPEM, caKey, err = transport.NewCA(made.Cluster); err != nil {
		return nil, nil, err
	}
	ca := transport.CA{ClusterID: made.Cluster, Cert: caPEM, Key: caKey, Life: cfg.TLS.Lifetime.Std()}
	cert, key, err := ca.Issue(made.Node, cfg.Name, time.Now())
	if err != nil {
		return nil, nil, err
	}
	return caPEM, caKey, transport.WriteIdentity(identityFiles(cfg), caPEM, cert, key)
}

// storeID makes the blob store and tells its id.
func storeID(cfg config.Config) (string, error) {
	s, err := openBlobs(dataDir(cfg.DataDir), cfg, nil)
	if err != nil {
		return "", err
	}
	return s.ID(), s.Close()
}

func openBlobs(d dataDir, cfg config.Config, log *slog.Logger) (*blob.Store, error) {
	s, err := blob.Open(d.blobs(), blob.Options{Reserve: int64(cfg.FreeReserve), Log: log})
	if err != nil {
		return nil, fmt.Errorf("open the blob store: %w", err)
	}
	return s, nil
}

// finish writes what a person edits and, last, what makes it a node.
func finish(d dataDir, cfg config.Config, missing []string, file nodeFile) error {
	if err := os.MkdirAll(d.join("trees"), 0o700); err != nil {
		return err
	}
	if err := makeRoots(missing); err != nil {
		return err
	}
	if err := writeSettings(cfg); err != nil {
		return err
	}
	return d.writeNode(file)
}

// writeSettings leaves a file alone that says the same already.
func writeSettings(cfg config.Config) error {
	err := cfg.Write()
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	want, err := cfg.Text()
	if err != nil {
		return err
	}
	have, err := os.ReadFile(config.Path(cfg.DataDir))
	if err != nil {
		return err
	}
	if string(have) != string(want) {
		return fmt.Errorf("%s exists already and says otherwise than the flags: move it away, then take over from it what you need", config.Path(cfg.DataDir))
	}
	return nil
}
