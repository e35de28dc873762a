package node

import (
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
	for _, info := range log.Trees() {
		if view, ok := log.View(info.Name); ok {
			view.Manifest.All(func(_ manifest.Path, n manifest.Node) bool {
				tellEntry(n.Entry, n.Revision, tell)
				return true
			})
		}
	}
	eachCommitted(log.History("", 0, math.MaxInt), tell)
}

// eachCommitted tells the blobs that some commits brought or replaced.
func eachCommitted(commits []manifest.Commit, tell func(manifest.BlobRef, manifest.Revision)) {
	for _, c := range commits {
		for _, ch := range c.Changes {
			tellEntry(ch.New, c.Revision, tell)
			tellEntry(ch.Old.Entry, ch.Old.Revision, tell)
		}
	}
}

func tellEntry(e manifest.Entry, rev manifest.Revision, tell func(manifest.BlobRef, manifest.Revision)) {
	if e.HasContent() {
		tell(e.Blob(), rev)
	}
}
