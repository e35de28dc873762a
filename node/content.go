package node

import (
	"fmt"
	"math"

	"github.com/gatesync/gatesync/manifest"
)

// contentLog is what the log says that nodes must hold.
type contentLog interface {
	forest
	View(tree string) (manifest.View, bool)
	History(tree string, from manifest.Revision, limit int) []manifest.Commit
}

// eachContent tells every blob that the log stands for, some more than once:
// those of the committed manifests, then those of the retained history, the
// newest first. With each comes a revision that brought it.
func eachContent(log contentLog, tell func(manifest.BlobRef, manifest.Revision)) {
	eachStand(log, func(ref manifest.BlobRef, rev manifest.Revision, _ func() string) { tell(ref, rev) })
}

// eachStand tells as well what each stands for.
func eachStand(log contentLog, tell func(ref manifest.BlobRef, rev manifest.Revision, what func() string)) {
	for _, info := range log.Trees() {
		if view, ok := log.View(info.Name); ok {
			view.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
				tellEntry(n.Entry, n.Revision, tell, func() string { return fmt.Sprintf("%s: %s (revision %d, current)", info.Name, p, n.Revision) })
				return true
			})
		}
	}
	eachChange(log.History("", 0, math.MaxInt), tell)
}

// eachCommitted tells the blobs that some commits brought or replaced.
func eachCommitted(commits []manifest.Commit, tell func(manifest.BlobRef, manifest.Revision)) {
	eachChange(commits, func(ref manifest.BlobRef, rev manifest.Revision, _ func() string) { tell(ref, rev) })
}

func eachChange(commits []manifest.Commit, tell func(manifest.BlobRef, manifest.Revision, func() string)) {
	for _, c := range commits {
		for _, ch := range c.Changes {
			what := func(rev manifest.Revision) func() string {
				return func() string { return fmt.Sprintf("%s: %s (revision %d)", c.Tree, ch.Path, rev) }
			}
			tellEntry(ch.New, c.Revision, tell, what(c.Revision))
			tellEntry(ch.Old.Entry, ch.Old.Revision, tell, what(ch.Old.Revision))
		}
	}
}

func tellEntry(e manifest.Entry, rev manifest.Revision, tell func(manifest.BlobRef, manifest.Revision, func() string), what func() string) {
	if e.HasContent() {
		tell(e.Blob(), rev, what)
	}
}
