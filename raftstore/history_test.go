package raftstore

import (
	"fmt"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

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
	if check("since 0", since, "[1 3 5]"); !ok {
		t.Fatal("the history was never trimmed")
	}
	check("history", m.History("", 0, 4), "[6 5 4 3]")
	check("history without a limit", m.History("", 0, 0), "[6 5 4 3 2 1]")
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
