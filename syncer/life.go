package syncer

import "encoding/binary"

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
	if err := s.rec.forgetAll(s.cfg.Aside); err != nil {
		return known, err
	}
	if err := s.rec.setMeta(map[string][]byte{metaGeneration: generation, metaFollowed: nil}); err != nil {
		return known, err
	}
	return s.rec.load(s.cfg.BootID)
}

// joinerMeta is what the records say of a joiner's tree.
func joinerMeta(aside bool) map[string][]byte {
	m := map[string][]byte{metaJoiner: {1}, metaAside: nil, metaFollowed: nil, metaReached: nil}
	if aside {
		m[metaAside] = []byte{1}
	}
	return m
}

// rooted notes that the root was found in order. On the very first time it
// decides what the disk is: with a marker that was made just now it is a new
// tree, as the configuration says; with one that stood there already the
// records are lost, and everything on disk is unknown.
func (s *Syncer) rooted(found *rootFound) error {
	if !s.first.CompareAndSwap(true, false) {
		return nil
	}
	meta := map[string][]byte{metaRooted: {1}}
	if found.fresh && !found.older { // what an older life has left is unknown too
		found.fresh = false
	} else {
		found.fresh = true
		meta[metaJoiner] = []byte{1}
	}
	return s.rec.setMeta(meta)
}
