package doctor

import "fmt"

const (
	// spareWatches is what other programs of the user need, roughly.
	spareWatches = 8192
	// fewInstances is when the next program that watches files fails.
	fewInstances = 16
	// fewFiles is too little for the connections of a large cluster, the packs
	// of the blob store and the files that are worked on.
	fewFiles = 1024
)

func checkLimits(s *sheet, f Facts) {
	dirs, part := 0, false
	for _, t := range f.Trees {
		dirs += t.Dirs + 1
		part = part || t.DirsPart
	}
	atLeast := ""
	if part {
		atLeast = "at least "
	}
	l := f.Limits
	if need := int64(dirs + spareWatches); l.Watches > 0 && l.Watches < need {
		remedy := fmt.Sprintf("sysctl -w fs.inotify.max_user_watches=%d, and the same in /etc/sysctl.d", max(524288, 2*need))
		if int64(dirs) >= l.Watches {
			s.warn("fs.inotify.max_user_watches", remedy, "%d watches for %s%d directories: changes in the others are found by scans only, seconds later", l.Watches, atLeast, dirs)
		} else {
			s.warn("fs.inotify.max_user_watches", remedy, "%d watches for %s%d directories: little is left for this user's other programs", l.Watches, atLeast, dirs)
		}
	}
	if l.Instances > 0 && l.Instances < fewInstances {
		s.warn("fs.inotify.max_user_instances", "sysctl -w fs.inotify.max_user_instances=128, and the same in /etc/sysctl.d", "this user may have %d of them; gatesync needs one per tree", l.Instances)
	}
	if l.OpenFiles > 0 && l.OpenFiles < fewFiles {
		sev := s.warn
		if l.OpenFiles < 256 {
			sev = s.problem
		}
		sev("open files", "LimitNOFILE=65536 in the daemon's unit, or `ulimit -n 65536` before it starts", "the %s may open %d files", l.Of, l.OpenFiles)
	}
}
