package syncer

import (
	"os"
	"strings"
	"testing"
)

// Whoever empties the directory takes the nonces along: who is there already
// leaves another one, so that nobody takes it for a directory of its own.
func TestNoncesThatWereRemoved(t *testing.T) {
	t.Run("all of .gatesync", func(t *testing.T) {
		m := moor(t)
		m.a.write("f", "x")
		m.follow(1)
		if err := os.RemoveAll(m.a.root + "/.gatesync"); err != nil {
			t.Fatal(err)
		}
		m.a.until("both have noticed", func() bool {
			m.a.s.scanner.request("")
			m.b.s.scanner.request("")
			return m.a.lost() && m.b.lost()
		})
		m.a.s.Rule(Restore)
		m.a.until("both have found it", func() bool { return !m.a.lost() && !m.b.lost() })
		m.b.halt()
		m.b.start()
		m.a.until("the two know of each other", func() bool { return m.a.s.onMount() && m.b.s.onMount() })
	})
	t.Run("a nonce alone", func(t *testing.T) {
		m := moor(t)
		if err := os.Remove(m.a.root + "/.gatesync/" + noncePrefix + "a"); err != nil {
			t.Fatal(err)
		}
		m.b.halt()
		m.b.start()
		m.a.until("the two know of each other", func() bool { return m.a.s.onMount() && m.b.s.onMount() })
	})
}

// After a restart it may take long until it is known where the tree lies: the log
// has to be told. Status says so all the while.
func TestWhyItIsNotKnownWhereTheTreeLies(t *testing.T) {
	m := moor(t)
	m.b.halt()
	m.berths["b"].deaf.Store(true)
	m.b.start()
	m.b.until("status says what it waits for, and that it cannot be said", func() bool {
		st, err := m.b.s.Status(ctxOf(t))
		return err == nil && st.Place.Unknown && strings.Contains(st.Place.Why, "waiting for a") && strings.Contains(st.Place.Why, "no leader")
	})
	m.berths["b"].deaf.Store(false)
	m.b.until("the two know of each other", func() bool { return m.b.s.onMount() })
}

// A node that was off while another one joined reads a log that does not know
// of the newcomer yet: until it is read, the nonce that lies there counts.
func TestANonceOfWhoJoinedMeanwhile(t *testing.T) {
	w := newWaters()
	w.start("a", "nfs", StorageAuto)
	w.start("b", "nfs", StorageAuto)
	w.gone["b"] = true // for all that a's log says so far
	a := w.nodes["a"]
	a.read(w)
	a.s.behind = true
	if p := a.s.decide().place; !p.Unknown {
		t.Fatalf("it works in b's directory before it knows of b: %+v", p)
	}
	a.s.behind = false
	if p := a.s.decide().place; p != (Place{}) {
		t.Fatalf("the nonce of who is no member keeps it from its own directory: %+v", p)
	}
	delete(w.gone, "b")
	a.s.behind = true
	if got := w.settle(t, "a", "b"); got != "a on m-a, b on m-a" && got != "a on m-b, b on m-b" {
		t.Fatal(got)
	}
}
