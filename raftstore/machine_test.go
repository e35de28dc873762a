package raftstore

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	gproto "google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
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

// ---- members, tokens, trees

func TestMembers(t *testing.T) {
	m := founded()
	set := func(c cluster.Member) *pb.Outcome {
		return m.Apply(&pb.Command{Format: Format, TimeNs: 5, Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: FromMember(c)}}})
	}
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "name-n-1"}), CodeNameTaken)
	wantCode(t, set(cluster.Member{ID: "n-4", Name: ""}), CodeMalformed)
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "\xff"}), CodeMalformed)
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "four", Address: "new", Epoch: 7}), Done)
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "four", Address: "old", Epoch: 6}), Done)
	if got := m.Members()[3]; got.Address != "new" || got.Joined != 5 || got.Epoch != 7 {
		t.Fatalf("member %+v", got)
	}
	gone := &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-4"}}}
	wantCode(t, m.Apply(gone), Done)
	wantCode(t, m.Apply(gone), Done) // again
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "four", Epoch: 8}), CodeRemoved)
	m = restored(t, snapshotOf(t, m))
	wantCode(t, set(cluster.Member{ID: "n-4", Name: "four", Epoch: 8}), CodeRemoved)
	wantCode(t, set(cluster.Member{ID: "n-5", Name: "four"}), Done) // the name is free again
	wantCode(t, m.Apply(&pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-9"}}}), CodeNotMember)
}

func TestTokens(t *testing.T) {
	m := founded()
	secret, wrong := manifest.DigestOf([]byte("secret")), manifest.DigestOf([]byte("wrong"))
	const expires = int64(time.Hour)
	mustDo(t, m, &pb.Command{Format: Format, TimeNs: 0, Do: &pb.Command_PutToken{PutToken: &pb.PutToken{
		Id: "k", SecretDigest: secret[:], ExpiresNs: expires, Uses: 2,
	}}})
	use := func(now int64, id string, secret manifest.Digest, node string) *pb.Outcome {
		return m.Apply(&pb.Command{Format: Format, TimeNs: now, Do: &pb.Command_UseToken{UseToken: &pb.UseToken{
			Id: id, SecretDigest: secret[:], Member: &pb.Member{Id: node, Name: "name-" + node, Store: "s-" + node},
		}}})
	}
	wantCode(t, use(1, "other", secret, "n-4"), CodeTokenUnknown)
	wantCode(t, use(1, "k", wrong, "n-4"), CodeTokenSecret)
	wantCode(t, use(1, "k", secret, "n-1"), CodeMemberExists)
	wantCode(t, use(expires, "k", secret, "n-4"), CodeTokenExpired)
	wantCode(t, use(1, "k", secret, "n-4"), Done)
	wantCode(t, use(1, "k", secret, "n-4"), Done) // the answer was lost
	m = restored(t, snapshotOf(t, m))
	wantCode(t, use(2, "k", secret, "n-5"), Done)
	wantCode(t, use(3, "k", secret, "n-6"), CodeTokenUsedUp)
	wantCode(t, use(expires+1, "k", secret, "n-5"), Done)
	if got := len(m.Members()); got != 5 {
		t.Fatalf("%d members, want 5", got)
	}
	wantCode(t, use(expires+tokenGrace+1, "k", secret, "n-6"), CodeTokenUnknown) // pruned
	if len(m.tokens) != 0 {
		t.Fatal("the token is still there")
	}
}

func TestTokensAreBounded(t *testing.T) {
	m := founded()
	secret := manifest.DigestOf(nil)
	for i := range maxTokens + 1 {
		mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_PutToken{PutToken: &pb.PutToken{
			Id: fmt.Sprint("k", i), SecretDigest: secret[:], ExpiresNs: int64(1000 + i), Uses: 1,
		}}})
	}
	if _, ok := m.tokens["k0"]; ok || len(m.tokens) != maxTokens {
		t.Fatalf("%d tokens; the one that expires first is there: %v", len(m.tokens), ok)
	}
}

func TestTreesAndCluster(t *testing.T) {
	m := founded()
	again := func(id string, gen uint64) {
		mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_PutTree{PutTree: &pb.PutTree{Name: "server", Id: id, Generation: gen}}})
	}
	again("t-other", 0)
	if got := m.Trees(); len(got) != 1 || got[0] != (TreeInfo{"server", "t-server", 1}) {
		t.Fatalf("trees %v", got)
	}
	again("t-other", 2)
	if got := m.Trees()[0]; got != (TreeInfo{"server", "t-server", 2}) {
		t.Fatalf("tree %v", got)
	}
	if _, ok := m.View("tenants"); ok {
		t.Fatal("a view of no tree")
	}
	init := func(id string) *pb.Outcome {
		return m.Apply(&pb.Command{Format: Format, Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: id, CaCertPem: []byte("ca")}}})
	}
	wantCode(t, init("c-1"), Done)
	wantCode(t, init("c-1"), Done)
	wantCode(t, init("c-2"), CodeInitialized)
	if id, ca, _ := m.Cluster(); id != "c-1" || string(ca) != "ca" {
		t.Fatalf("cluster %s %s", id, ca)
	}
}

// ---- history

func TestHistory(t *testing.T) {
	m := founded()
	mustDo(t, m, addTree("tenants"))
	for i := range uint64(6) {
		c := changeset(i+1, manifest.PerPath, write(fmt.Sprint("d", i), 0, dir))
		if i%2 == 1 {
			c.Tree = "tenants"
		}
		mustCommit(t, m, c)
	}
	list := func(commits []manifest.Commit) (revs []manifest.Revision) {
		for _, c := range commits {
			revs = append(revs, c.Revision)
		}
		return revs
	}
	check := func(what string, got []manifest.Commit, want string) {
		t.Helper()
		if s := fmt.Sprint(list(got)); s != want {
			t.Fatalf("%s: %s, want %s", what, s, want)
		}
	}
	since, ok := m.Since("server", 0)
	check("since 0", since, "[1 3 5]")
	check("history", m.History("", 0, 4), "[6 5 4 3]")
	check("history of a tree", m.History("tenants", 5, 9), "[4 2]")
	if since, ok = m.Since("server", 6); !ok || since != nil {
		t.Fatalf("since the newest: %v %v", since, ok)
	}
	trim := func(below uint64) {
		mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_TrimHistory{TrimHistory: &pb.TrimHistory{Below: below}}})
	}
	trim(4)
	trim(2) // never backwards
	if _, ok = m.Since("server", 2); ok || m.Oldest() != 4 {
		t.Fatalf("history reaches back to 3 after a trim to 4 (oldest %d)", m.Oldest())
	}
	since, ok = m.Since("server", 3)
	if check("since 3", since, "[5]"); !ok {
		t.Fatal("history should reach back to 4")
	}
	m = restored(t, snapshotOf(t, m))
	check("history after a restore", m.History("", 0, 9), "[6 5 4]")
	trim(1 << 60)
	check("history after a trim of all", m.History("", 0, 9), "[]")
	mustCommit(t, m, changeset(9, manifest.PerPath, write("d9", 0, dir)))
	check("history after that", m.History("", 0, 9), "[7]")
}

// ---- views and snapshots stay what they are

func TestViewsDoNotChange(t *testing.T) {
	m := founded()
	mustCommit(t, m, changeset(1, manifest.PerPath, write("f", 0, file("1"))))
	v, _ := m.View("server")
	frozen := m.Freeze()
	var before, after bytes.Buffer
	_, _ = frozen.WriteTo(&before)
	mustCommit(t, m, changeset(2, manifest.PerPath, write("f", 1, file("2")), write("g", 0, file("g"))))
	mustDo(t, m, &pb.Command{Format: Format, Do: &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: "n-3"}}})
	_, _ = frozen.WriteTo(&after)
	if v.Manifest.Len() != 1 || v.Manifest.Entry("f").Digest != file("1").Digest || !bytes.Equal(before.Bytes(), after.Bytes()) {
		t.Fatal("what was handed out has changed")
	}
}

func TestADamagedSnapshotChangesNothing(t *testing.T) {
	m := founded()
	mustCommit(t, m, changeset(1, manifest.PerPath, write("f", 0, file("1"))))
	good := snapshotOf(t, m)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if err := m.Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a flipped bit in byte %d of %d went unnoticed", i, len(good))
		}
		if err := m.Restore(bytes.NewReader(good[:i])); err == nil {
			t.Fatalf("a snapshot torn at byte %d of %d was accepted", i, len(good))
		}
	}
	if !bytes.Equal(good, snapshotOf(t, m)) {
		t.Fatal("the machine has changed")
	}
}
