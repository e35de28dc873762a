package node

import (
	"context"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// Each part of a node takes from the log only what it needs; *raftstore.Store
// is all of these.

// membership is who is in the cluster, and who leads.
type membership interface {
	Members() []cluster.Member
	Leader() (cluster.NodeID, bool)
}

// proposer commits a command, through whoever leads.
type proposer interface {
	Do(ctx context.Context, cmd *pb.Command) (*pb.Outcome, error)
}

// authority is the cluster's own CA, the one that signs; the key is empty with
// an own PKI.
type authority interface {
	Cluster() (id string, caCert, caKey []byte)
	Authorities() raftstore.Authorities
}

// forest is the trees that the cluster knows.
type forest interface {
	Trees() []raftstore.TreeInfo
}

// watcher tells that the log has moved on.
type watcher interface {
	Watch() (ch <-chan struct{}, stop func())
}

// revisions is how far the log has come.
type revisions interface {
	Revision() manifest.Revision
	CaughtUp() bool
	Quorum() bool
}
