package doctor

import (
	"fmt"
	"strings"
)

func checkTrees(s *sheet, f Facts) {
	for _, t := range f.Trees {
		checkTree(s, f, t)
	}
}

func checkTree(s *sheet, f Facts, t Tree) {
	if t.Hung != "" {
		s.problem(t.Name, "see whether the file server and the network to it are well; meanwhile `gatesync materialize --tree "+t.Name+" --to DIR` gives the gateway a local copy",
			"%s does not answer (%s hangs)", t.Path, t.Hung)
		return
	}
	if t.Err != "" {
		s.problem(t.Name, "mount it, or make it, with this node's gateway; `gatesync restore` fills it anew", "%s cannot be used: %s", t.Path, t.Err)
		return
	}
	for _, other := range t.Within {
		s.problem(t.Name, "give each a directory of its own", "%s and %s lie in one another", t.Real, other)
	}
	for _, m := range t.Inner {
		s.warn(t.Name, "unmount it, or make it a tree of its own, or `ignore` it",
			"%s (%s) is mounted inside: its files are replicated as the tree's own, and when it is unmounted they look deleted", m.Point, m.Type)
	}
	if t.Mode&0o002 != 0 {
		s.warn(t.Name, "chmod o-w "+t.Path, "every user of this machine may write there (mode %s), and what he writes goes to all gateways", t.Mode)
	}
	treeMarker(s, f, t)
	if !t.Beside {
		s.note(t.Name, "changes are staged inside the root (.gatesync/staging), for nothing can be made beside it: a gateway must not deploy names that begin with a dot")
	}
}

func treeMarker(s *sheet, f Facts, t Tree) {
	switch {
	case !t.Marker.There && f.Cluster.Running:
		s.problem(t.Name, "mount what belongs there; or `gatesync restore --tree "+t.Name+"` to fill it anew, or `gatesync approve` to take it as it is",
			"its root has no marker (.gatesync/marker.json): it was emptied, or nothing is mounted there")
	case !t.Marker.There:
		s.note(t.Name, "its root has no marker yet: the daemon has not run with it, or something else stands there now")
	case !t.Marker.Ours:
		s.problem(t.Name, "mount the right directory; or `gatesync restore --tree "+t.Name+"` if this one is to be filled by this cluster", "its root is another one's: %s", t.Marker.Why)
	}
}

func checkTrials(s *sheet, f Facts) {
	for _, t := range f.Trees {
		if t.Trial != nil {
			checkTrial(s, f, t, *t.Trial)
		}
	}
}

func checkTrial(s *sheet, f Facts, t Tree, x Trial) {
	squash := squashed(f, t, x)
	if squash != "" {
		s.problem(t.Name, unsquash, "%s", squash)
	}
	if bad, failed := x.Failed("make a directory", "create", "write", "flush", "read back"); failed {
		remedy := "make " + t.Path + " writable for the daemon's user (chown, chmod, mount options)"
		switch {
		case strings.Contains(bad.Err, "space") || strings.Contains(bad.Err, "quota"):
			remedy = "make room there"
		case f.User.UID == 0 && t.Mount.NFS() && strings.Contains(bad.Err, "permi"): // root may do everything, but for this
			remedy = unsquash
			bad.Err += " (root is nobody there: root_squash)"
		}
		s.problem(t.Name, remedy, "%s: %s", bad.Op, bad.Err)
		return
	}
	if bad, failed := x.Failed("rename", "link", "symlink", "remove", "change mode"); failed {
		s.problem(t.Name, "gatesync needs it: use another filesystem or mount options", "%s: %s", bad.Op, bad.Err)
	}
	if bad, failed := x.Failed("change owner"); failed && squash == "" {
		s.warn(t.Name, "files then belong to the daemon's user; run the gateway as the same user", "owners cannot be set there: %s", bad.Err)
	}
	if !x.Exchange {
		s.note(t.Name, "names cannot be exchanged there (renameat2): what a gateway writes to a path in the very instant of its replacement is lost; elsewhere it is kept aside")
	}
	if !x.Leases {
		s.note(t.Name, "no read leases there: a file counts as written when it has been quiet for a second, instead of when it is closed")
	}
	switch bad, _ := x.Failed("lock"); {
	case x.Locks || !t.Mount.Network():
	case strings.Contains(bad.Err, "no answer"):
		s.warn(t.Name, "wait two minutes and ask again", "a lock was not granted within %s: a file server that has just started gives none for up to 90 s", short(bad.Took))
	default:
		s.warn(t.Name, "start rpc.statd and lockd (NFS 3), or mount without nolock; better use vers=4.2", "no locks there: the file that says who is steward is not guarded by one (the log is, always)")
	}
	if off := max(0, x.Clock.Abs()-x.ClockErr); x.HasClock && off >= clockOff {
		s.warn(t.Name, "set the file server's clock and this one right (NTP)",
			"the filesystem's clock is %s %s this machine's: gateways that compare file times may deploy late or twice", short(x.Clock.Abs()), aheadOrBehind(x.Clock))
	}
	for _, step := range x.Steps {
		if step.Took.Seconds() > 1 && step.Err == "" {
			s.warn(t.Name, "look at the load of the disk or the file server", "%s took %s", step.Op, short(step.Took))
		}
	}
	if x.Left != "" {
		s.note(t.Name, "the trial's own files could not be removed now; a doctor that comes an hour later does: %s", x.Left)
	}
}

const unsquash = "export it with no_root_squash (or anonuid= of the gateway's user), or run daemon and gateway as an ordinary user that owns it"

// nobody is whom servers map to who may not be who he says.
const nobody = 65534

func squashed(f Facts, t Tree, x Trial) string {
	switch {
	case len(x.Steps) == 0 || x.Owner == f.User.UID:
		return ""
	case x.Owner == nobody && f.User.UID == 0:
		return fmt.Sprintf("root is nobody there (root_squash): what the daemon writes to %s belongs to user %d, and it may not change what others own", t.Path, nobody)
	}
	return fmt.Sprintf("what user %d makes there belongs to user %d: the server maps users (all_squash, or different id numbers)", f.User.UID, x.Owner)
}
