// Package node is one gatesync node: the wiring of all other packages and
// their lifetimes, and nothing else.
//
// Init makes a cluster's first node in a data directory, Join makes a further
// one with a token. Open takes the lock of a data directory and builds the
// node; Run runs it until its context ends and stops it in the reverse order;
// Resync runs it only until its trees are current.
//
// A cluster whose majority is lost goes on by OpenRecovery (recover.go), one
// that is lost as a whole by RestoreCluster. Serve is Open and Run for a daemon
// that may have to rejoin: incarnation.go says when.
//
// What a node says to others stands in clusterservice.go (members; an
// operator's calls about the membership in membercalls.go) and
// joinserver.go (joiners), what it says to the command line on the same
// machine in localservice.go; package local is the way there. The
// background work is one file per duty: hello.go (who is alive and where),
// leader.go (Raft membership: who votes), keeper.go (the content that every
// member holds), upgrade.go (the format of the log), renew.go (this node's
// certificate), authority.go (a new CA), gc.go (history and content that nobody
// needs any more), mend.go and scrub.go (damaged content), stewards.go and
// sees.go (directories that several nodes have), feeding.go and following.go
// (followers, at both ends).
//
// Package cmd is the only caller.
package node
