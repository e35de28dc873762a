package target

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/gatesync/gatesync/vfs"
)

// treeState is what a target remembers of a tree beside its records: who
// pushed, and how much was deleted of late.
type treeState struct {
	Cluster     string    `json:"cluster,omitempty"`     // whose trees stand here
	Incarnation uint64    `json:"incarnation,omitempty"` // of that cluster
	Revision    uint64    `json:"revision,omitempty"`    // of its newest push
	Deletes     []deleted `json:"deletes,omitempty"`
}

type deleted struct {
	At    time.Time `json:"at"`
	Count int       `json:"count"`
}

// deleteWindow is the window of the mass-deletion guard.
const deleteWindow = time.Minute

func readState(file string) (s treeState, err error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read %s: %w; remove it: it says only who pushed last", file, err)
	}
	return s, nil
}

// write replaces the file, flushed: an epoch that was seen stays seen.
func (s treeState) write(file string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return vfs.ReplaceFile(file, append(b, '\n'), 0o600)
}

// admit tells whether a pusher may work, and remembers it: of one life of a
// cluster never an older revision than the newest. Whether it is the newest
// pusher the fence says.
func (s *treeState) admit(cluster string, incarnation, revision uint64) error {
	if cluster == "" { // a person
		return nil
	}
	if s.Cluster == cluster {
		switch {
		case incarnation < s.Incarnation:
			return refused(CodeStale, "this target was pushed to by a newer life of this cluster (incarnation %d, this is %d): this node has not heard of its recovery", s.Incarnation, incarnation)
		case incarnation == s.Incarnation && revision < s.Revision:
			return refused(CodeStale, "revision %d was pushed here, and this is revision %d: this node is behind its cluster; `gatesync wait` on it, then push again", s.Revision, revision)
		}
	}
	s.Cluster, s.Incarnation, s.Revision = cluster, incarnation, revision
	return nil
}

// recent counts what was deleted within the window. A clock that was set back
// counts for it.
func (s *treeState) recent(now time.Time) (n int) {
	keep := s.Deletes[:0]
	for _, d := range s.Deletes {
		if age := now.Sub(d.At); age < deleteWindow && age > -deleteWindow {
			keep = append(keep, d)
			n += d.Count
		}
	}
	s.Deletes = keep
	return n
}
