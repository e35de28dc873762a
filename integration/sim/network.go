package sim

import "time"

// hears tells whether what a sends now reaches b.
func (w *world) hears(b, a *node) bool {
	return a.alive && b.alive && (a == b || !w.cut[[2]int{a.index, b.index}])
}

// connected tells whether two living nodes hear each other.
func (w *world) connected(a, b *node) bool { return w.hears(a, b) && w.hears(b, a) }

// send carries a message: late, sometimes very late, sometimes never or twice.
// It comes to nothing where b is not there or the link is cut when it arrives.
func (w *world) send(a, b *node, do func()) {
	if a == b {
		w.after(w.some(time.Millisecond), func() {
			if b.alive {
				do()
			}
		})
		return
	}
	copies := 1
	switch {
	case w.peace:
	case w.chance(0.03):
		copies = 0
	case w.chance(0.03):
		copies = 2
	}
	for range copies {
		w.after(w.mostly(20*time.Millisecond), func() {
			if b.alive && !w.cut[[2]int{a.index, b.index}] {
				do()
			}
		})
	}
}

// cutSome cuts links for some seconds: between two nodes, or all of one node;
// in both directions or in one.
func (w *world) cutSome() {
	a, b := w.someNode(), w.someNode()
	oneWay, all := w.chance(0.4), w.chance(0.4)
	var links [][2]int
	for _, o := range w.nodes {
		if o == b || all {
			links = append(links, [2]int{a.index, o.index})
			if !oneWay {
				links = append(links, [2]int{o.index, a.index})
			}
		}
	}
	w.trace("links are cut: %v", links)
	for _, l := range links {
		w.cut[l] = true
	}
	w.after(w.some(8*time.Second), func() {
		w.trace("links are whole: %v", links)
		for _, l := range links {
			delete(w.cut, l)
		}
	})
}
