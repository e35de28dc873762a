package node

import (
	"testing"

	"github.com/gatesync/gatesync/syncer"
)

// Until it is known where a tree lies its status says so, and what is waited for.
func TestStorageIsUnknownUntilItIsKnown(t *testing.T) {
	for want, at := range map[string]syncer.Place{
		storageUnknown: {Unknown: true, Why: "waiting for gw2"},
		"local":        {},
	} {
		ts := TreeStatus{Storage: storageUnknown, StorageWhy: "the tree does not answer"}
		(&Node{}).placeStatus(&ts, at)
		if ts.Storage != want || ts.StorageWhy != at.Why {
			t.Errorf("%+v is told as %q, because %q", at, ts.Storage, ts.StorageWhy)
		}
	}
}
