package node

import (
	"math"

	"github.com/gatesync/gatesync/manifest"
)

// committed is what the log says that nodes must hold.
type committed interface {
	forest
	View(tree string) (manifest.View, bool)
	History(tree string, from manifest.Revision, limit int) []manifest.Commit
}

// eachContent tells every blob that the log stands for, some more than once:
// those of the committed manifests, then those of the retained history, the
// newest first.
func eachContent(log committed, tell func(manifest.BlobRef)) {
	for _, info := range log.Trees() {
		if view, ok := log.View(info.Name); ok {
			view.Manifest.All(func(_ manifest.Path, n manifest.Node) bool {
				tellEntry(n.Entry, tell)
				return true
			})
		}
	}
	eachCommitted(log.History("", 0, math.MaxInt), tell)
}

// eachCommitted tells the blobs that some commits brought or replaced.
func eachCommitted(commits []manifest.Commit, tell func(manifest.BlobRef)) {
	for _, c := range commits {
		for _, ch := range c.Changes {
			tellEntry(ch.New, tell)
			tellEntry(ch.Old.Entry, tell)
		}
	}
}

func tellEntry(e manifest.Entry, tell func(manifest.BlobRef)) {
	if e.HasContent() {
		tell(e.Blob())
	}
}
