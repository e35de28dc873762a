package syncer

import (
	"encoding/binary"

	"github.com/gatesync/gatesync/sealed"
)

// ofThisLife voids the records of an older life of the cluster: its revisions
// may be numbered like ours, and are others.
func (s *Syncer) ofThisLife(known loaded) (loaded, error) {
	generation := binary.BigEndian.AppendUint64(nil, s.cfg.Generation)
	if known.generation == 0 || known.generation >= s.cfg.Since {
		if known.generation == s.cfg.Generation {
			return known, nil
		}
		return known, s.rec.setMeta(map[string][]byte{metaGeneration: generation})
	}
	s.log.Info("the cluster has begun a new life: what stands here is compared with it anew", "aside", s.cfg.Aside)
	err := s.rec.db.Update(func(tx *sealed.Tx) error {
		if err := forgetAll(tx, s.cfg.Aside); err != nil {
			return err
		}
		return putAll(tx.Bucket(bucketMeta), map[string][]byte{metaGeneration: generation})
	})
	if err != nil {
		return known, err
	}
	return s.rec.load(s.cfg.BootID)
}

// joinerMeta is what the records say of a joiner's tree.
func joinerMeta(aside bool) map[string][]byte {
	m := map[string][]byte{metaJoiner: {1}, metaAside: nil, metaFollowed: nil, metaBegun: nil, metaReached: nil}
	if aside {
		m[metaAside] = []byte{1}
	}
	return m
}

// rooted persists, in one step, which marker the records belong to and what
// that makes of the disk: where they belonged to another one, all of it is
// unknown from now on. On the very first time a marker of our own making is a
// new tree's, as the configuration says; with any other the records are lost.
func (s *Syncer) rooted(found *rootFound) error {
	meta := map[string][]byte{metaRooted: {1}}
	if found.made != "" {
		meta[metaMarker] = []byte(found.made)
	}
	aside := found.older && s.cfg.Aside
	first := s.first.Load()
	if found.fresh && first {
		meta[metaJoiner] = []byte{1}
		if aside {
			meta[metaAside] = []byte{1}
		}
	}
	err := s.rec.db.Update(func(tx *sealed.Tx) error {
		if found.fresh && !first {
			if err := forgetAll(tx, aside); err != nil {
				return err
			}
		}
		return putAll(tx.Bucket(bucketMeta), meta)
	})
	if err == nil {
		s.first.Store(false)
	}
	return err
}
