package node

import (
	"context"
	"time"

	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/web"
)

// State implements web.Source. Unlike status it costs nothing per file.
func (n *Node) State() web.State {
	ctx, cancel := context.WithTimeout(context.Background(), statusWithin)
	defer cancel()
	blobs := n.blobs.Stats()
	_, ends := n.identity.Validity()
	_, caEnds := n.identity.Issuer()
	s := web.State{
		Version: n.opts.Version, Node: string(n.file.Node), Name: n.file.Name,
		Revision: uint64(n.log.Revision()), Quorum: n.log.Quorum(), CaughtUp: n.caughtUp() && n.trees.complete(),
		Raft: n.raftState(), CertificateExpires: ends, CAExpires: caEnds,
		Format: n.log.Format(), NewestFormat: raftstore.Newest, Proposals: n.counted.totals(),
		Blobs: web.Blobs{Count: blobs.Blobs, Bytes: blobs.Bytes, Disk: blobs.Disk,
			Corrupt: n.blobs.Corrupt(), Mended: n.mender.mended.Load(), Lost: len(n.mender.lost()), Scrubbed: n.scrubber.bytes.Load(), Scrubs: n.scrubber.passes.Load()},
		Carriers: n.webCarriers(),
	}
	data := n.dataStatus()
	s.Data = web.Data{Free: data.Free, Reserve: data.Reserve, Trouble: data.Trouble != ""}
	for _, m := range n.log.Members() {
		s.Members++
		if n.peers.alive(m.ID) {
			s.Alive++
		}
	}
	for _, t := range n.trees.all() {
		s.Trees = append(s.Trees, n.webTree(ctx, t))
	}
	for _, t := range n.targetStatus() {
		s.Targets = append(s.Targets, web.Target{
			Name: t.Name, Revision: t.Revision, Current: t.State == target.KeptCurrent, Held: int(t.Held), Mine: t.PusherID == string(n.file.Node),
		})
	}
	return s
}

func (n *Node) webTree(ctx context.Context, t *tree) web.Tree {
	wt := web.Tree{Name: t.cfg.Name}
	st, err := t.syncr.Status(ctx)
	if err != nil {
		wt.Lost = "does not answer: " + err.Error()
		return wt
	}
	wt.Applied, wt.Lost = uint64(st.Loop.Applied), st.Loop.RootLost
	wt.Failing = len(st.Loop.Failing)
	wt.Edited, wt.Repaired = st.Loop.EditedAll, st.Loop.Repaired
	wt.Held, wt.Busy = heldCount(st.Loop), len(st.Loop.Busy)
	wt.Unsent, wt.Watched, wt.Overflows = st.Loop.Unsent, st.Watched, st.Overflows
	wt.Lag = n.trees.lag.lag(st.Loop.Applied, time.Now())
	if anc, err := t.syncr.Ancestor(ctx); err == nil {
		wt.Entries = anc.Len()
	}
	if conflicts, err := t.syncr.Conflicts(); err == nil {
		wt.Conflicts = len(conflicts)
	}
	return wt
}
