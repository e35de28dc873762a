package node

import (
	"errors"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback"
	"github.com/gatesync/gatesync/web"
)

// prepareShare makes sure, before a node is made, that its share can be used.
// Later a share may be gone at any time.
func prepareShare(cfg config.Config, a *apart) error {
	if cfg.Share == "" {
		return nil
	}
	return fallback.PrepareShare(cfg.Share, func(real string) error { return a.share(cfg.Share, real) })
}

// chain makes the carrier of this node: the push, behind the share where there
// is one.
func (n *Node) chain() fallback.Carrier {
	if n.cfg.Share == "" {
		return n.push
	}
	n.share = fallback.NewShare(fallback.ShareConfig{
		Path: n.cfg.Share, Cluster: n.file.Cluster, Self: n.file.Node, Told: n.shareNonces, Log: n.slog,
		Apart: func(real string) error { return n.apart.share(n.cfg.Share, real) },
	})
	return fallback.NewChain(n.share, n.push)
}

// shareNonces are what the living members say to have written on their shares.
func (n *Node) shareNonces() map[cluster.NodeID]string {
	out := map[cluster.NodeID]string{}
	for _, m := range n.others() {
		if h, alive := n.peers.last(m.ID); alive {
			out[m.ID] = h.state.GetShareNonce()
		}
	}
	return out
}

// shareNonce is what this node says.
func (n *Node) shareNonce() string {
	if n.share == nil {
		return ""
	}
	return n.share.Nonce()
}

// carriers tells of the ways that content takes, the preferred one first.
func (n *Node) carriers() (out []CarrierStatus) {
	push := n.push.Stats()
	if n.share != nil {
		s := n.share.Status()
		c := CarrierStatus{
			Name: "share", SentBytes: uint64(s.Laid.Bytes), ReceivedBytes: uint64(s.Taken.Bytes),
			Path: s.Path, Well: s.Why == "", Why: s.Why, Since: &s.Since, HeldBytes: s.Held, Members: []string{},
		}
		for _, id := range s.Peers {
			c.Members = append(c.Members, n.nameOf(id))
		}
		for id, why := range s.Doubts {
			if c.Doubts == nil {
				c.Doubts = map[string]string{}
			}
			c.Doubts[n.nameOf(id)] = why
		}
		out = append(out, c)
	}
	return append(out, CarrierStatus{
		Name: "push", Well: true,
		SentBytes: uint64(push.Sent.Bytes + push.Served.Bytes), ReceivedBytes: uint64(push.Received.Bytes + push.Fetched.Bytes),
	})
}

func (n *Node) nameOf(id cluster.NodeID) string {
	for _, m := range n.knownMembers() {
		if m.ID == id && m.Name != "" {
			return m.Name
		}
	}
	return string(id)
}

// webCarriers are the same for /metrics.
func (n *Node) webCarriers() (out []web.Carrier) {
	for _, c := range n.carriers() {
		out = append(out, web.Carrier{Name: c.Name, Sent: c.SentBytes, Received: c.ReceivedBytes, Well: c.Well})
	}
	return out
}

// closeCarrier ends the transfers, and lets go of the share.
func (n *Node) closeCarrier() error {
	err := n.push.Close()
	if n.share != nil {
		err = errors.Join(err, n.share.Close())
	}
	return err
}
