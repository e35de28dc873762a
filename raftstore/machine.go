package raftstore

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Machine is the state that all nodes share, as of some place in the log. It
// is safe for concurrent use: Apply calls come one after another, reads see
// the state between two of them. Nothing that it hands out changes afterwards.
type Machine struct {
	mu sync.Mutex
	state
	ahead uint32 // not 0: the log was raised to a format that is not known here, and this is where the machine has stopped
}

// state is everything that a snapshot holds.
type state struct {
	format   uint32 // the active one: what the machine does, see format.go
	revision manifest.Revision
	identity *pb.InitCluster // nil before the first command; holds the CA that signs
	also     *pb.Authority   // a CA that is trusted too, see authority.go; mostly nil
	voters   []string        // sorted
	members  map[string]*pb.Member
	removed  map[string]bool // ids of members that were removed
	trees    map[string]*tree
	tokens   map[string]*token
	sessions map[string]*session
	targets  targets
	parts    []*partial
	history  []manifest.Commit // of consecutive revisions, up to revision
	below    manifest.Revision // history holds the revisions from below on
	// incarnation is the cluster's life that this log belongs to.
	incarnation cluster.Incarnation
}

func newState() state {
	return state{
		format:   Format,
		members:  make(map[string]*pb.Member),
		removed:  make(map[string]bool),
		trees:    make(map[string]*tree),
		tokens:   make(map[string]*token),
		sessions: make(map[string]*session),
		below:    1,

		incarnation: cluster.FirstIncarnation,
	}
}

// NewMachine returns the state before the first command.
func NewMachine() *Machine { return &Machine{state: newState()} }

// ApplyEntry applies the bytes of one log entry. What is no command is an
// outcome like any other.
func (m *Machine) ApplyEntry(entry []byte) *pb.Outcome {
	cmd := new(pb.Command)
	if err := proto.Unmarshal(entry, cmd); err != nil {
		return refuse(CodeMalformed, "log entry of %d bytes is no command", len(entry))
	}
	return m.Apply(cmd)
}

// Apply applies one command and returns its outcome. It is deterministic: the
// outcome depends on the commands before it, the voters and cmd alone. cmd and
// the outcome must not be changed afterwards: the machine keeps parts of them.
func (m *Machine) Apply(cmd *pb.Command) *pb.Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ahead > 0 {
		return refuse(CodeFormat, "the log is of format %d, this version knows %d; upgrade this node", m.ahead, Newest)
	}
	if f := cmd.GetFormat(); f == 0 || f > m.format {
		return refuse(CodeFormat, "a command of format %d, the cluster's log is of format %d", f, m.format)
	}
	switch do := cmd.GetDo().(type) {
	case *pb.Command_Propose:
		return m.propose(do.Propose)
	case *pb.Command_PutMember:
		return m.putMember(do.PutMember, cmd.GetTimeNs())
	case *pb.Command_RemoveMember:
		return m.removeMember(do.RemoveMember)
	case *pb.Command_PutToken:
		return m.putToken(do.PutToken, cmd.GetTimeNs())
	case *pb.Command_UseToken:
		return m.useToken(do.UseToken, cmd.GetTimeNs())
	case *pb.Command_PutTree:
		return m.putTree(do.PutTree)
	case *pb.Command_InitCluster:
		return m.initCluster(do.InitCluster)
	case *pb.Command_TrimHistory:
		return m.trimHistory(do.TrimHistory)
	case *pb.Command_SetRole:
		return m.setRole(do.SetRole)
	case *pb.Command_SetFormat:
		return m.setFormat(do.SetFormat)
	case *pb.Command_PutAuthority:
		return m.putAuthority(do.PutAuthority)
	case *pb.Command_UseAuthority:
		return m.useAuthority(do.UseAuthority)
	case *pb.Command_DropAuthority:
		return m.dropAuthority(do.DropAuthority)
	case *pb.Command_BeginIncarnation:
		return m.beginIncarnation(do.BeginIncarnation, cmd.GetTimeNs())
	case *pb.Command_PutSighting:
		return m.putSighting(do.PutSighting)
	case *pb.Command_PutSteward:
		return m.putSteward(do.PutSteward)
	case *pb.Command_PutTarget:
		return m.putTarget(do.PutTarget)
	case *pb.Command_RemoveTarget:
		return m.removeTarget(do.RemoveTarget)
	case *pb.Command_AssignTarget:
		return m.assignTarget(do.AssignTarget)
	case *pb.Command_Noop:
		return done()
	}
	return refuse(CodeMalformed, "command says nothing that this version knows to do")
}

// Revision returns the newest committed revision.
func (m *Machine) Revision() manifest.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

// Cluster returns the cluster's identity; id is empty before InitCluster.
// the CA is the one that signs, caKey is empty where the operator brought an
// own PKI.
func (m *Machine) Cluster() (id string, caCert, caKey []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.identity.GetClusterId(), m.identity.GetCaCertPem(), m.identity.GetCaKeyPem()
}

func (s *state) initCluster(c *pb.InitCluster) *pb.Outcome {
	if !validName(c.GetClusterId()) {
		return refuse(CodeMalformed, "a cluster needs an id")
	}
	if s.identity != nil && !proto.Equal(s.identity, c) {
		return refuse(CodeInitialized, "this log already belongs to cluster %s", s.identity.GetClusterId())
	}
	s.identity = c
	return done()
}
