package raftstore

import (
	"context"
	"errors"
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

	// The leader writes it into its log and is alone with it.
	c.net.cut(leader.cfg.ID, true)
	_, err := leader.Propose(brief(), makeDir("alone"))
	if err == nil || errors.Is(err, cluster.ErrNotCommitted) {
		t.Errorf("a leader that was cut off after it wrote: %v", err)
	}
	// By now it knows that it leads no more: this one goes nowhere.
	c.await(leader, "no leader", func() bool { _, known := leader.Leader(); return !known })
	_, err = leader.Propose(brief(), makeDir("nowhere"))
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
	if has(leader, "nowhere") || has(leader, "d") {
		t.Error("what was surely not committed stands in the tree")
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
