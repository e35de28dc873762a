package node

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// An edit of a file that everybody has travels as what differs: pushed to the
// members of Raft, and fetched by a follower.
func TestAnEditTravelsAsWhatDiffers(t *testing.T) {
	t.Parallel()
	g := trio(t)
	waitFormat(t, g[0])
	f := newGateway(t, "gw4").follow(g[0])
	var old strings.Builder
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 3000 {
		fmt.Fprintf(&old, "<property name=\"p%d\" value=\"%x\"/>\n", i, rnd.Uint64())
	}
	edit := func(i int) string { return strings.Replace(old.String(), "p1500", fmt.Sprintf("edited %d", i), 1) }
	nodes := []*gateway{g[0], g[1], g[2], f}
	for i := range 3 { // the first whole; the author learns from it what its peers understand
		g[0].write("api/a.xml", edit(i))
		everywhere(t, "api/a.xml", edit(i), nodes...)
	}
	size := uint64(old.Len())
	for _, c := range []struct {
		g    *gateway
		sent bool
	}{{g[0], true}, {f, false}} {
		s, err := c.g.status()
		if err != nil {
			t.Fatal(err)
		}
		d := s.Carriers[len(s.Carriers)-1].Deltas
		content, wire := d.ReceivedBytes, d.ReceivedWire
		if c.sent {
			content, wire = d.SentBytes, d.SentWire
		}
		if content < size || wire == 0 || wire > content/100 || d.Useless > 0 {
			t.Errorf("%s: %+v, of a file of %d bytes", c.g.cfg.Name, d, size)
		}
	}
}
