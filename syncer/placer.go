package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// Mounts is what the cluster knows of one tree's directories, as the syncer
// uses it.
type Mounts interface {
	Shares() cluster.Shares
	// Member tells whether a node is a member of the cluster, and its name.
	Member(cluster.NodeID) (name string, ok bool)
	// Removed tells whether a node was a member and was removed: it never comes back.
	Removed(cluster.NodeID) bool
	// Say tells the log what this node sees beside its tree.
	Say(ctx context.Context, g cluster.Sighting) error
	// Former tells whether a path held some content in an earlier revision, as far
	// as history reaches back.
	Former(p manifest.Path, e manifest.Entry) bool
	// Stands tells whether content is committed anywhere, or was, as far as history
	// reaches back: it is kept, wherever it lies besides.
	Stands(ref manifest.BlobRef) bool
	// Heard is when this node last knew that it has a leader: what the log had
	// said by a little before that is known here.
	Heard() time.Time
}

const (
	noncePrefix = "nonce-"
	// sayWithin bounds an attempt to tell the log; sayRetry is the pause after one
	// that has failed.
	sayWithin = 5 * time.Second
	sayRetry  = 500 * time.Millisecond
	// missTries looks, missPause apart, have to find no nonce before it is said
	// to be missing.
	missTries = 4
	missPause = 700 * time.Millisecond
)

// miss is how often a nonce was looked for in vain.
type miss struct {
	nonce string
	looks int
}

// placer finds out whether other nodes have the same directory: each puts a
// fresh nonce beside the tree, and says through the log whose it reads there.
// begin is called by whoever opens the root, run is one goroutine of Run.
type placer struct {
	s    *Syncer
	kick chan struct{}

	leaving sync.Mutex // one at a time leaves a nonce; before mu

	mu      sync.Mutex
	shore   shore
	gen     *rootGen // that the nonce is for
	written *rootGen // that the nonce stands in
	place   Place
	taken   uint64 // epoch that this node has taken up as a steward
	// refuses: the directory is several nodes', and this one is to take no edits there.
	refuses bool
	broken  string // why the nonce could not be put there, or the others' not be read
	unsaid  string // why the log could not be told the last time
	misses  map[cluster.NodeID]miss
	joiner  bool
	heard   bool     // the log was read up to where it stood
	stagers *rootGen // whose staging directories were listed for those of removed nodes
}

func newPlacer(s *Syncer) *placer {
	p := &placer{s: s, kick: make(chan struct{}, 1), misses: map[cluster.NodeID]miss{}}
	if s.cfg.Mounts == nil {
		return p
	}
	p.place.Unknown, p.place.Why = true, "the root was not opened yet"
	p.shore = shore{
		self: cluster.NodeID(s.cfg.Self), storage: s.cfg.Storage, mount: cluster.NewMountID(),
		member: func(id cluster.NodeID) bool { _, ok := s.cfg.Mounts.Member(id); return ok },
		name: func(id cluster.NodeID) string {
			name, _ := s.cfg.Mounts.Member(id)
			return name
		},
	}
	if p.shore.storage == "" {
		p.shore.storage = StorageAuto
	}
	return p
}

// begin puts a nonce into a root that was opened, and tells the loop where the
// tree lies, as far as that is known at once: a directory in which nobody else
// has left anything is this node's own.
func (p *placer) begin(g *rootGen) {
	if p.s.cfg.Mounts == nil {
		return
	}
	p.mu.Lock()
	known := p.gen == g
	p.gen = g
	p.mu.Unlock()
	if known {
		if p.stands(g) {
			return
		}
		p.gone(g)
	}
	p.leave(g, false)
	token(p.kick)
}

// gone notes that this node's nonce does not stand in a root any more.
func (p *placer) gone(g *rootGen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.written == g {
		p.written = nil
	}
}

// leave puts a fresh nonce into a root, unless this node's stands there, and
// reads whose stand there. again: it failed before. What the log was told goes
// on then until the nonce stands there: others may have missed it.
func (p *placer) leave(g *rootGen, again bool) {
	p.leaving.Lock()
	defer p.leaving.Unlock()
	p.mu.Lock()
	stands := p.written == g
	p.mu.Unlock()
	nonce, err := cluster.NewNonce(), error(nil)
	if !stands {
		err = g.fs.WriteNote(noncePrefix+p.s.cfg.Self, []byte(nonce))
	}
	found, rerr := p.read(g.fs)
	p.mu.Lock()
	if p.gen != g { // opened anew meanwhile
		p.mu.Unlock()
		return
	}
	if !stands && (!again || err == nil || p.shore.nonce == "") {
		p.shore.nonce, p.shore.missed = nonce, map[cluster.NodeID]string{}
		p.shore.checked = map[cluster.NodeID]string{}
		p.taken = 0
		clear(p.misses)
	}
	if err == nil {
		p.written = g
	}
	if rerr == nil || !again {
		p.shore.found = found
	}
	if err != nil && rerr == nil && len(found) == 0 { // read-only, or full: a directory of one's own has troubles enough
		p.shore.nonce = ""
	}
	p.broken = ""
	if err = errors.Join(err, rerr); err != nil {
		p.broken = err.Error()
	}
	p.mu.Unlock()
	p.settle()
}

// mend tries again what failed when the root was opened: until then this node
// does not know with whom it shares the directory, nor do they.
func (p *placer) mend() (broken bool) {
	g, broken := p.ill()
	if !broken || p.s.root.verify(g) != nil {
		return broken
	}
	p.leave(g, true)
	_, broken = p.ill()
	return broken
}

func (p *placer) ill() (g *rootGen, broken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gen, p.broken != ""
}

// stands tells whether this node's nonce still stands beside the tree: whoever
// empties the directory takes it along.
func (p *placer) stands(g *rootGen) bool {
	b, err := g.fs.ReadNote(noncePrefix + p.s.cfg.Self)
	p.mu.Lock()
	defer p.mu.Unlock()
	return err == nil && p.shore.nonce != "" && string(b) == p.shore.nonce
}

// missed sees to it, before it counts that another node does not find this one's
// nonce, that it stands there at all. It tells whether that is still to be done.
func (p *placer) missed() (again bool) {
	log := p.s.cfg.Mounts.Shares()
	p.mu.Lock()
	g, mine := p.gen, cluster.Seen{Node: p.shore.self, Nonce: p.shore.nonce}
	news := map[cluster.NodeID]string{}
	for _, theirs := range log.Sightings {
		if theirs.MissesNonce(mine) && p.shore.checked[theirs.Node] != theirs.Nonce {
			news[theirs.Node] = theirs.Nonce
		}
	}
	p.mu.Unlock()
	if len(news) == 0 {
		return false
	}
	if !p.stands(g) {
		if _, err := g.fs.ReadNote(noncePrefix + p.s.cfg.Self); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true
		}
		p.gone(g)
		p.leave(g, false)
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gen == g && p.shore.nonce == mine.Nonce {
		maps.Copy(p.shore.checked, news)
	}
	return false
}

// read reads the nonces that stand beside the tree.
func (p *placer) read(root vfs.Shared) (map[cluster.NodeID]string, error) {
	out := map[cluster.NodeID]string{}
	names, err := root.ListNotes(noncePrefix)
	if err != nil {
		return out, fmt.Errorf("list the nonces beside the tree: %w", err)
	}
	for _, name := range names {
		id := cluster.NodeID(strings.TrimPrefix(name, noncePrefix))
		if string(id) == p.s.cfg.Self {
			continue
		}
		b, err := root.ReadNote(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return out, err
		}
		if n := strings.TrimSpace(string(b)); n != "" {
			out[id] = n
		}
	}
	return out, nil
}

// settle decides where the tree lies, tells the loop, and returns what is to be
// done next.
func (p *placer) settle() next {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shore.log = p.s.cfg.Mounts.Shares()
	p.shore.joiner = p.joiner
	p.heard = p.heard || p.s.cfg.Log.CaughtUp()
	p.shore.behind = !p.heard
	n := p.shore.decide()
	was := p.refuses
	p.refuses = false
	switch {
	case p.shore.nonce == "" && p.broken != "":
		n = next{}
	case n.place.Mount != "" && p.s.cfg.Loop.Edits != manifest.EditsOffered:
		n.place = unknown("write: never cannot be kept in a directory that other nodes have too, for they propose what is edited in it: set write: any, or give this node a directory of its own; until then it leaves the tree alone")
		p.refuses = true
	case p.broken != "":
		n.place = unknown("this node cannot leave its nonce beside the tree: %s", p.broken)
	case n.place.Unknown && n.say != nil && p.unsaid != "":
		n.place.Why += "; what this node sees there cannot be said now: " + p.unsaid
	}
	if p.refuses && !was {
		p.s.log.Error("the tree is left alone", "why", n.place.Why)
	}
	p.place = n.place
	acting := n.place.Steward == p.shore.self && p.taken == n.place.Epoch && n.place.Mount != ""
	p.s.inbox.place(Placed{
		Unknown: n.place.Unknown, Mount: n.place.Mount, Acting: acting, Epoch: n.place.Epoch, Known: n.place.Known,
	})
	return n
}

// current is where the tree lies.
func (p *placer) current() (at Place, taken uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.place, p.taken
}

// holds notes whether something is held here that the cluster does not know.
func (p *placer) holds(unknown bool) {
	if p.s.cfg.Mounts == nil {
		return
	}
	p.mu.Lock()
	changed := p.joiner != unknown
	p.joiner = unknown
	p.mu.Unlock()
	if changed {
		token(p.kick)
	}
}

// run follows the log until ctx ends.
func (p *placer) run(ctx context.Context) {
	if p.s.cfg.Mounts == nil {
		return
	}
	ch, stop := p.s.cfg.Log.Watch()
	defer stop()
	for {
		var again <-chan time.Time
		if p.opened() {
			if d := p.step(ctx); d > 0 {
				again = time.After(d)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ch:
		case <-p.kick:
		case <-again:
		}
	}
}

func (p *placer) opened() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gen != nil
}

// step does what is due, and tells after which pause it wants to be called
// again whatever happens; 0: not.
func (p *placer) step(ctx context.Context) time.Duration {
	pause := time.Duration(0)
	if p.mend() {
		pause = beatEvery
	}
	again := p.missed()
	n := p.settle()
	if n.wait || again { // that it is read is no news of the log
		pause = missPause
	}
	if n.look {
		if err := p.lookFor(); err != nil {
			p.s.log.Debug("cannot look for other nodes' nonces", "err", err)
		}
		n, pause = p.settle(), missPause
	}
	if n.say != nil {
		ctx, cancel := context.WithTimeout(ctx, sayWithin)
		err := p.s.cfg.Mounts.Say(ctx, *n.say)
		cancel()
		p.mu.Lock()
		if p.unsaid = ""; err != nil {
			p.unsaid = err.Error()
		}
		p.mu.Unlock()
		p.settle()
		if err != nil {
			p.s.log.Debug("cannot say yet what is seen beside the tree", "err", err)
			return sayRetry
		}
	}
	if p.inherit(ctx) && pause == 0 {
		pause = beatEvery
	}
	if !p.stewarding() {
		if p.s.beat.failed.Load() { // it may be well again, and this node a steward
			if p.s.probe() != nil && (pause == 0 || pause > beatEvery) {
				pause = beatEvery
			}
		}
		return pause
	}
	if pause == 0 || pause > beatEvery {
		pause = beatEvery
	}
	if p.takeUp() {
		pause = beatFor
	}
	return pause
}

// lookFor looks for the nonces of those who say to see this node's. Its own is
// written once more: that voids what NFS believes of the directory.
//
// Not while begin leaves a fresh one: an old one written over it would have the
// others miss the one that the log was told, for good.
func (p *placer) lookFor() error {
	p.leaving.Lock()
	defer p.leaving.Unlock()
	p.mu.Lock()
	g, nonce, stands := p.gen, p.shore.nonce, p.written == p.gen
	p.mu.Unlock()
	if !stands {
		return errors.New("this node's own nonce does not stand there yet")
	}
	if err := p.s.root.verify(g); err != nil {
		return err
	}
	if err := g.fs.WriteNote(noncePrefix+p.s.cfg.Self, []byte(nonce)); err != nil {
		return err
	}
	found, err := p.read(g.fs)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gen != g {
		return nil
	}
	p.shore.found = found
	missed := maps.Clone(p.shore.missed)
	for _, theirs := range p.shore.log.Sightings {
		id := theirs.Node
		if id == p.shore.self || !claims(theirs, p.shore.self) || found[id] == theirs.Nonce {
			delete(missed, id)
			delete(p.misses, id)
			continue
		}
		m := p.misses[id]
		if m.nonce != theirs.Nonce { // it looks somewhere else now
			m = miss{nonce: theirs.Nonce}
		}
		m.looks++
		if p.misses[id] = m; m.looks >= missTries {
			missed[id] = theirs.Nonce
		}
	}
	p.shore.missed = missed
	return nil
}
