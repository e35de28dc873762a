package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gatesync/gatesync/fallback"
)

// carried is what `status --json` says of a carrier.
type carried struct {
	Name          string   `json:"name"`
	SentBytes     int64    `json:"sent_bytes"`
	ReceivedBytes int64    `json:"received_bytes"`
	Well          bool     `json:"well"`
	Why           string   `json:"why"`
	Members       []string `json:"members"`
}

// carrier asks a node about one of its carriers.
func (n *node) carrier(name string) (carried, error) {
	var s struct {
		Carriers []carried `json:"carriers"`
	}
	a := n.ask("status", "--json")
	if err := json.Unmarshal([]byte(a.stdout), &s); err != nil {
		return carried{}, fmt.Errorf("status of %s: %w: %s%s", n.name, err, a.stdout, a.stderr)
	}
	i := slices.IndexFunc(s.Carriers, func(c carried) bool { return c.Name == name })
	if i < 0 {
		return carried{}, fmt.Errorf("%s has no carrier %s", n.name, name)
	}
	return s.Carriers[i], nil
}

// waitShared waits until every node uses the share with all others.
func (c *cluster) waitShared(limit time.Duration) {
	c.t.Helper()
	eventually(c.t, limit, "the share is used by all", func() error {
		for _, n := range c.nodes {
			s, err := n.carrier("share")
			if err != nil {
				return err
			}
			if !s.Well || len(s.Members) != len(c.nodes)-1 {
				return fmt.Errorf("%s: %+v", n.name, s)
			}
		}
		return nil
	})
}

// Local trees, one directory in common: content is written there once and read
// by the others. When it is gone it is pushed, and when it is back it is used
// again; the trees never notice.
func TestPromise_Converge_ShareCarriesWhileItIsThere(t *testing.T) {
	t.Parallel()
	share := filepath.Join(t.TempDir(), "share")
	marker := filepath.Join(share, fallback.ShareMarker)
	if err := errors.Join(os.Mkdir(share, 0o755), os.WriteFile(marker, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, 3, "--share", share)
	c.waitShared(30 * time.Second)
	size := 0
	put := func(n *node, name string) {
		t.Helper()
		b := make([]byte, 300_000)
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		size = len(b)
		if err := os.WriteFile(filepath.Join(n.tree, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		c.waitEqual(20 * time.Second)
	}
	// It is laid there once, and each of the others reads it there. (One that hears of
	// the revision before it has heard of what is laid there fetches it from a node,
	// and a share on which a flush takes seconds is not waited for: so again, then.)
	carries := func(n *node) {
		t.Helper()
		try := 0
		moved := func() (laid int64, there, elsewhere []int64) {
			s, err := n.carrier("share")
			for _, o := range c.except(n) {
				at, err1 := o.carrier("share")
				by, err2 := o.carrier("push")
				there, elsewhere, err = append(there, at.ReceivedBytes), append(elsewhere, by.ReceivedBytes), errors.Join(err, err1, err2)
			}
			if err != nil {
				t.Fatal(err)
			}
			return s.SentBytes, there, elsewhere
		}
		eventually(t, 30*time.Second, "the share carries what "+n.name+" writes", func() error {
			c.waitShared(30 * time.Second)
			laid, there, elsewhere := moved()
			try++
			put(n, fmt.Sprintf("carried-from-%s-%d", n.name, try))
			laidNow, thereNow, elsewhereNow := moved()
			for i := range there {
				if thereNow[i]-there[i] != int64(size) || elsewhereNow[i] != elsewhere[i] {
					return fmt.Errorf("another one read %d bytes there and %d elsewhere, want %d", thereNow[i]-there[i], elsewhereNow[i]-elsewhere[i], size)
				}
			}
			if laidNow-laid != int64(size) {
				return fmt.Errorf("%d bytes were laid there, want %d", laidNow-laid, size)
			}
			return nil
		})
	}
	carries(c.nodes[0])
	if err := os.Rename(share, share+".away"); err != nil {
		t.Fatal(err)
	}
	put(c.nodes[1], "second")
	eventually(t, 20*time.Second, "status tells", func() error {
		s, err := c.nodes[1].carrier("share")
		if err == nil && (s.Well || s.Why == "") {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	put(c.nodes[2], "third")
	// What is made where the share was is no share: nothing is written there.
	if err := os.Mkdir(share, 0o755); err != nil {
		t.Fatal(err)
	}
	put(c.nodes[0], "fourth")
	if left, err := os.ReadDir(share); err != nil || len(left) != 0 {
		t.Errorf("in the empty directory: %v %v", left, err)
	}
	if err := errors.Join(os.Remove(share), os.Rename(share+".away", share)); err != nil {
		t.Fatal(err)
	}
	carries(c.nodes[2])
}
