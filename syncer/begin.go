package syncer

import (
	"context"
	"encoding/binary"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/sealed"
)

// begin persists, before anything goes out from a joiner or into its tree, which
// revision it was compared with first: what the log says after that is news to
// its disk, also after a restart. A joiner that has died would else take what it
// has offered or placed itself, and what was deleted elsewhere since, for files
// of before it came. False: ctx has ended.
func (s *Syncer) begin(ctx context.Context, marker string, from *manifest.Revision) bool {
	if from == nil {
		return ctx.Err() == nil
	}
	if done := s.begun.Load(); done != nil && *done == marker {
		return true
	}
	persisted := make(chan error, 1)
	s.persister.add(recordJob{marker: marker, begun: from, done: func(err error) { persisted <- err }})
	select {
	case err := <-persisted:
		if err == nil {
			s.begun.Store(&marker)
		}
		return err == nil
	case <-ctx.Done():
		return false
	}
}

// beginMeta says in values from which revision on a joiner's disk is known. It was
// persisted before, and what Follow has said since is newer, where meta says so.
func beginMeta(meta *sealed.Bucket, values map[string][]byte, from manifest.Revision) error {
	begun, err := meta.Get([]byte(metaBegun))
	if err != nil || begun != nil {
		return err
	}
	joiner, err := meta.Get([]byte(metaJoiner))
	if err != nil || joiner == nil {
		return err
	}
	values[metaBegun] = []byte{1}
	followed, err := meta.Get([]byte(metaFollowed))
	if _, said := values[metaFollowed]; !said && from > revisionOf(followed) {
		values[metaFollowed] = binary.BigEndian.AppendUint64(nil, uint64(from))
	}
	return err
}
