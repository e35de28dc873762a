package raftstore

import (
	"bytes"
	"fmt"
	"testing"

	gproto "google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// A few names, so that the commands meet: the same paths, nodes and sequences.
var (
	somePath  = rapid.SampledFrom([]string{"a", "b", "a/b", "a/c", "a/b/c", "a.x", "a/b/c/d", "../a", "", "a//b"})
	someNode  = rapid.SampledFrom([]string{"n-1", "n-2", "n-3", "n-4", "n-9"})
	someEntry = rapid.Custom(func(t *rapid.T) *pb.Entry {
		switch rapid.IntRange(0, 9).Draw(t, "entry") {
		case 0, 1, 2:
			return nil
		case 3, 4, 5:
			return proto.FromEntry(dir)
		case 6:
			return &pb.Entry{Kind: rapid.Uint32Range(0, 300).Draw(t, "kind")} // mostly malformed
		case 7:
			return proto.FromEntry(manifest.Entry{Kind: manifest.Symlink, Mode: 0o777, Size: 1, Digest: manifest.DigestOf([]byte("x")), Target: "x"})
		}
		return proto.FromEntry(file(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "content")))
	})
	someChangeset = rapid.Custom(func(t *rapid.T) *pb.Changeset {
		c := &pb.Changeset{
			Id:   &pb.ChangesetID{Node: someNode.Draw(t, "node"), Seq: rapid.Uint64Range(0, 200).Draw(t, "seq")},
			Tree: rapid.SampledFrom([]string{"server", "server", "server", "tenants", "none"}).Draw(t, "tree"),
			Mode: rapid.Uint32Range(0, 2).Draw(t, "mode"),
		}
		for range rapid.IntRange(0, 5).Draw(t, "changes") {
			c.Changes = append(c.Changes, &pb.Change{
				Path: []byte(somePath.Draw(t, "path")), Expect: rapid.Uint64Range(0, 12).Draw(t, "expect"), New: someEntry.Draw(t, "new"),
			})
		}
		for range rapid.IntRange(0, 3).Draw(t, "receipts") {
			n := someNode.Draw(t, "holder")
			c.Receipts = append(c.Receipts, &pb.Receipt{Node: n, Store: "s-" + n})
		}
		if rapid.IntRange(0, 5).Draw(t, "parted") == 0 {
			c.Parts = rapid.Uint32Range(0, 3).Draw(t, "parts")
			c.Part = rapid.Uint32Range(0, 3).Draw(t, "part")
		}
		return c
	})
	someCommand = rapid.Custom(func(t *rapid.T) *pb.Command {
		cmd := &pb.Command{Format: Format, TimeNs: rapid.Int64().Draw(t, "time")}
		node := someNode.Draw(t, "member")
		secret := manifest.DigestOf([]byte(rapid.SampledFrom([]string{"s", "t"}).Draw(t, "secret")))
		token := rapid.SampledFrom([]string{"k", "l"}).Draw(t, "token")
		switch rapid.IntRange(0, 19).Draw(t, "command") {
		case 0:
			cmd.Do = put(node).GetDo()
		case 1:
			cmd.Do = &pb.Command_RemoveMember{RemoveMember: &pb.RemoveMember{Id: node}}
		case 2:
			cmd.Do = &pb.Command_PutToken{PutToken: &pb.PutToken{Id: token, SecretDigest: secret[:], ExpiresNs: rapid.Int64().Draw(t, "expires"), Uses: rapid.Uint32Range(0, 2).Draw(t, "uses")}}
		case 3:
			cmd.Do = &pb.Command_UseToken{UseToken: &pb.UseToken{Id: token, SecretDigest: secret[:], Member: put(node).GetPutMember().GetMember()}}
		case 4:
			cmd.Do = addTree("tenants").GetDo()
		case 5:
			cmd.Do = &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: token}}
		case 6:
			cmd.Do = &pb.Command_TrimHistory{TrimHistory: &pb.TrimHistory{Below: rapid.Uint64Range(0, 9).Draw(t, "below")}}
		case 8:
			cmd.Do = &pb.Command_SetRole{SetRole: &pb.SetRole{Id: node, Role: rapid.SampledFrom([]string{"", "voter", "nonvoter", "x"}).Draw(t, "role")}}
		case 7:
			cmd.Format = rapid.Uint32Range(0, 3).Draw(t, "format")
		default:
			cmd.Do = &pb.Command_Propose{Propose: someChangeset.Draw(t, "changeset")}
		}
		return cmd
	})
)

// checkWhole states what holds after every command.
func checkWhole(t *rapid.T, m *Machine) {
	for _, info := range m.Trees() {
		v, _ := m.View(info.Name)
		v.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
			if p.Dir() != "" && !v.Manifest.Entry(p.Dir()).IsDir() {
				t.Fatalf("%q has no parent directory", p)
			}
			if n.Entry.Absent() || n.Entry.Validate() != nil || n.Revision == 0 || n.Revision > v.Revision {
				t.Fatalf("%q is %+v at revision %d", p, n, v.Revision)
			}
			return true
		})
	}
}

func TestPropertyEqualCommandsMakeEqualMachines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := founded(), founded()
		commands := rapid.SliceOfN(someCommand, 1, 40).Draw(t, "commands")
		reborn := rapid.IntRange(0, len(commands)).Draw(t, "restored at")
		for i, cmd := range commands {
			if i == reborn { // one of them goes through a snapshot on the way
				frozen := quickSnapshot(t, b)
				b = NewMachine()
				if err := b.Restore(bytes.NewReader(frozen)); err != nil {
					t.Fatalf("restore: %v", err)
				}
				if !bytes.Equal(frozen, quickSnapshot(t, b)) {
					t.Fatal("restore(freeze(m)) is not m")
				}
			}
			// One hears it from the log, the other as a value.
			entry, err := gproto.Marshal(cmd)
			if err != nil {
				t.Fatal(err)
			}
			outA, outB := a.ApplyEntry(entry), b.Apply(cmd)
			if !gproto.Equal(outA, outB) {
				t.Fatalf("command %d: %v here, %v there", i, outA, outB)
			}
			checkWhole(t, a)
		}
		if !bytes.Equal(quickSnapshot(t, a), quickSnapshot(t, b)) {
			t.Fatal("the machines differ")
		}
	})
}

func quickSnapshot(t *rapid.T, m *Machine) []byte {
	var b bytes.Buffer
	if _, err := m.Freeze().WriteTo(&b); err != nil {
		t.Fatalf("freeze: %v", err)
	}
	return b.Bytes()
}

func TestPropertyARetryChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := founded()
		for _, c := range rapid.SliceOfN(someChangeset, 1, 20).Draw(t, "changesets") {
			c.Parts, c.Part = 0, 0
			first := m.Apply(proposal(c, 1))
			before := quickSnapshot(t, m)
			again := m.Apply(proposal(c, 2))
			if !gproto.Equal(first, again) || !bytes.Equal(before, quickSnapshot(t, m)) {
				t.Fatalf("first %v, again %v", first, again)
			}
		}
	})
}

func TestPropertyAtomicIsAllOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := founded()
		for i := range rapid.IntRange(1, 20).Draw(t, "rounds") {
			c := someChangeset.Draw(t, "changeset")
			c.Id, c.Tree, c.Mode, c.Part, c.Parts = &pb.ChangesetID{Node: "n-1", Seq: uint64(i) + 1}, "server", rapid.Uint32Range(0, 1).Draw(t, "mode"), 0, 0
			before, _ := m.View("server")
			r := proto.ToResult(m.Apply(proposal(c, 1)).GetResult())
			after, _ := m.View("server")
			if c.GetMode() != uint32(manifest.Atomic) {
				continue
			}
			changed := 0
			manifest.Diff(before.Manifest, after.Manifest, func(manifest.Path, manifest.Node, manifest.Node) { changed++ })
			if len(r.Refused) > 0 && (changed > 0 || r.Revision != 0 || after.Revision != before.Revision) {
				t.Fatalf("%d refused and %d changed", len(r.Refused), changed)
			}
			if r.Revision != 0 { // then every change is in force
				for _, ch := range c.GetChanges() {
					want, _ := proto.ToEntry(ch.GetNew())
					if got := after.Manifest.Entry(manifest.Path(ch.GetPath())); !got.Same(want) {
						t.Fatalf("%q is %v, want %v", ch.GetPath(), got, want)
					}
				}
			}
		}
	})
}

// oracle is the dumb version of compare-and-set: a map, one path at a time, on
// flat names so that directories do not come into it.
type oracle map[string]manifest.Node

func (o oracle) change(c manifest.Change, rev manifest.Revision) (changed bool, refused manifest.Reason) {
	now := o[string(c.Path)]
	switch {
	case now.Entry.Same(c.New):
		return false, 0
	case now.Revision != c.Expect:
		return false, manifest.Conflict
	case c.New.Absent():
		delete(o, string(c.Path))
	default:
		o[string(c.Path)] = manifest.Node{Entry: c.New, Revision: rev, Author: "n-1"}
	}
	return true, 0
}

func TestPropertyCompareAndSetAgainstAnOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, o := founded(), oracle{}
		names := []string{"p", "q", "r", "s"}
		for i := range rapid.IntRange(1, 40).Draw(t, "rounds") {
			var changes []manifest.Change
			for _, name := range rapid.Permutation(names).Draw(t, "paths")[:rapid.IntRange(1, 4).Draw(t, "n")] {
				c := write(name, o[name].Revision, manifest.Entry{})
				if rapid.Bool().Draw(t, "stale") {
					c.Expect = manifest.Revision(rapid.IntRange(0, 10).Draw(t, "expect"))
				}
				if rapid.Bool().Draw(t, "put") {
					c.New = file(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "content"))
				}
				changes = append(changes, c)
			}
			rev, want := m.Revision()+1, manifest.Result{}
			reasons := map[manifest.Path]manifest.Reason{}
			for _, c := range changes {
				changed, reason := o.change(c, rev)
				if changed {
					want.Revision = rev
				}
				if reason != 0 {
					reasons[c.Path] = reason
				}
			}
			r := proto.ToResult(m.Apply(propose(changeset(uint64(i)+1, manifest.PerPath, changes...))).GetResult())
			got := map[manifest.Path]manifest.Reason{}
			for _, f := range r.Refused {
				got[f.Path] = f.Reason
				if f.Current != o[string(f.Path)].Revision {
					t.Fatalf("refusal %+v, the path is at %d", f, o[string(f.Path)].Revision)
				}
			}
			if r.Revision != want.Revision || fmt.Sprint(got) != fmt.Sprint(reasons) {
				t.Fatalf("got %+v, want revision %d and %v", r, want.Revision, reasons)
			}
			v, _ := m.View("server")
			if v.Manifest.Len() != len(o) {
				t.Fatalf("%d entries, want %d", v.Manifest.Len(), len(o))
			}
			for name, want := range o {
				if n, _ := v.Manifest.Get(manifest.Path(name)); n != want {
					t.Fatalf("%s is %+v, want %+v", name, n, want)
				}
			}
		}
	})
}

func TestPropertyHistoryReplaysToTheManifest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := founded()
		for _, cmd := range rapid.SliceOfN(someCommand, 1, 40).Draw(t, "commands") {
			if cmd.GetTrimHistory() == nil {
				m.Apply(cmd)
			}
		}
		commits, ok := m.Since("server", 0)
		if !ok {
			t.Fatal("history was never trimmed")
		}
		replayed := manifest.New()
		for _, c := range commits {
			for _, ch := range c.Changes {
				if was, _ := replayed.Get(ch.Path); was != ch.Old {
					t.Fatalf("revision %d: %q was %+v, the history says %+v", c.Revision, ch.Path, was, ch.Old)
				}
				if ch.New.Absent() {
					replayed.Delete(ch.Path)
				} else {
					replayed.Set(ch.Path, manifest.Node{Entry: ch.New, Revision: c.Revision, Author: c.ID.Node})
				}
			}
		}
		v, _ := m.View("server")
		manifest.Diff(replayed, v.Manifest, func(p manifest.Path, was, is manifest.Node) {
			t.Fatalf("%q is %+v, replayed %+v", p, is, was)
		})
	})
}
