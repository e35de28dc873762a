//go:build gatesync_nextformat

package raftstore

import (
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// The next version behaves as the one before it until the log says otherwise,
// and from that entry on in the new way, also after a snapshot.
func TestNextVersionWaitsForTheActiveFormat(t *testing.T) {
	m := founded()
	mustCommit(t, m, changeset(1, manifest.PerPath, write("a", 0, dir)))
	for _, id := range []string{"n-1", "n-2", "n-3"} {
		mustDo(t, m, knowing(id, Newest))
	}
	mustCommit(t, m, changeset(2, manifest.PerPath, write("b", 0, dir)))
	mustDo(t, m, raise(Newest))
	m = restored(t, snapshotOf(t, m))
	mustCommit(t, m, changeset(3, manifest.PerPath, write("c", 0, dir)))
	for i, want := range []string{"[format 3]", "", ""} {
		if got := m.History("server", 0, 10)[i].Message; got != want {
			t.Errorf("%d before the newest: message %q, want %q", i, got, want)
		}
	}
	// Members that do not understand it cannot come in any more.
	wantCode(t, m.Apply(knowing("n-4", Format)), CodeFormat)
}
