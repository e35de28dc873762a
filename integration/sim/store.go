package sim

import "github.com/gatesync/gatesync/manifest"

// store models a node's blob store: what was put and not flushed is lost with
// the power.
type store struct {
	id      string
	blobs   map[manifest.Digest]string
	durable map[manifest.Digest]bool
	loose   []manifest.Digest // put, not flushed
}

func newStore(id string) *store {
	return &store{id: id, blobs: map[manifest.Digest]string{}, durable: map[manifest.Digest]bool{}}
}

func (s *store) put(text string) manifest.Digest {
	d := manifest.DigestOf([]byte(text))
	if _, ok := s.blobs[d]; !ok {
		s.blobs[d] = text
		s.loose = append(s.loose, d)
	}
	return d
}

func (s *store) has(d manifest.Digest) bool {
	_, ok := s.blobs[d]
	return ok
}

func (s *store) flush() {
	for _, d := range s.loose {
		s.durable[d] = true
	}
	s.loose = nil
}

func (s *store) powerCut() {
	for _, d := range s.loose {
		delete(s.blobs, d)
	}
	s.loose = nil
}
