package cluster

import "strings"

// Target is a receiver of pushes that is no member, and which the cluster keeps
// current by itself.
type Target struct {
	Name    string
	Address string   // host:port of a `receive --listen`, or ssh://[user@]host[:port]/path
	Trees   []string // none: all that both ends have, by name
	Delete  string   // what becomes of what stands only there: held, yes, no
	Limit   int64    // bytes a second; 0: none
	Token   string   // of a `receive --listen`: a secret
	// Over ssh: what the receiver over there is started with.
	Preset        string
	Ignore        []string
	RemoteBinary  string
	RemoteDataDir string
	RemoteReserve string

	Pusher NodeID // who pushes; "" while nobody was named
	Epoch  uint64 // of the pusher: it grows with each change, over all targets
}

// OverSSH tells whether the target is reached by ssh.
func (t Target) OverSSH() bool { return strings.HasPrefix(t.Address, "ssh://") }
