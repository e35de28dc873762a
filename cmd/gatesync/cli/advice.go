package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatesync/gatesync/node"
)

// advice says what is wrong and what to do about it, the gravest first. It is
// a pure function of a status.
func advice(s node.Status, names map[string]string, now time.Time) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }

	if s.Node.Role == "removed" {
		say("this node was removed from the cluster: to come back, join anew with a new data directory")
	}
	if !s.Quorum {
		say("no quorum: nothing can be committed. Gateways keep serving what they have, local edits wait.\nstart the daemons of: %s", orNone(deadVoters(s)))
	}
	if !s.CaughtUp {
		say("still reading the log; figures below are of the past")
	}
	for _, t := range s.Trees {
		adviseTree(t, say)
	}
	for _, l := range s.Blobs.Lost {
		say("CONTENT LOST: blob %s (%s) is missing since this disk was damaged, and no member that can be reached has it. It stands for:\n%s\nstart members that are off, or bring the files back from a backup; check the disk",
			l.Digest, size(l.Size), strings.Join(l.Where, "\n"))
	}
	if n := max(s.Blobs.Mended, s.Blobs.Corrupt); len(s.Blobs.Lost) == 0 && n > 0 {
		say("%s damaged or missing on this disk, %d brought back: check the disk", plural(int(n), "blob"), s.Blobs.Mended)
	}
	for _, m := range s.Members {
		if !m.Alive {
			adviseDead(m, s, now, say)
		}
	}
	if left := s.Node.CertificateExpires.Sub(now); !s.Node.CertificateExpires.IsZero() && left < 30*24*time.Hour {
		if left <= 0 {
			say("this node's certificate has expired: check the clock; if it is right, join anew with a new data directory")
		} else {
			say("this node's certificate ends in %s; it renews itself as soon as a member with the CA's key answers (bring a new one if you use your own PKI)", duration(left))
		}
	}
	return out
}

func adviseTree(t node.TreeStatus, say func(string, ...any)) {
	if t.Root != "" {
		say("tree %s: %s", t.Name, t.Root)
	}
	if t.Held > 0 {
		say("tree %s: %s held back by guards: see `gatesync held`, then `gatesync approve` (spread it) or `gatesync restore` (put the cluster's state back)", t.Name, plural(t.Held, "path"))
	}
	if t.Conflicts > 0 {
		say("tree %s: %s kept aside: see `gatesync conflicts`", t.Name, plural(t.Conflicts, "edit")+" that lost a conflict")
	}
	if t.Rejected > 0 {
		say("tree %s: the gateway here rejected %s: correct the artifact, or `gatesync retry`", t.Name, plural(t.Rejected, "path"))
	}
	if t.LagSeconds > 5 {
		say("tree %s is %s behind the cluster", t.Name, duration(time.Duration(t.LagSeconds*float64(time.Second))))
	}
	for _, n := range t.Notices {
		say("tree %s: %s", t.Name, n)
	}
}

func adviseDead(m node.MemberStatus, s node.Status, now time.Time, say func(string, ...any)) {
	seen := "has not been seen since this daemon started"
	if m.LastSeen != nil {
		seen = "was last seen " + ago(now.Sub(*m.LastSeen))
	}
	why := ""
	if m.Error != "" {
		why = "\n" + m.Error
	}
	say("%s %s: start its daemon, or `gatesync remove %s` if it is gone for good%s", m.Name, seen, m.Name, why)
}

func deadVoters(s node.Status) []string {
	var dead []string
	for _, m := range s.Members {
		if m.Role == "voter" && !m.Alive {
			dead = append(dead, m.Name)
		}
	}
	return dead
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "(all voters are alive; an election may be under way)"
	}
	return strings.Join(names, ", ")
}
