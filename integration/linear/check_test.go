package linear

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// written is a history by hand: each operation has a client of its own.
type written struct {
	h   *History
	log []Commit
}

func newWritten() *written { return &written{h: NewHistory()} }

var pair = []string{"a", "b"}

func (w *written) add(call, ret int, op operation) *written {
	op.client, op.call, op.ret = len(w.h.ops), time.Duration(call), time.Duration(ret)
	w.h.add(op)
	return w
}

// commits notes what a proposal left in the log.
func (w *written) commits(p Propose, revision uint64) {
	c := Commit{Revision: revision, Tag: p.Tag, Changes: map[string]string{}}
	for _, ch := range p.Changes {
		c.Changes[ch.Path] = ch.Digest
	}
	w.log = append(w.log, c)
}

// ok: proposed and told that it is revision.
func (w *written) ok(call, ret int, revision uint64, p Propose) *written {
	w.commits(p, revision)
	return w.add(call, ret, operation{propose: &p, proposed: Proposed{Revision: revision}})
}

// refused: proposed and told which revision stands.
func (w *written) refused(call, ret int, p Propose, current map[string]uint64) *written {
	return w.add(call, ret, operation{propose: &p, proposed: Proposed{Refused: current}})
}

// read of both paths.
func (w *written) read(call, ret int, revision uint64, a, b Value) *written {
	return w.add(call, ret, operation{read: &Read{Paths: pair}, found: foundBoth(revision, a, b)})
}

func foundBoth(revision uint64, a, b Value) Found {
	f := Found{Revision: revision, Values: map[string]Value{}}
	for i, v := range []Value{a, b} {
		if v != (Value{}) {
			f.Values[pair[i]] = v
		}
	}
	return f
}

func set(tag, path string, expect uint64) Propose {
	return Propose{Tag: tag, Changes: []Change{{Path: path, Expect: expect, Digest: "of " + tag}}}
}

func both(tag string, expectA, expectB uint64) Propose {
	return Propose{Tag: tag, Atomic: true, Changes: []Change{
		{Path: "a", Expect: expectA, Digest: "of " + tag}, {Path: "b", Expect: expectB, Digest: "of " + tag},
	}}
}

func val(revision uint64, tag string) Value { return Value{Revision: revision, Digest: "of " + tag} }

// The check would be worth nothing if it could not fail.
func TestCheckRejectsWhatNoOrderExplains(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for name, c := range map[string]struct {
		w    *written
		want string
	}{
		"lost update": { // two succeed against one revision
			newWritten().ok(1, 2, 1, set("x", "a", 0)).ok(3, 6, 2, set("y", "a", 1)).ok(4, 5, 3, set("z", "a", 1)), "not linearizable",
		},
		"acknowledged and gone": {
			func() *written {
				w := newWritten().ok(1, 2, 1, set("x", "a", 0))
				w.log = nil
				return w
			}(), "answered with revision 1, the log has it at 0",
		},
		"stale read": {
			newWritten().ok(1, 2, 1, set("x", "a", 0)).ok(3, 4, 2, set("y", "a", 1)).read(5, 6, 2, val(1, "x"), Value{}), "not linearizable",
		},
		"stale read, honest about its revision": {
			newWritten().ok(1, 2, 1, set("x", "a", 0)).ok(3, 4, 2, set("y", "a", 1)).read(5, 6, 1, val(1, "x"), Value{}), "not linearizable",
		},
		"reads go back": { // while the write is under way, one sees it and a later one does not
			newWritten().ok(1, 9, 1, set("x", "a", 0)).read(2, 3, 1, val(1, "x"), Value{}).read(4, 5, 0, Value{}, Value{}), "not linearizable",
		},
		"half an atomic changeset": {
			newWritten().ok(1, 2, 1, both("x", 0, 0)).ok(3, 9, 2, both("y", 1, 1)).read(4, 5, 2, val(2, "y"), val(1, "x")), "not linearizable",
		},
		"half an atomic changeset was refused": {
			newWritten().ok(1, 2, 1, both("x", 0, 0)).
				add(3, 4, operation{propose: &Propose{Tag: "y", Atomic: true, Changes: both("y", 1, 7).Changes}, proposed: Proposed{Refused: map[string]uint64{"b": 1}}}),
			"not linearizable",
		},
		"refused for no reason": {
			newWritten().ok(1, 2, 1, set("x", "a", 0)).refused(3, 4, set("y", "a", 1), map[string]uint64{"a": 1}), "not linearizable",
		},
		"refused with a revision that does not stand": {
			newWritten().ok(1, 2, 1, set("x", "a", 0)).ok(3, 4, 2, set("y", "a", 1)).refused(5, 6, set("z", "a", 7), map[string]uint64{"a": 1}), "not linearizable",
		},
		"an effect before the call": {
			newWritten().read(1, 2, 1, val(1, "x"), Value{}).ok(3, 4, 1, set("x", "a", 0)), "not linearizable",
		},
		"content that nobody proposed": {
			newWritten().ok(1, 2, 1, set("x", "a", 0)).read(3, 4, 1, val(1, "rubbish"), Value{}), "not linearizable",
		},
		"an effect that is undone": { // its client never heard; the log has it, a read saw it, the next does not
			func() *written {
				w := newWritten().add(1, 2, operation{propose: &Propose{Tag: "x", Changes: set("x", "a", 0).Changes}, end: unknown})
				w.commits(set("x", "a", 0), 1)
				return w.read(3, 4, 1, val(1, "x"), Value{}).read(5, 6, 1, Value{}, Value{})
			}(), "not linearizable",
		},
		"surely not committed, and in the log": {
			func() *written {
				w := newWritten().add(1, 2, operation{propose: &Propose{Tag: "x", Changes: set("x", "a", 0).Changes}, end: nothing})
				w.commits(set("x", "a", 0), 1)
				return w
			}(), "surely not committed",
		},
		"applied twice": {
			func() *written {
				w := newWritten().ok(1, 2, 1, set("x", "a", 0)).ok(3, 4, 2, Propose{Tag: "d", Changes: []Change{{Path: "a", Expect: 1}}})
				w.commits(set("x", "a", 0), 3)
				return w
			}(), "applied twice",
		},
		"a revision of another group from the past": {
			newWritten().ok(1, 2, 2, set("x", "a", 0)).
				add(3, 4, operation{group: 1, propose: &Propose{Tag: "y", Changes: []Change{{Path: "c", Digest: "of y"}}}, proposed: Proposed{Revision: 1}}),
			"a call that began when revision 2 was known",
		},
		"a node that makes up its past": {
			newWritten().ok(1, 2, 1, set("x", "a", 0)).ok(3, 4, 2, set("y", "a", 1)).
				add(5, 6, operation{local: true, read: &Read{Paths: pair}, found: foundBoth(1, val(2, "y"), Value{})}),
			"at revision 1, the log says",
		},
	} {
		err := Check(c.w.h, [][]string{pair, {"c"}}, c.w.log)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want an error with %q, got: %v", name, c.want, err)
		}
		var not *NotLinearizableError
		if errors.As(err, &not) {
			if b, err := os.ReadFile(not.Picture); err != nil || !strings.Contains(string(b), "<html") {
				t.Errorf("%s: the picture: %v, %d bytes", name, err, len(b))
			}
		}
	}
}

func TestCheckAcceptsWhatAnOrderExplains(t *testing.T) {
	never := set("never", "a", 1)
	late := set("late", "b", 0)
	w := newWritten().
		ok(1, 9, 1, set("x", "a", 0)).read(2, 8, 0, Value{}, Value{}).read(3, 7, 1, val(1, "x"), Value{}). // concurrent, both orders
		add(10, 11, operation{propose: &never, end: unknown}).                                             // lost on its way
		add(10, 11, operation{propose: &late, end: unknown}).                                              // took effect long after
		read(12, 13, 1, val(1, "x"), Value{}).
		add(14, 15, operation{propose: &Propose{Tag: "same", Changes: []Change{{Path: "a", Expect: 99, Digest: "of x"}}}}) // in force already
	w.commits(late, 2)
	w.read(16, 17, 2, val(1, "x"), val(2, "late")).
		ok(18, 19, 3, both("y", 1, 2)).
		refused(20, 21, both("z", 3, 2), map[string]uint64{"a": 3, "b": 3}).
		ok(22, 23, 4, Propose{Tag: "gone", Changes: []Change{{Path: "a", Expect: 3}}}).
		read(24, 25, 4, Value{}, val(3, "y")).
		add(24, 25, operation{local: true, read: &Read{Paths: pair}, found: foundBoth(1, val(1, "x"), Value{})}) // old, and honest
	if err := Check(w.h, [][]string{pair}, w.log); err != nil {
		t.Error(err)
	}
}
