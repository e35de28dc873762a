package transport

import (
	"errors"
	"fmt"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// ErrClosed: the Server was closed.
var ErrClosed = errors.New("the node is shutting down")

// UnreachableError: no connection came about, and nothing is known of who is
// at the address.
type UnreachableError struct {
	Addr string
	Node cluster.NodeID // "" where it is not known who should be there
	Err  error
}

func (e *UnreachableError) Error() string {
	who := e.Addr
	if e.Node != "" {
		who = fmt.Sprintf("%s at %s", e.Node, e.Addr)
	}
	if proxy := (*ProxyError)(nil); errors.As(e.Err, &proxy) {
		return fmt.Sprintf("cannot reach %s: %v", who, e.Err)
	}
	return fmt.Sprintf("cannot reach %s: %v: check that gatesync runs there and that no firewall closes the port", who, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// UnknownAddressError: nobody has said yet where the node is.
type UnknownAddressError struct{ Node cluster.NodeID }

func (e *UnknownAddressError) Error() string {
	return fmt.Sprintf("no address is known for node %s: it announces itself when it runs and reaches any member", e.Node)
}

// NotGatesyncError: something else listens at the address.
type NotGatesyncError struct {
	Addr string
	Err  error
}

func (e *NotGatesyncError) Error() string {
	return fmt.Sprintf("%s is not a gatesync port (%v): check the address; it is the one given to --listen on that node, not its HTTP port", e.Addr, e.Err)
}

// Unwrap returns the cause.
func (e *NotGatesyncError) Unwrap() error { return e.Err }

// WrongClusterError: the two ends do not belong to the same cluster.
type WrongClusterError struct {
	Addr         string // of the other end
	Ours, Theirs string // cluster ids; Theirs is "" where the certificate names none
	Err          error  // why the certificate was not accepted, nil where only the ids differ
}

func (e *WrongClusterError) Error() string {
	switch {
	case e.Theirs == "":
		return fmt.Sprintf("%s does not belong to our cluster %s: its certificate is not signed by our CA (%v): check the address, and with an own PKI that both nodes have the same CA file", e.Addr, e.Ours, e.Err)
	case e.Theirs == e.Ours:
		return fmt.Sprintf("%s says that it belongs to our cluster %s, but its certificate is not signed by our CA (%v): its or this node's CA is not the cluster's any more: `gatesync remove` that node, then "+cluster.JoinAgain, e.Addr, e.Ours, e.Err)
	}
	return fmt.Sprintf("%s belongs to cluster %s, this node to cluster %s: check the address; to move a node to another cluster, join it there with a new data directory", e.Addr, e.Theirs, e.Ours)
}

// Unwrap returns the cause.
func (e *WrongClusterError) Unwrap() error { return e.Err }

// ClockError: a certificate is not valid now, by the clock of whoever looked.
// Either a clock is wrong or the certificate has expired.
type ClockError struct {
	Addr                string
	Whose               string // the certificate's owner, for people
	NotBefore, NotAfter time.Time
	Here, There         time.Time // both clocks; There is zero where the other end did not tell
}

func (e *ClockError) Error() string {
	there := "unknown"
	if !e.There.IsZero() {
		there = e.There.UTC().Format(time.RFC3339)
	}
	s := fmt.Sprintf("%s: the certificate of %s is valid from %s to %s, but the clock here says %s and the clock there says %s: ", e.Addr, e.Whose,
		e.NotBefore.UTC().Format(time.RFC3339), e.NotAfter.UTC().Format(time.RFC3339), e.Here.UTC().Format(time.RFC3339), there)
	if skew := e.There.Sub(e.Here).Abs(); !e.There.IsZero() && skew > time.Minute {
		return s + fmt.Sprintf("the clocks differ by %s: set them right (NTP)", skew.Round(time.Second))
	}
	if e.Here.After(e.NotAfter) {
		return s + "it has expired: a running node renews its own certificate. With an own PKI replace the file; else, if it does not renew itself within a minute, `gatesync remove` that node, then " + cluster.JoinAgain
	}
	return s + "set the clocks right (NTP)"
}

// FingerprintError: the cluster at the address is not the one that made the
// token, or somebody is in between.
type FingerprintError struct {
	Addr string
	Want string   // the token's
	Have []string // of the certificates that were shown
}

func (e *FingerprintError) Error() string {
	have := "none"
	if n := len(e.Have); n > 0 {
		have = e.Have[n-1] // the CA comes last
	}
	return fmt.Sprintf("%s is not of the cluster that made the token: the token wants the CA %.16s…, that node has %.16s…: check the address, or make a token on a node of that cluster (gatesync token); nothing was sent", e.Addr, e.Want, have)
}

// PeerMismatchError: a member of our cluster answered, but another one.
type PeerMismatchError struct {
	Addr       string
	Want, Have cluster.NodeID
}

func (e *PeerMismatchError) Error() string {
	have := string(e.Have)
	if have == "" {
		have = "a node whose certificate names no known member"
	}
	return fmt.Sprintf("wanted node %s at %s, but %s answered: the address is out of date and is relearned when that node announces itself", e.Want, e.Addr, have)
}

// RemovedError: the other end refused us, because this node is no member.
// errors.Is(err, cluster.ErrNotMember) holds.
type RemovedError struct {
	Addr    string
	Cluster string
}

func (e *RemovedError) Error() string {
	return fmt.Sprintf("%s refused this node: it is not (or no longer) a member of cluster %s: to come back, "+cluster.JoinAgain, e.Addr, e.Cluster)
}

// Unwrap returns cluster.ErrNotMember.
func (e *RemovedError) Unwrap() error { return cluster.ErrNotMember }

// BusyError: too many nodes are joining there at once.
type BusyError struct{ Addr string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s has too many joins at once: try again in a minute, or join through another member", e.Addr)
}

// TokenError: a text is no join token.
type TokenError struct {
	Typo bool // it was meant to be one
	Why  string
}

func (e *TokenError) Error() string {
	if e.Typo {
		return "the token " + e.Why + ": there is a typo in it, or a part is missing: copy it again as a whole"
	}
	return "this is not a join token, it " + e.Why + ": `gatesync token` on any member prints one"
}
