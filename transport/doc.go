// Package transport is one TCP port that speaks TLS 1.3, and everything between
// nodes goes through it: gRPC between members, Raft's streams, and the one
// service that a node speaks before it is a member (Join).
//
// What it promises:
//
//   - Members are spoken to by id, never by address: a connection to node N
//     ends at whoever holds N's certificate, or fails with PeerMismatchError.
//   - A caller of Server.GRPC and a peer of Server.Raft has shown a certificate
//     of this cluster that is valid now, and is not a removed member. A removed
//     member's connections stop working at its next call.
//   - Whatever connects without speaking our protocol is closed within
//     Config.HandshakeTimeout and delays nobody; handshakes are bounded.
//   - Certificates and CAs are read anew by Identity.Reload; the next handshake
//     uses them and no connection is cut. Server.Prune cuts those that would
//     not come about any more.
//   - Nodes that do not understand each other's log stay apart: the greeting
//     tells (formats.go).
//   - What goes wrong is an error type that carries the facts and says what to
//     do: see errors.go. ToStatus and FromStatus carry the errors of package
//     cluster over gRPC; servers and connections of this package do so by
//     themselves.
//
// # The protocol
//
// ALPN says what a connection is for: gatesync-grpc/1, gatesync-raft/1 or
// gatesync-join/1. The TLS handshake proves who holds which key. Then the
// server sends a greeting (greeting.go): its verdict about the caller, its
// clock, its cluster and its id; so that the caller learns "you were removed"
// or "my clock says otherwise" instead of a bare TLS alert. Verifying a
// certificate is done in one place for both directions (verify.go): chain,
// dates, cluster, id, membership.
//
// A node's certificate names it in a URI: gatesync://CLUSTER/node/ID. An own
// PKI need not put such URIs into certificates: then the common name is the
// node's name, which Config.Lookup turns into an id.
//
// Both ends also say which run of which incarnation of the cluster they are
// (instance.go): nodes of different incarnations are kept apart, and of two
// runs of one node one is refused (instances.go).
//
// # Who calls it
//
// Package node listens, registers its services and wires Raft; the commands
// join (DialJoin) and recover (DialAs) dial without listening. Open and close:
// Listen, Run(ctx), Close. Everything exported is safe for concurrent use.
package transport
