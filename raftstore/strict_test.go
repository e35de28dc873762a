package raftstore

import (
	"bytes"
	"io"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A member that plays the leader sends what would end the process, some of it
// again at each start, or wedge the term for good. All of it is refused, and the
// cluster goes on, also after a restart.
func TestPromise_Available_WhatNoLeaderSaysIsRefused(t *testing.T) {
	c := newTestCluster(t)
	stores := c.found(3)
	_, others := c.leader(stores)
	victim := others[0]
	evil := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: newStream(c.net.layer(t, "n-evil"), "n-evil"), Logger: newRaftLogger(slog.New(slog.DiscardHandler)), MaxPool: 1, Timeout: 5 * time.Second,
	})
	defer evil.Close()
	defer evil.CloseStreams()
	id, to := raft.ServerID(victim.cfg.ID), raft.ServerAddress(victim.cfg.ID)
	term, last := victim.raft.CurrentTerm()+1, victim.raft.LastIndex()
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("n-evil"), Addr: []byte("n-evil")}
	var prev raft.Log
	c.must(victim.disk.GetLog(last, &prev))
	voter := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "n-evil", Address: "n-evil"}}})

	appends := func(term, index uint64, entries ...*raft.Log) error {
		return evil.AppendEntries(id, to, &raft.AppendEntriesRequest{
			RPCHeader: header, Term: term, PrevLogEntry: index, PrevLogTerm: prev.Term, Entries: entries,
		}, new(raft.AppendEntriesResponse))
	}
	snapshot := func(version raft.SnapshotVersion, index uint64, conf []byte) error {
		return evil.InstallSnapshot(id, to, &raft.InstallSnapshotRequest{
			RPCHeader: header, SnapshotVersion: version, Term: term, LastLogIndex: index, LastLogTerm: 1, Configuration: conf, Size: 4,
		}, new(raft.InstallSnapshotResponse), io.LimitReader(bytes.NewReader([]byte("none")), 4))
	}
	for what, say := range map[string]func() error{
		"an entry of no known type": func() error { return appends(term, last, &raft.Log{Index: last + 1, Term: term, Type: 77}) },
		"an old kind of configuration": func() error {
			return appends(term, last, &raft.Log{Index: last + 1, Term: term, Type: raft.LogAddPeerDeprecated, Data: []byte("x")})
		},
		"a configuration that is none": func() error {
			return appends(term, last, &raft.Log{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: []byte("x")})
		},
		"an entry that is none":            func() error { return appends(term, last, nil) },
		"an entry behind a gap":            func() error { return appends(term, last, &raft.Log{Index: last + 1000, Term: term}) },
		"an entry of a later term":         func() error { return appends(term, last, &raft.Log{Index: last + 1, Term: term + 1}) },
		"a term beyond all others":         func() error { return appends(math.MaxUint64, last) },
		"a heartbeat of such a term":       func() error { return appends(math.MaxUint64, 0) },
		"a snapshot with no configuration": func() error { return snapshot(1, last, []byte("x")) },
		"a snapshot of an old version":     func() error { return snapshot(0, last, voter) },
		"a snapshot beyond all entries":    func() error { return snapshot(1, math.MaxUint64, voter) },
		"a vote in a term beyond all": func() error {
			return evil.RequestVote(id, to, &raft.RequestVoteRequest{RPCHeader: header, Term: math.MaxUint64, LastLogIndex: math.MaxUint64, LastLogTerm: math.MaxUint64}, new(raft.RequestVoteResponse))
		},
	} {
		if err := say(); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	c.mkdir(victim, "goes-on")
	if now := victim.raft.CurrentTerm(); now > term+100 {
		t.Errorf("the term is %d", now)
	}
	c.close(victim)
	victim = c.open(victim.cfg.ID)
	c.mkdir(victim, "after-a-start")
	c.agree(victim, others[1])
}

// What is sent between members in their right mind passes.
func TestSoundEntriesPass(t *testing.T) {
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "n-1", Address: "n-1"}}})
	for prev := range uint64(3) {
		a := &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: prev}
		for i, kind := range []raft.LogType{raft.LogCommand, raft.LogNoop, raft.LogBarrier, raft.LogConfiguration} {
			a.Entries = append(a.Entries, &raft.Log{Index: prev + 1 + uint64(i), Term: 7 - uint64(i)/2, Type: kind, Data: conf})
		}
		if err := soundEntries(a); err != nil {
			t.Error(err)
		}
	}
	joiner := &raft.InstallSnapshotRequest{SnapshotVersion: raft.SnapshotVersionMax, Term: 9, LastLogTerm: 9, LastLogIndex: 1 << 39, Configuration: conf}
	if err := soundSnapshot(joiner, 0); err != nil {
		t.Error(err)
	}
}
