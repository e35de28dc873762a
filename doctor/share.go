package doctor

import "strings"

// checkShare is about the directory that content travels over. Nothing waits
// for it: whatever is wrong with it, content is pushed instead. So nothing here
// is a problem.
func checkShare(s *sheet, f Facts) {
	if f.Share == nil {
		return
	}
	t, seen := *f.Share, f.Cluster.Share
	const meanwhile = "; content is pushed meanwhile and nobody waits"
	switch {
	case t.Hung != "":
		s.warn(t.Path, "see whether the file server and the network to it are well"+meanwhile, "it does not answer (%s hangs)", t.Hung)
		return
	case t.Err != "":
		s.warn(t.Path, "mount it"+meanwhile, "it cannot be used: %s", t.Err)
		return
	}
	if !t.Mount.Network() {
		s.warn(t.Path, "mount there what the others have too, or take `share` out of gatesync.yaml", "it lies on a filesystem of this machine (%s): nobody else sees it", t.Mount.Type)
	}
	if t.Trial != nil {
		if bad, failed := t.Trial.Failed("make a directory", "create", "write", "flush", "read back", "rename", "remove"); failed {
			s.warn(t.Path, "make it writable for the daemon's user, with room"+meanwhile, "%s: %s", bad.Op, bad.Err)
		}
	}
	switch {
	case seen == nil && f.Cluster.Running:
		s.warn(t.Path, "restart the daemon", "the daemon does not know of it: it was started before the settings named it")
	case seen != nil && !seen.Well:
		s.warn(t.Path, "see `gatesync status`"+meanwhile, "the daemon does not use it: %s", seen.Why)
	case seen != nil && len(seen.Members) == 0 && len(f.Cluster.Members) > 0:
		s.warn(t.Path, "mount the same directory at the others, and name it in their gatesync.yaml (share:)", "no other member sees it")
	case seen != nil:
		s.note(t.Path, "seen by %s too", strings.Join(seen.Members, ", "))
	}
}
