package syncer

import (
	"fmt"

	"github.com/gatesync/gatesync/manifest"
)

// UnfitError says why a tree cannot take an entry.
type UnfitError struct {
	Tree string
	Path manifest.Path
	Why  string
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("%s cannot stand in tree %s: it %s", e.Path, e.Tree, e.Why)
}

const (
	defaultFileMode = 0o644
	defaultDirMode  = 0o755
)

// Fit makes an entry that did not come from this tree's disk what a look at the
// disk would have made of it: the same policy for modes, symlinks and ignored
// paths. A mode of 0 stands for the usual one. Where the tree cannot take the
// entry, or what is deleted is ignored, the error is an *UnfitError.
func (s *Syncer) Fit(p manifest.Path, e manifest.Entry) (manifest.Entry, error) {
	unfit := func(why string) (manifest.Entry, error) {
		return manifest.Entry{}, &UnfitError{Tree: s.cfg.Tree, Path: p, Why: why}
	}
	if s.cfg.Ignore.Match(p, e.IsDir()) {
		return unfit("is ignored here (see the tree's preset and ignore globs)")
	}
	switch e.Kind {
	case 0:
		return manifest.Entry{}, nil
	case manifest.File:
		e.Mode, e.Target = s.fitMode(e.Mode, defaultFileMode), ""
	case manifest.Dir:
		e = manifest.Entry{Kind: manifest.Dir, Mode: s.fitMode(e.Mode, defaultDirMode), MTime: e.MTime}
	case manifest.Symlink:
		e.Mode, e.Size, e.Digest = 0o777, int64(len(e.Target)), manifest.DigestOf([]byte(e.Target))
		if err := manifest.CheckLink(p, e.Target); err != nil {
			return unfit(err.Error())
		}
	default:
		return unfit("is of an unknown " + e.Kind.String())
	}
	if err := e.Validate(); err != nil {
		return unfit("is malformed: " + err.Error())
	}
	return e, nil
}

func (s *Syncer) fitMode(mode, usual uint32) uint32 {
	if mode == 0 {
		mode = usual
	}
	return mode & s.cfg.ModeMask & 0o777
}
