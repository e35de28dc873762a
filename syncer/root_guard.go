package syncer

import (
	"context"
	"errors"
	"time"

	"github.com/gatesync/gatesync/vfs"
)

// beat finds out that a mount has gone, or hangs, although nobody needs it
// just now; and that another node has made a marker just after this one.
func (k *rootKeeper) beat() {
	g, done, err := k.borrow()
	if err != nil {
		return
	}
	defer done()
	k.mu.Lock()
	young := k.watch > 0
	k.watch = max(k.watch-1, 0)
	k.mu.Unlock()
	if young && k.verify(g) != nil {
		return
	}
	if vfs.GateOf(g.fs) == nil {
		return // the watcher tells, and a scan
	}
	_, err = g.fs.Free()
	if err == nil {
		err = g.fs.Check()
	}
	if err != nil {
		_ = k.verify(g) // tells everybody
	}
}

// guardRoot looks for a lost root until it is back. One goroutine of Run.
func (s *Syncer) guardRoot(ctx context.Context) {
	said := ""
	timer, beat := time.NewTimer(rootRetry), time.NewTicker(rootBeat)
	defer timer.Stop()
	defer beat.Stop()
	for {
		if lost, _ := s.root.state(); lost == "" {
			select {
			case <-ctx.Done():
				return
			case <-s.root.kick:
			case <-beat.C:
				s.root.beat()
			}
			continue
		}
		found, err := s.root.find(ctx, s.first.Load(), s.remake.Load(), s.recoverStaging)
		if err == nil {
			said = ""
			s.remake.Store(false)
			s.log.Info("root is back", "reopened", found.reopened, "new_marker", found.fresh)
			if found.reopened {
				s.inbox.anotherRoot()
			}
			s.watcher.reset(found.gen.fs)
			if found.fresh {
				s.placer.holds(true) // before anybody reads the nonce: nobody may take this node for one that knows what stands there
			}
			s.placer.begin(found.gen)
			if found.fresh {
				s.floor.Store(0) // nothing counts any more that was agreed on
				s.reached.Store(0)
				s.afresh.Store(true)
			}
			s.inbox.post(RootBack{Fresh: found.fresh, Aside: found.older && s.cfg.Aside, made: found.made, find: found.find})
			s.scanner.request("")
			continue
		}
		if why := err.Error(); why != said {
			said = why
			lost, _ := s.root.state()
			s.inbox.post(RootLost{Why: lost})
		}
		timer.Reset(rootRetry)
		select {
		case <-ctx.Done():
			return
		case <-s.root.kick:
		case <-timer.C:
		}
	}
}

// remakeRoot gives a root that has lost its marker a new one, on a person's
// word. Everything on its disk is unknown from then on.
func (s *Syncer) remakeRoot() {
	if _, bare := s.root.state(); !bare {
		return
	}
	s.remake.Store(true)
	select {
	case s.root.kick <- struct{}{}:
	default:
	}
}

// CheckMarker tells why the marker of a root is not the one that a node expects
// there; nil if it is. since is the oldest generation that is the node's own, 0
// for the present one alone.
func CheckMarker(content []byte, cluster, tree string, generation, since uint64) error {
	if since == 0 {
		since = generation
	}
	_, err := inspectMarker(content, marker{Cluster: cluster, Tree: tree, Generation: generation}, since)
	if errors.Is(err, errOurs) {
		return nil
	}
	return err
}
