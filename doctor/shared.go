package doctor

import "strings"

// checkShared compares what the settings and the daemon say of a tree's
// directory with what the other members see there.
func checkShared(s *sheet, f Facts) {
	for _, t := range f.Trees {
		if t.Hung == "" && t.Err == "" {
			checkSight(s, f, t)
		}
	}
}

func checkSight(s *sheet, f Facts, t Tree) {
	var see, miss, fail []string
	for _, m := range f.Cluster.Members {
		for _, sight := range m.Sights {
			switch {
			case sight.Tree != t.Name:
			case sight.Err != "":
				fail = append(fail, m.Name+" ("+sight.Err+")")
			case sight.Sees:
				see = append(see, m.Name)
			case sight.Has:
				miss = append(miss, m.Name)
			}
		}
	}
	if len(fail) > 0 {
		s.warn(t.Name, "run doctor there too", "these could not say whether they see the same directory: %s", strings.Join(fail, ", "))
	}
	var told SeenTree
	for _, l := range f.Cluster.LogTrees {
		if l.Name == t.Name {
			told = l
		}
	}
	if told.Why != "" { // storage unknown
		s.warn(t.Name, "if it stays so: look at `gatesync status` on the nodes that it names", "the daemon has yet to find out whether it is shared: %s", told.Why)
	}
	if told.Storage == "direct" && told.Steward == "" {
		s.warn(t.Name, "the leader names one within seconds; if not, see `gatesync status` for who is down", "nobody is its steward: what comes from elsewhere is not brought there")
	}
	everybody := strings.Join(see, ", ")
	switch {
	case len(see) > 0 && t.Storage == "local":
		s.problem(t.Name, "set storage to auto (or direct) on all of them, or give each a directory of its own", "storage is local, and the same directory is the tree of %s", everybody)
	case len(see) > 0 && f.Cluster.Running && told.Storage == "local":
		s.problem(t.Name, "look at `gatesync status` on each; the daemons find it out by each other's nonces in .gatesync", "the daemon takes the directory for its own, and it is the tree of %s too", everybody)
	case len(see) > 0:
		s.note(t.Name, "one directory, shared with %s", everybody)
	case t.Storage == "direct" && len(miss) > 0:
		s.problem(t.Name, "mount the same export at each, or set storage to auto", "storage is direct, and none of the others sees this directory: %s", strings.Join(miss, ", "))
	case t.Mount.Network() && len(miss) > 0:
		s.note(t.Name, "it lies on a network filesystem (%s), and the other members' trees are other directories", t.Mount.Source)
	}
	if len(see) > 0 && len(miss) > 0 {
		s.note(t.Name, "%s have directories of their own", strings.Join(miss, ", "))
	}
}
