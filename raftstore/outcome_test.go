package raftstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// Whoever proposed has to know whether to look for it: an error says that
// nothing was committed only where that is sure.
func TestAnErrorTellsWhetherTheOutcomeIsKnown(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	leader, others := c.leader(stores)
	brief := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		t.Cleanup(cancel)
		return ctx
	}

	// The leader writes it into its log and is alone with it. (Unless it has lost
	// its leadership before, on a busy machine: then that is so in truth.)
	nowhere := []string{"nowhere"}
	c.await(others[0], "a leader writes and is alone", func() bool {
		leader, others = c.leader(stores)
		c.net.cut(leader.cfg.ID, true)
		name := fmt.Sprint("alone-", len(nowhere))
		_, err := leader.Propose(brief(), makeDir(name))
		if err == nil {
			t.Error("committed without a majority")
		}
		if !errors.Is(err, cluster.ErrNotCommitted) {
			return true
		}
		nowhere = append(nowhere, name)
		c.net.cut(leader.cfg.ID, false)
		c.await(leader, "catches up", leader.CaughtUp)
		return false
	})
	// By now it knows that it leads no more: this one goes nowhere.
	c.await(leader, "no leader", func() bool { _, known := leader.Leader(); return !known })
	_, err := leader.Propose(brief(), makeDir("nowhere"))
	if !errors.Is(err, cluster.ErrNotCommitted) || !errors.Is(err, cluster.ErrNoQuorum) {
		t.Errorf("a node without a leader: %v", err)
	}
	c.net.cut(leader.cfg.ID, false)
	c.await(leader, "catches up", leader.CaughtUp)

	// What the machine refuses as a whole was not committed.
	elsewhere := makeDir("d")
	elsewhere.Tree = "elsewhere"
	var refused *OutcomeError
	if _, err = others[0].Propose(c.ctx(), elsewhere); !errors.Is(err, cluster.ErrNotCommitted) || !errors.As(err, &refused) {
		t.Errorf("a tree that is not there: %v", err)
	}
	c.must(leader.Barrier(c.ctx()))
	for _, name := range append(nowhere, "d") {
		if has(leader, name) {
			t.Errorf("%s was surely not committed, and stands in the tree", name)
		}
	}
}

// What the answering machine no longer remembers, or does not understand, may
// stand in the log of the others.
func TestARefusalAsAWholeIsSureOnlyWhereTheMachineKnows(t *testing.T) {
	for code, sure := range map[Code]bool{
		CodeMalformed: true, CodeUnknownTree: true, CodeReceipts: true, CodeTooLarge: true, CodeParts: true,
		CodeStale: false, CodeNotMember: false, CodeFormat: false,
	} {
		err := refusedWhole(refuse(code, "no"))
		if err == nil || errors.Is(err, cluster.ErrNotCommitted) != sure {
			t.Errorf("%s: %v", code, err)
		}
	}
	if err := refusedWhole(done()); err != nil {
		t.Error(err)
	}
}
