package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/node"
)

// What a person is told first in states of trouble, and what not.
func TestAdvice(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	voters := func(third bool) []node.MemberStatus {
		return []node.MemberStatus{
			{Name: "gw1", Role: "voter", Votes: true, Alive: true}, {Name: "gw2", Role: "voter", Votes: true, Alive: true}, {Name: "gw3", Role: "voter", Votes: true, Alive: third},
		}
	}
	well := func() node.Status {
		return node.Status{
			Node:   node.NodeStatus{Role: "voter", CertificateBegins: now.Add(-time.Hour), CertificateExpires: now.Add(9000 * time.Hour)},
			Quorum: true, CaughtUp: true, Members: voters(true), Trees: []node.TreeStatus{{Name: "server"}},
		}
	}
	for _, tt := range []struct {
		name  string
		state func(*node.Status)
		want  []string // in the lines, in order; none: nothing needs attention
		never string
	}{
		{"well", func(*node.Status) {}, nil, ""},
		{"no quorum", func(s *node.Status) { s.Quorum, s.Members = false, voters(false) }, []string{"start the daemons of these voters:\n  gw3 has not been seen"}, "gatesync remove"},
		{
			"no quorum, with an edit and a follower that is down",
			func(s *node.Status) {
				s.Quorum, s.Members = false, append(voters(false), node.MemberStatus{Name: "edge", Role: "follower", Error: "refused"})
				s.Trees[0].Unsent, s.Trees[0].UnsentWhy = 1, "no quorum"
			},
			[]string{"no quorum", "tree server: 1 local edit not committed yet, for want of a quorum", "edge has not been seen since this daemon started: start its daemon\nrefused"}, "gatesync remove",
		},
		{"no leader", func(s *node.Status) { s.Quorum = false }, []string{"no leader: nothing can be committed just now"}, "start the daemons"},
		{"no quorum since the start", func(s *node.Status) { s.Quorum, s.CaughtUp, s.Members = false, false, voters(false) }, []string{"could not learn what is committed"}, "still reading"},
		{
			"removed",
			func(s *node.Status) {
				s.Quorum, s.Node.Role, s.Members = false, "removed", voters(false)[1:]
				s.Members[0].Alive = false
			},
			[]string{"this node was removed from the cluster"}, "start",
		},
		{
			"its own disk hangs",
			func(s *node.Status) {
				s.Quorum, s.Data = false, node.DataStatus{Path: "/d", Trouble: "the disk of /d hangs", Silent: true}
			},
			[]string{"data directory /d: the disk of /d hangs", "local edits wait"}, "start the daemons",
		},
		{"full", func(s *node.Status) { s.Data = node.DataStatus{Path: "/d", Trouble: "no room"} }, []string{"data directory /d: no room"}, ""},
		{
			"a tree that takes nothing",
			func(s *node.Status) {
				s.Trees[0].Failing, s.Trees[0].Busy = 2, 1
				s.Trees[0].Troubles = []node.TroubleStatus{{Path: "a.xml", Why: "no space"}}
			},
			[]string{"tree server: 3 paths do not go on; the first: a.xml: no space"}, "",
		},
		{
			"a mount that hangs",
			func(s *node.Status) {
				s.Trees[0].Root, s.Trees[0].Held, s.Trees[0].Busy = "/mnt/x: the mount does not answer", 1, 3
				s.Trees[0].Troubles = []node.TroubleStatus{{Path: "a.xml", Why: "the tree's root is lost"}}
			},
			[]string{"tree server: /mnt/x: the mount does not answer"}, "held back",
		},
		{
			"a root without its marker, and held paths",
			func(s *node.Status) { s.Trees[0].Root, s.Trees[0].Held = "no marker", 3 },
			[]string{"tree server: no marker", "2 paths held back"}, "",
		},
		{"edits that wait", func(s *node.Status) { s.Trees[0].Unsent, s.Trees[0].UnsentWhy = 1, "why" }, []string{"1 local edit not committed yet; tried again until it works: why"}, ""},
		{
			"share gone",
			func(s *node.Status) {
				s.Carriers = []node.CarrierStatus{{Name: "share", Path: "/mnt/x", Why: "the mount does not answer"}, {Name: "push", Well: true}}
			},
			[]string{"content is pushed meanwhile and nobody waits: the mount does not answer"}, "",
		},
		{
			"share that one cannot read",
			func(s *node.Status) {
				s.Carriers = []node.CarrierStatus{{Name: "share", Well: true, Doubts: map[string]string{"gw2": "permission denied"}}}
			},
			[]string{"gw2 could not read from the share lately and is sent the content instead: permission denied"}, "",
		},
		{"clock slow", func(s *node.Status) { s.Node.CertificateBegins = now.Add(time.Hour) }, []string{"the clock here is slow"}, ""},
		{"clock fast", func(s *node.Status) { s.Node.CertificateSoon, s.Node.CertificateExpires = true, now.Add(-time.Hour) }, []string{"has expired: check the clock here"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := well()
			tt.state(&s)
			got := advice(s, nil, now)
			all := strings.Join(got, "\n")
			if len(got) != len(tt.want) {
				t.Fatalf("%d lines, want %d:\n%s", len(got), len(tt.want), all)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("line %d is %q, want %q in it", i, got[i], want)
				}
			}
			if tt.never != "" && strings.Contains(all, tt.never) {
				t.Errorf("%q is said, which leads astray:\n%s", tt.never, all)
			}
		})
	}
}
