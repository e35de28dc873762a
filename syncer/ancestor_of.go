package syncer

import "context"

// Ancestor is what the disk last agreed on with the log, path by path: an
// independent copy, in O(1).
func (s *Syncer) Ancestor(ctx context.Context) (*AncestorMap, error) {
	return ask(ctx, s, (*Loop).Ancestor)
}
