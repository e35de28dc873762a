package raftstore

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// ---- what the tests of the machine speak

func put(id string) *pb.Command {
	return &pb.Command{Format: Format, TimeNs: 1, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{
		Member: &pb.Member{Id: id, Name: "name-" + id, Address: "a:1", Store: "s-" + id},
	}}}
}

func addTree(name string) *pb.Command {
	return &pb.Command{Format: Format, Do: &pb.Command_PutTree{PutTree: &pb.PutTree{Name: name, Id: "t-" + name, Generation: 1}}}
}

func propose(c manifest.Changeset) *pb.Command { return proposal(proto.FromChangeset(c), 1) }

func changeset(seq uint64, mode manifest.Mode, changes ...manifest.Change) manifest.Changeset {
	return manifest.Changeset{
		ID: manifest.ChangesetID{Node: "n-1", Seq: seq}, Tree: "server", Mode: mode, Changes: changes,
		Receipts: []manifest.Receipt{{Node: "n-1", Store: "s-n-1"}, {Node: "n-2", Store: "s-n-2"}},
	}
}

func file(content string) manifest.Entry {
	return manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: int64(len(content)), Digest: manifest.DigestOf([]byte(content))}
}

var dir = manifest.Entry{Kind: manifest.Dir, Mode: 0o755}

func write(p string, expect manifest.Revision, e manifest.Entry) manifest.Change {
	return manifest.Change{Path: manifest.Path(p), Expect: expect, New: e}
}

func remove(p string, expect manifest.Revision) manifest.Change {
	return write(p, expect, manifest.Entry{})
}

// founded is a machine of three voters with one tree.
func founded() *Machine {
	m := NewMachine()
	m.SetVoters([]string{"n-3", "n-1", "n-2"})
	for _, cmd := range []*pb.Command{put("n-1"), put("n-2"), put("n-3"), addTree("server")} {
		if err := OutcomeErr(m.Apply(cmd)); err != nil {
			panic(err)
		}
	}
	return m
}

func mustDo(t testing.TB, m *Machine, cmd *pb.Command) *pb.Outcome {
	t.Helper()
	out := m.Apply(cmd)
	if err := OutcomeErr(out); err != nil {
		t.Fatalf("%v: %v", protojson.Format(cmd), err)
	}
	return out
}

func mustCommit(t testing.TB, m *Machine, c manifest.Changeset) manifest.Result {
	t.Helper()
	r := proto.ToResult(mustDo(t, m, propose(c)).GetResult())
	if len(r.Refused) > 0 {
		t.Fatalf("refused: %v", r.Refused)
	}
	return r
}

func wantCode(t testing.TB, o *pb.Outcome, want Code) {
	t.Helper()
	if Code(o.GetCode()) != want {
		t.Fatalf("outcome %v %q, want %v", Code(o.GetCode()), o.GetMessage(), want)
	}
	if want != Done && o.GetMessage() == "" {
		t.Fatalf("%v says nothing to a person", want)
	}
}

func wantRefused(t testing.TB, r manifest.Result, want ...manifest.Refusal) {
	t.Helper()
	if fmt.Sprint(r.Refused) != fmt.Sprint(want) {
		t.Fatalf("refused %v, want %v", r.Refused, want)
	}
}

func entryAt(m *Machine, p string) manifest.Node {
	v, _ := m.View("server")
	n, _ := v.Manifest.Get(manifest.Path(p))
	return n
}

func snapshotOf(t testing.TB, m *Machine) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := m.Freeze().WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("snapshot: %d of %d bytes, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func restored(t testing.TB, snapshot []byte) *Machine {
	t.Helper()
	m := NewMachine()
	if err := m.Restore(bytes.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
	return m
}

// ---- the rules of propose

func TestChangesApplyDeletionsFirstThenFromTheTop(t *testing.T) {
	m := founded()
	r := mustCommit(t, m, changeset(1, manifest.Atomic,
		write("d/x/f", 0, file("1")), write("d", 0, dir), write("d/x", 0, dir)))
	if r.Revision != 1 {
		t.Fatalf("revision %d, want 1", r.Revision)
	}
	// The directory gives way to a file of the same name.
	mustCommit(t, m, changeset(2, manifest.Atomic,
		write("d", 1, file("2")), remove("d/x", 1), remove("d/x/f", 1)))
	if v, _ := m.View("server"); v.Manifest.Len() != 1 || v.Revision != 2 || entryAt(m, "d").Entry.Kind != manifest.File {
		t.Fatalf("after the swap: %d entries at revision %d", v.Manifest.Len(), v.Revision)
	}
	// And back.
	mustCommit(t, m, changeset(3, manifest.Atomic, write("d/y", 0, file("3")), write("d", 2, dir)))
	if n := entryAt(m, "d/y"); n.Revision != 3 || n.Author != "n-1" {
		t.Fatalf("d/y is %+v", n)
	}
}

func TestRefusalsPerPath(t *testing.T) {
	m := founded()
	mustCommit(t, m, changeset(1, manifest.PerPath, write("d", 0, dir), write("d/f", 0, file("1")), write("g", 0, file("1"))))
	bad := write("h", 0, file("1"))
	bad.New.Mode = 0o4755
	out := mustDo(t, m, propose(changeset(2, manifest.PerPath,
		write("../out", 0, file("x")),   // malformed path
		bad,                             // malformed entry
		write("ok", 0, file("ok")),      // commits
		write("ok", 0, file("again")),   // the same path twice
		remove("d", 1),                  // not empty
		write("none/f", 0, file("x")),   // no parent
		write("g/f", 0, file("x")),      // the parent is a file
		write("d/f", 0, file("2")),      // expects it absent
		write("d/new", 9, file("2")),    // expects it present
		write(".gatesync", 0, file("")), // not ours to replicate
	)))
	r := proto.ToResult(out.GetResult())
	wantRefused(t, r,
		manifest.Refusal{Path: "../out", Reason: manifest.Malformed},
		manifest.Refusal{Path: "h", Reason: manifest.Malformed},
		manifest.Refusal{Path: "ok", Reason: manifest.Malformed},
		manifest.Refusal{Path: ".gatesync", Reason: manifest.Malformed},
		manifest.Refusal{Path: "d", Reason: manifest.NotEmpty, Current: 1},
		manifest.Refusal{Path: "d/f", Reason: manifest.Conflict, Current: 1},
		manifest.Refusal{Path: "d/new", Reason: manifest.Conflict},
		manifest.Refusal{Path: "g/f", Reason: manifest.NoParent},
		manifest.Refusal{Path: "none/f", Reason: manifest.NoParent},
	)
	if r.Revision != 2 || entryAt(m, "ok").Entry.Digest != file("ok").Digest {
		t.Fatalf("revision %d, ok is %v", r.Revision, entryAt(m, "ok").Entry)
	}
}

func TestWhatIsInForceIsAcceptedWithoutARevision(t *testing.T) {
	m := founded()
	mustCommit(t, m, changeset(1, manifest.PerPath, write("f", 0, file("1"))))
	later := file("1")
	later.MTime = 42 // carried, never compared
	r := mustCommit(t, m, changeset(2, manifest.Atomic, write("f", 77, later), remove("gone", 5)))
	if r.Revision != 0 || m.Revision() != 1 || entryAt(m, "f").Entry.MTime != 0 {
		t.Fatalf("result %+v, revision %d", r, m.Revision())
	}
}

// To expect nothing is to expect it at this place in the log, whatever was there
// before; to expect a revision that was deleted is not.
func TestAnAbsentPathHasNoRevision(t *testing.T) {
	m := founded()
	first := mustCommit(t, m, changeset(1, manifest.PerPath, write("f", 0, file("1"))))
	mustCommit(t, m, changeset(2, manifest.PerPath, remove("f", first.Revision)))
	late := proto.ToResult(mustDo(t, m, propose(changeset(3, manifest.PerPath, write("f", first.Revision, file("2"))))).GetResult())
	if len(late.Refused) != 1 || late.Refused[0].Reason != manifest.Conflict || late.Refused[0].Current != 0 {
		t.Errorf("of a revision that was deleted: %+v", late)
	}
	mustCommit(t, m, changeset(4, manifest.PerPath, write("f", 0, file("3"))))
}

func TestAtomicAbortsAll(t *testing.T) {
	m := founded()
	mustCommit(t, m, changeset(1, manifest.PerPath, write("f", 0, file("1")), write("same", 0, file("s"))))
	before := snapshotOf(t, m)
	out := mustDo(t, m, propose(changeset(2, manifest.Atomic,
		write("new", 0, file("2")), remove("f", 1), write("same", 0, file("s")), write("none/f", 0, file("3")))))
	r := proto.ToResult(out.GetResult())
	wantRefused(t, r,
		manifest.Refusal{Path: "none/f", Reason: manifest.NoParent},
		manifest.Refusal{Path: "f", Reason: manifest.Aborted, Current: 1},
		manifest.Refusal{Path: "new", Reason: manifest.Aborted})
	if r.Revision != 0 || m.Revision() != 1 {
		t.Fatalf("revision %d and %d", r.Revision, m.Revision())
	}
	// Nothing but the remembered outcome has changed.
	delete(m.sessions["n-1"].outcomes, 2)
	m.sessions["n-1"].newest = 1
	if !bytes.Equal(before, snapshotOf(t, m)) {
		t.Fatal("an aborted changeset left something behind")
	}
}

func TestReceiptsOfAMajorityOfTheVoters(t *testing.T) {
	content := write("f", 0, file("1"))
	receipt := func(nodes ...string) (rs []manifest.Receipt) {
		for _, n := range nodes {
			rs = append(rs, manifest.Receipt{Node: n, Store: "s-" + n})
		}
		return rs
	}
	for _, tc := range []struct {
		name     string
		receipts []manifest.Receipt
		change   manifest.Change
		want     Code
	}{
		{"none", nil, content, CodeReceipts},
		{"one of three", receipt("n-1"), content, CodeReceipts},
		{"one node twice", receipt("n-1", "n-1"), content, CodeReceipts},
		{"two of three", receipt("n-1", "n-3"), content, Done},
		{"a member that does not vote", receipt("n-1", "n-4"), content, CodeReceipts},
		{"a stranger", receipt("n-1", "n-9"), content, CodeReceipts},
		{"a store that was wiped", append(receipt("n-1"), manifest.Receipt{Node: "n-2", Store: "s-old"}), content, CodeReceipts},
		{"no content, none needed", nil, write("d", 0, dir), Done},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := founded()
			mustDo(t, m, put("n-4"))
			c := changeset(1, manifest.PerPath, tc.change)
			c.Receipts = tc.receipts
			wantCode(t, m.Apply(propose(c)), tc.want)
			if (tc.want == Done) != (m.Revision() == 1) {
				t.Fatalf("revision %d", m.Revision())
			}
		})
	}
}

func TestReceiptsAreJudgedByTheVotersOfTheMoment(t *testing.T) {
	m := founded()
	m.SetVoters([]string{"n-1", "n-2", "n-3", "n-4", "n-5"})
	wantCode(t, m.Apply(propose(changeset(1, manifest.PerPath, write("f", 0, file("1"))))), CodeReceipts)
	m.SetVoters([]string{"n-1"})
	wantCode(t, m.Apply(propose(changeset(2, manifest.PerPath, write("f", 0, file("1"))))), Done)
	m.SetVoters(nil) // nobody is no majority
	wantCode(t, m.Apply(propose(changeset(3, manifest.PerPath, write("g", 0, file("1"))))), CodeReceipts)
}

// ---- who may propose, and again

func TestRetryIsANoop(t *testing.T) {
	m := founded()
	first := m.Apply(propose(changeset(1, manifest.PerPath, write("f", 0, file("1")), write("g", 7, file("1")))))
	mustCommit(t, m, changeset(2, manifest.PerPath, remove("f", 1)))
	again := m.Apply(propose(changeset(1, manifest.PerPath, write("f", 0, file("1")), write("g", 7, file("1")))))
	if !gproto.Equal(first, again) || m.Revision() != 2 {
		t.Fatalf("first %v, again %v, revision %d", first, again, m.Revision())
	}
}

func TestTheWindowOfSequences(t *testing.T) {
	m := founded()
	for seq := uint64(2); seq <= Window+1; seq++ {
		mustCommit(t, m, changeset(seq, manifest.PerPath, write(fmt.Sprint("d", seq), 0, dir)))
	}
	wantCode(t, m.Apply(propose(changeset(1, manifest.PerPath, write("late", 0, dir)))), CodeStale)
	if got := len(m.sessions["n-1"].outcomes); got != Window {
		t.Fatalf("%d outcomes are remembered, want %d", got, Window)
	}
	// A jump (a range that was reserved and lost in a crash) leaves them all behind.
	mustCommit(t, m, changeset(10*Window, manifest.PerPath, write("jump", 0, dir)))
	wantCode(t, m.Apply(propose(changeset(Window, manifest.PerPath, write("late", 0, dir)))), CodeStale)
	// Within the window they come in any order.
	mustCommit(t, m, changeset(10*Window-5, manifest.PerPath, write("out of order", 0, dir)))
}

func TestWhoMayNotPropose(t *testing.T) {
	m := founded()
	c := changeset(1, manifest.PerPath, write("d", 0, dir))
	c.ID.Node = "n-9"
	wantCode(t, m.Apply(propose(c)), CodeNotMember)
	c = changeset(1, manifest.PerPath, write("d", 0, dir))
	c.Tree = "tenants"
	wantCode(t, m.Apply(propose(c)), CodeUnknownTree)
	wantCode(t, m.Apply(propose(changeset(0, manifest.PerPath, write("d", 0, dir)))), CodeMalformed)
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-1"}}})
	wantCode(t, m.Apply(propose(changeset(2, manifest.PerPath, write("d", 0, dir)))), CodeNotMember)
}

func TestUnknownCommandsAreOutcomes(t *testing.T) {
	m := NewMachine()
	wantCode(t, m.Apply(nil), CodeFormat)
	wantCode(t, m.Apply(&pb.Command{Format: Format + 1, Do: &pb.Command_Noop{}}), CodeFormat)
	wantCode(t, m.Apply(&pb.Command{Format: Format}), CodeMalformed)
	wantCode(t, m.ApplyEntry([]byte{0xff}), CodeMalformed)
	wantCode(t, m.Apply(&pb.Command{Format: Format, Do: &pb.Command_Noop{}}), Done)
	for _, cmd := range []*pb.Command{ // typed nils
		{Do: &pb.Command_Propose{}}, {Do: &pb.Command_PutMember{}}, {Do: &pb.Command_PutToken{}},
		{Do: &pb.Command_PutTree{}}, {Do: &pb.Command_InitCluster{}},
	} {
		cmd.Format = Format
		if m.Apply(cmd).GetCode() == 0 {
			t.Fatalf("%T of nothing was accepted", cmd.GetDo())
		}
	}
}

// ---- parts

func TestPartsCommitWithTheLast(t *testing.T) {
	m := founded()
	part := func(n, of uint32, changes ...manifest.Change) *pb.Command {
		c := proto.FromChangeset(changeset(1, manifest.Atomic, changes...))
		c.Part, c.Parts = n, of
		return proposal(c, 1)
	}
	wantCode(t, m.Apply(part(1, 3, write("d/a", 0, file("a")))), CodeParts)
	mustDo(t, m, part(0, 3, write("d", 0, dir)))
	mustDo(t, m, part(1, 3, write("d/a", 0, file("a"))))
	m = restored(t, snapshotOf(t, m)) // parts survive
	mustDo(t, m, part(0, 3, write("d", 0, dir)))
	if m.Revision() != 0 {
		t.Fatal("committed before the last part")
	}
	out := mustDo(t, m, part(2, 3, write("d/b", 0, file("b"))))
	if r := proto.ToResult(out.GetResult()); r.Revision != 1 || len(r.Refused) > 0 {
		t.Fatalf("result %+v", r)
	}
	if v, _ := m.View("server"); v.Manifest.Len() != 3 || len(m.parts) != 0 {
		t.Fatalf("%d entries, %d parts left", v.Manifest.Len(), len(m.parts))
	}
	if again := m.Apply(part(0, 3, write("d", 0, dir))); again.GetResult().GetRevision() != 1 {
		t.Fatalf("a retry of an early part after the commit: %v", again)
	}
	wantCode(t, m.Apply(proposal(&pb.Changeset{Id: &pb.ChangesetID{Node: "n-1", Seq: 2}, Part: 3, Parts: 3}, 1)), CodeMalformed)
}

func TestPartsAreBounded(t *testing.T) {
	m := founded()
	big := make([]byte, 60<<10)
	part := func(seq uint64, n uint32) *pb.Command {
		return proposal(&pb.Changeset{
			Id: &pb.ChangesetID{Node: "n-1", Seq: seq}, Tree: "server", Mode: 1, Part: n, Parts: 1 << 20,
			Changes: []*pb.Change{{Path: big}},
		}, 1)
	}
	mustDo(t, m, part(1, 0))
	var n uint32
	for m.partial(manifest.ChangesetID{Node: "n-1", Seq: 1}) != nil { // until the second has pushed the first out
		mustDo(t, m, part(2, n))
		n++
	}
	wantCode(t, m.Apply(part(1, 1)), CodeParts)
	for out := m.Apply(part(2, n)); ; out = m.Apply(part(2, n)) {
		if m.bufferedBytes() > MaxBuffered {
			t.Fatal("more is buffered than may be")
		}
		if n++; out.GetCode() != 0 {
			wantCode(t, out, CodeTooLarge)
			break
		}
	}
	if len(m.parts) != 0 {
		t.Fatalf("%d left", len(m.parts))
	}
	for seq := range uint64(maxPartial + 50) {
		m.Apply(part(seq+3, 0))
	}
	if len(m.parts) != maxPartial {
		t.Fatalf("%d changesets are under way, want at most %d", len(m.parts), maxPartial)
	}
}
