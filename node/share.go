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
func (n *Node) carriers() (list []CarrierStatus) {
	push := n.push.Stats()
	in, out := pushed(push)
	if n.share != nil {
		s := n.share.Status()
		c := CarrierStatus{
			Name: "share", SentBytes: uint64(s.Laid.Bytes), ReceivedBytes: uint64(s.Taken.Bytes),
			SentWire: uint64(s.Laid.Wire), ReceivedWire: uint64(s.Taken.Wire),
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
		list = append(list, c)
	}
	return append(list, CarrierStatus{
		Name: "push", Well: true,
		SentBytes: uint64(out.Bytes), SentWire: uint64(out.Wire), ReceivedBytes: uint64(in.Bytes), ReceivedWire: uint64(in.Wire),
		Deltas: &DeltaStatus{
			SentBytes: uint64(out.Deltas.Bytes), SentWire: uint64(out.Deltas.Wire),
			ReceivedBytes: uint64(in.Deltas.Bytes), ReceivedWire: uint64(in.Deltas.Wire), Useless: uint64(push.Useless),
		},
	})
}

// pushed sums up what the push has brought here and taken away.
func pushed(s fallback.Stats) (in, out fallback.Traffic) {
	return s.Received.Plus(s.Fetched), s.Sent.Plus(s.Served)
}

// moved is what all carriers have brought here and taken away.
func (n *Node) moved() (in, out fallback.Moved) {
	i, o := pushed(n.push.Stats())
	in, out = i.Moved, o.Moved
	if n.share != nil {
		s := n.share.Status()
		in, out = in.Plus(s.Taken), out.Plus(s.Laid)
	}
	return in, out
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
		w := web.Carrier{Name: c.Name, Well: c.Well, Whole: web.Moved{
			Sent: c.SentBytes, SentWire: c.SentWire, Received: c.ReceivedBytes, ReceivedWire: c.ReceivedWire,
		}}
		if d := c.Deltas; d != nil {
			w.Deltas = web.Moved{Sent: d.SentBytes, SentWire: d.SentWire, Received: d.ReceivedBytes, ReceivedWire: d.ReceivedWire}
			w.Whole.Sent -= d.SentBytes
			w.Whole.SentWire -= d.SentWire
			w.Whole.Received -= d.ReceivedBytes
			w.Whole.ReceivedWire -= d.ReceivedWire
		}
		out = append(out, w)
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
