package sim

import "github.com/gatesync/gatesync/manifest"

// ledger knows every content that a gateway has finished, and why it may be
// gone for good, if it may: only its own gateway, the loss of power before it
// was captured, or the removal of its node excuses that.
type ledger struct {
	texts []string // in the order in which they were first written
	fates map[string]*fate
	torn  map[manifest.Digest]bool // content that stood in a file that was being written
}

type fate struct {
	node   *node             // that wrote it last
	since  manifest.Revision // the log's newest then
	excuse string
}

func newLedger() ledger { return ledger{fates: map[string]*fate{}, torn: map[manifest.Digest]bool{}} }

func (l *ledger) wrote(n *node, i *inode) {
	if l.fates[i.text] == nil {
		l.texts = append(l.texts, i.text)
	}
	l.fates[i.text] = &fate{node: n, since: n.w.oracle.last}
}

// excuse says why content that stood in i need not be found again.
func (l *ledger) excuse(i *inode, why string) {
	if i == nil || i.kind != manifest.File {
		return
	}
	if f := l.fates[i.text]; f != nil {
		f.excuse = why
	}
}

// hold takes an excuse back: the content is still there.
func (l *ledger) hold(i *inode) {
	if f := l.fates[i.text]; f != nil && i.kind == manifest.File {
		f.excuse = ""
	}
}

func (l *ledger) excuseText(d manifest.Digest, why string) {
	for _, text := range l.texts {
		if manifest.DigestOf([]byte(text)) == d {
			l.fates[text].excuse = why
		}
	}
}

func (l *ledger) excuseNode(n *node, why string) {
	for _, f := range l.fates {
		if f.node == n {
			f.excuse = why
		}
	}
}

// checkLedger: whatever a gateway finished is in the log's history, kept
// aside, or stands in its tree, held.
func (w *world) checkLedger() {
	retained := map[manifest.Digest]bool{}
	for _, d := range w.oracle.retained() {
		retained[d] = true
	}
	for _, text := range w.ledger.texts {
		f, d := w.ledger.fates[text], manifest.DigestOf([]byte(text))
		// What the log held since, and was trimmed, is nobody's loss.
		logged := retained[d] || w.oracle.seen[d] > f.since || w.oracle.left[d] > f.since
		if f.excuse == "" && !logged && !w.kept(f.node, text) {
			w.fail("NoLoss: %q, which the gateway of node %d has written, is nowhere", text, f.node.index)
		}
	}
}

func (w *world) kept(n *node, text string) bool {
	d := manifest.DigestOf([]byte(text))
	for _, o := range w.nodes {
		if !o.gone && o.keepsAside(d) {
			return true
		}
	}
	for _, i := range n.disk.at {
		if i.text == text {
			return true
		}
	}
	return false
}

// keepsAside tells whether content was recorded as a conflict, and is there.
func (n *node) keepsAside(d manifest.Digest) bool {
	for _, a := range n.saved.asides {
		if a.lost.Digest == d && n.store.durable[d] {
			return true
		}
	}
	return false
}
