package node

import (
	"fmt"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// A node whose trees take no edits takes proposals of its local API all the same:
// those are a person's, or a pipeline's. What its gateway writes is put back.
func TestProposalsOnANodeThatTakesNoEdits(t *testing.T) {
	g := newGateway(t, "gw1")
	g.cfg.WritePolicy = "never"
	if _, err := Init(t.Context(), g.cfg); err != nil {
		t.Fatal(err)
	}
	g.run()
	var rev uint64
	eventually(t, func() error {
		res, err := g.propose(server(file("a.xml", "proposed\n", 0)))
		rev = uint64(res.Revision)
		return err
	})
	everywhere(t, "a.xml", "proposed\n", g)
	g.write("a.xml", "edited\n")
	g.write("b.xml", "made\n")
	eventually(t, func() error {
		s, err := g.status()
		if err == nil && (s.Trees[0].Repaired != 2 || s.Trees[0].Conflicts != 2 || s.Trees[0].Held != 0) {
			err = fmt.Errorf("%+v", s.Trees[0])
		}
		return err
	})
	everywhere(t, "a.xml", "proposed\n", g)
	if s, err := g.status(); err != nil || s.Revision != rev || s.Trees[0].Write != "never" || s.Trees[0].Edits != "repair" {
		t.Errorf("revision %d, write %q, edits %q, %v", s.Revision, s.Trees[0].Write, s.Trees[0].Edits, err)
	}
	res, err := g.propose(server(file("a.xml", "proposed again\n", manifest.Revision(rev))))
	if err != nil || len(res.Refused) > 0 {
		t.Fatal(res, err)
	}
	everywhere(t, "a.xml", "proposed again\n", g)
}
