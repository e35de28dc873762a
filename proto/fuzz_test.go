package proto

import (
	"fmt"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func someEntries() []manifest.Entry {
	link := "../x"
	return []manifest.Entry{
		{},
		{Kind: manifest.Dir, Mode: 0o755, MTime: 1},
		{Kind: manifest.File, Mode: 0o644, Size: 1, MTime: -1, Digest: manifest.DigestOf([]byte("x"))},
		{Kind: manifest.Symlink, Mode: 0o777, Size: int64(len(link)), Target: link, Digest: manifest.DigestOf([]byte(link))},
	}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// again sends a value over the wire once more.
func again[M proto.Message](t testing.TB, m, into M) M {
	t.Helper()
	if err := proto.Unmarshal(marshal(t, m), into); err != nil {
		t.Fatal(err)
	}
	return into
}

// FuzzEntry: what is accepted is valid, and survives the wire.
func FuzzEntry(f *testing.F) {
	for _, e := range someEntries()[1:] {
		f.Add(marshal(f, &pb.Node{Entry: FromEntry(e), Revision: 3, Author: "n-1"}))
	}
	f.Add(marshal(f, &pb.Node{Entry: &pb.Entry{Kind: 257, Size: -1 << 63, Digest: []byte("short")}}))
	f.Add(marshal(f, &pb.Node{Entry: &pb.Entry{Mode: 0o644}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(pb.Node)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		n, err := ToNode(m)
		if err != nil {
			return
		}
		if err := n.Entry.Validate(); err != nil || n.Entry.Absent() {
			t.Fatalf("%+v was accepted: %v", n, err)
		}
		if back, err := ToNode(again(t, FromNode(n), new(pb.Node))); err != nil || back != n {
			t.Errorf("%+v comes back as %+v, %v", n, back, err)
		}
	})
}

// FuzzChangeset: what is accepted has paths and entries that a tree can hold,
// and survives the wire.
func FuzzChangeset(f *testing.F) {
	c := manifest.Changeset{
		ID: manifest.ChangesetID{Node: "n-1", Seq: 7}, Tree: "server", Mode: manifest.Atomic, Time: 5, Message: "why",
		Origin: manifest.Origin{Kind: manifest.FromMount, ID: "m-1"}, Receipts: []manifest.Receipt{{Node: "n-1", Store: "s-1"}},
	}
	for i, e := range someEntries() {
		c.Changes = append(c.Changes, manifest.Change{Path: manifest.Path("d/" + string(rune('a'+i))), Expect: 4, New: e})
	}
	f.Add(marshal(f, FromChangeset(c)))
	for _, p := range []string{"../x", "/x", "a\x00", "", "a//b"} {
		f.Add(marshal(f, &pb.Changeset{Changes: []*pb.Change{{Path: []byte(p)}}}))
	}
	f.Add(marshal(f, &pb.Changeset{Mode: 257, Changes: []*pb.Change{{Path: []byte("l"), New: &pb.Entry{Kind: 3, Mode: 0o777, Target: []byte("../x")}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(pb.Changeset)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		c, err := toChangeset(m)
		if err != nil {
			return
		}
		for _, ch := range c.Changes {
			if err := ch.New.ValidateAt(ch.Path); err != nil {
				t.Fatalf("accepted: %v", err)
			}
		}
		if back, err := toChangeset(again(t, FromChangeset(c), new(pb.Changeset))); err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("%+v comes back as %+v, %v", c, back, err)
		}
	})
}

// FuzzCommit is FuzzChangeset for a revision of the history.
func FuzzCommit(f *testing.F) {
	es := someEntries()
	f.Add(marshal(f, FromCommit(manifest.Commit{
		Revision: 4, ID: manifest.ChangesetID{Node: "n-1", Seq: 7}, Tree: "server", Time: 5, Message: "why",
		Origin: manifest.Origin{Kind: manifest.FromTree},
		Changes: []manifest.Committed{
			{Path: "d/a", Old: manifest.Node{Entry: es[1], Revision: 3, Author: "n-2"}, New: es[2]},
			{Path: "d/b", New: es[3]}, {Path: "d/c", Old: manifest.Node{Entry: es[2], Revision: 1}},
		},
	})))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(pb.Commit)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		c, err := ToCommit(m)
		if err != nil {
			return
		}
		for _, ch := range c.Changes {
			if err := ch.New.ValidateAt(ch.Path); err != nil {
				t.Fatalf("accepted: %v", err)
			}
			if err := ch.Old.Entry.Validate(); err != nil {
				t.Fatalf("accepted: %v", err)
			}
		}
		if back, err := ToCommit(again(t, FromCommit(c), new(pb.Commit))); err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("%+v comes back as %+v, %v", c, back, err)
		}
	})
}

// FuzzResult: an answer survives the wire.
func FuzzResult(f *testing.F) {
	f.Add(marshal(f, FromResult(manifest.Result{Revision: 3, Refused: []manifest.Refusal{{Path: "a", Reason: manifest.Conflict, Current: 2}}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(pb.Result)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		r := ToResult(m)
		if back := ToResult(again(t, FromResult(r), new(pb.Result))); !reflect.DeepEqual(back, r) {
			t.Errorf("%+v comes back as %+v", r, back)
		}
		for _, refused := range r.Refused {
			_ = refused.Reason.String()
		}
	})
}

// toChangeset is the reverse of FromChangeset. In production the machine alone
// reads a changeset, path by path.
func toChangeset(m *pb.Changeset) (manifest.Changeset, error) {
	c := manifest.Changeset{
		ID: ToID(m.GetId()), Tree: m.GetTree(), Mode: manifest.Mode(m.GetMode()), Origin: toOrigin(m.GetOrigin()),
		Time: m.GetTimeNs(), Message: m.GetMessage(),
		Changes: make([]manifest.Change, len(m.GetChanges())), Receipts: make([]manifest.Receipt, len(m.GetReceipts())),
	}
	if m.GetMode() > uint32(manifest.Atomic) || m.GetOrigin().GetKind() > 0xff {
		return c, fmt.Errorf("changeset of unknown mode %d or origin %d", m.GetMode(), m.GetOrigin().GetKind())
	}
	for i, ch := range m.GetChanges() {
		p, err := manifest.ParsePath(string(ch.GetPath()))
		if err != nil {
			return c, err
		}
		e, err := toEntryAt(p, ch.GetNew())
		if err != nil {
			return c, err
		}
		c.Changes[i] = manifest.Change{Path: p, Expect: manifest.Revision(ch.GetExpect()), New: e}
	}
	for i, r := range m.GetReceipts() {
		c.Receipts[i] = manifest.Receipt{Node: r.GetNode(), Store: r.GetStore()}
	}
	return c, nil
}
