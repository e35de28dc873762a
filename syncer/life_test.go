package syncer

import (
	"testing"
)

// A node comes back into a life of the cluster that was recovered without it:
// what equals the recovered tree is agreement, everything else goes aside, and
// nothing of its own is proposed or deletes anything.
func TestPromise_NoLossAReturnersContentGoesAside(t *testing.T) {
	old := newHub()
	b := newBox(t, old, "b")
	b.change = func(c *Config) { c.Generation = 1 }
	b.start()
	for p, content := range map[string]string{
		"same": "same", "lost": "committed in the lost life", "d/deep": "likewise", "differs": "theirs", "back": "still here",
	} {
		b.write(p, content)
		old.committed(t, p, content)
	}
	b.settle()
	b.halt()
	b.write("offline", "edited while away") // nobody has committed it
	b.remove("back")

	// The recovered life has fewer revisions than this disk has followed.
	h := newHub()
	newBox(t, h, "a")
	h.put(t, "same", "same")
	h.put(t, "differs", "ours")
	h.put(t, "back", "still here")
	b.node.hub = h
	b.change = func(c *Config) { c.Generation, c.Aside = 2, true }
	must(t, b.open().Close()) // a start that went no further: the marker is new, nothing else is done
	for range 2 {             // the second start finds all done
		b.start()
		b.has("differs", "ours")
		b.has("same", "same")
		b.has("back", "still here")
		for _, p := range []string{"lost", "d/deep", "d", "offline"} {
			b.gone(p)
		}
		b.settle()
		aside := map[string]string{}
		for _, c := range conflictsOf(t, b) {
			aside[string(c.Path)] = contentOf(t, b, c.ID)
		}
		for p, want := range map[string]string{
			"lost": "committed in the lost life", "d/deep": "likewise", "differs": "theirs", "offline": "edited while away",
		} {
			if aside[p] != want {
				t.Errorf("kept aside for %s: %q, want %q", p, aside[p], want)
			}
		}
		if len(aside) != 4 || h.revision() != 3 {
			t.Errorf("aside %v, revision %d: want 4 and nothing proposed", aside, h.revision())
		}
		b.halt()
	}
	b.start()
	b.write("new", "a day later")
	h.committed(t, "new", "a day later") // it is a node like any other again
}

// The node on which the cluster was recovered keeps what it knows.
func TestTheRecoveredNodesRootIsItsOwn(t *testing.T) {
	h, b := committedFile(t, nil, "f", "x")
	b.settle()
	b.halt()
	b.write("f", "edited meanwhile")
	b.change = func(c *Config) { c.Generation, c.Since = 2, 1 }
	b.start()
	h.committed(t, "f", "edited meanwhile")
	b.halt()
	b.write("f", "and again")
	b.change = func(c *Config) { c.Generation, c.Since = 2, 2 } // the marker is of the new life
	b.start()
	h.committed(t, "f", "and again")
}
