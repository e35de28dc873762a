package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/syncer"
)

type memberInfo = cluster.Member

// offer is a changeset on its way: content first, then the log.
type offer struct {
	n        *node
	life     int // of the daemon that waits for it
	batch    uint64
	cs       manifest.Changeset
	cmd      *pb.Command
	content  []manifest.Digest
	voters   map[string]string // id → store, as the proposer knows them
	flushed  bool              // its own store
	sent     bool              // to the log
	over     bool
	deadline time.Time
}

// offer begins one.
func (n *node) offer(e syncer.Propose) {
	n.rules.offer(n, e)
	o := &offer{n: n, life: n.life, batch: e.Batch, voters: map[string]string{}}
	o.cs = manifest.Changeset{
		Tree: treeName, Origin: e.Origin, Time: n.wall(), Changes: e.Changes,
	}
	for _, c := range e.Changes {
		if c.New.HasContent() {
			o.content = append(o.content, c.New.Digest)
		}
	}
	n.begin(e.Begun, func() {
		if len(o.content) == 0 {
			n.later(time.Millisecond, o.submit)
			return
		}
		o.spread()
	})
}

// spread makes the content durable on a majority of the voters.
func (o *offer) spread() {
	n, w := o.n, o.n.w
	texts := make([]string, len(o.content))
	for k, d := range o.content {
		if !n.store.has(d) {
			w.fail("node %d offers content that it does not have", n.index)
		}
		texts[k] = n.store.blobs[d]
	}
	stores := map[string]string{}
	for _, m := range n.machine.Members() {
		stores[string(m.ID)] = m.Store
	}
	for _, id := range n.machine.Voters() {
		o.voters[id] = stores[id]
	}
	n.later(5*time.Millisecond, func() {
		n.store.flush()
		o.flushed = true
		o.receipt(n, n.store.id)
	})
	for _, m := range n.machine.Members() {
		peer := w.node(string(m.ID))
		if peer == n {
			continue
		}
		w.send(n, peer, func() {
			for _, text := range texts {
				peer.store.put(text)
			}
			peer.store.flush()
			id := peer.store.id
			w.send(peer, n, func() { o.receipt(peer, id) })
		})
	}
	limit := 20 * time.Second
	if w.chance(0.1) {
		limit = time.Second
	}
	w.after(limit, n.mortal(func() {
		if !o.sent {
			o.end(manifest.Result{}, errors.New("content cannot reach a majority of the voters"))
		}
	}))
}

// receipt counts one; it may be the same one again.
func (o *offer) receipt(from *node, store string) {
	if o.sent || o.dead() {
		return
	}
	o.cs.Receipts = append(o.cs.Receipts, manifest.Receipt{Node: from.id, Store: store})
	have := map[string]bool{}
	for _, r := range o.cs.Receipts {
		if s, ok := o.voters[r.Node]; ok && s == r.Store {
			have[r.Node] = true
		}
	}
	if o.flushed && len(have) > len(o.voters)/2 {
		o.submit()
	}
}

// submit hands the changeset to the log, under an id that is never used again.
func (o *offer) submit() {
	n, w := o.n, o.n.w
	if o.over {
		return
	}
	if !n.rooted() {
		o.end(manifest.Result{}, errors.New("the root is lost"))
		return
	}
	o.sent = true
	n.seq++
	o.cs.ID = manifest.ChangesetID{Node: n.id, Seq: n.seq}
	o.cmd = command(&pb.Command{TimeNs: n.wall(), Do: &pb.Command_Propose{Propose: proto.FromChangeset(o.cs)}})
	o.deadline = w.now.Add(15 * time.Second)
	if w.chance(0.1) {
		o.deadline = w.now.Add(w.some(time.Second))
	}
	o.attempt()
}

// dead tells whether nobody waits for the offer any more.
func (o *offer) dead() bool { return o.over || o.life != o.n.life }

// attempt sends the command to whoever leads now, and tries again until it is
// answered. What was sent earlier may still arrive, and be committed again.
func (o *offer) attempt() {
	n, w := o.n, o.n.w
	switch {
	case o.over:
		return
	case !w.now.Before(o.deadline):
		o.end(manifest.Result{}, errors.New("not committed in time"))
		return
	}
	if l := w.leader(n); l != nil {
		w.send(n, l, func() {
			if !w.leads(l, w.voters) {
				return
			}
			out := w.append(record{cmd: o.cmd})
			w.send(l, n, func() { o.answered(out) })
		})
	}
	n.later(400*time.Millisecond, o.attempt)
}

func (o *offer) answered(out *pb.Outcome) {
	if o.dead() || o.n.mishap() {
		return
	}
	switch code := raftstore.Code(out.GetCode()); {
	case code == raftstore.Done:
		res := proto.ToResult(out.GetResult())
		o.n.w.oracle.acknowledged(o.n.w, o.cs, res)
		o.end(res, nil)
	case code == raftstore.CodeReceipts, code == raftstore.CodeNotMember && o.n.w.oracle.removed[o.n.id]:
		o.end(manifest.Result{}, raftstore.OutcomeErr(out))
	default:
		o.n.w.fail("node %d: changeset %s is refused: %v", o.n.index, o.cs.ID, raftstore.OutcomeErr(out))
	}
}

func (o *offer) end(res manifest.Result, err error) {
	if o.over {
		return
	}
	o.over = true
	if err != nil {
		err = fmt.Errorf("propose: %w", err)
	}
	o.n.post(syncer.Proposed{Batch: o.batch, Result: res, Err: err})
}
