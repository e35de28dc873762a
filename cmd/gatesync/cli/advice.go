package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/node"
)

// advice says what is wrong and what to do about it, the gravest first. It is
// a pure function of a status.
func advice(s node.Status, names map[string]string, now time.Time) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }

	removed := s.Node.Role == roleRemoved
	if removed {
		say("this node was removed from the cluster; what is shown of the others is of the past. The gateway here keeps serving what it has.\nto come back, stop its daemon; then " + cluster.JoinAgain)
	}
	if s.DoubtedLife != "" {
		say("%s", s.DoubtedLife)
	}
	if s.Data.Trouble != "" {
		say("data directory %s: %s", showPath(s.Data.Path), s.Data.Trouble)
	}
	switch {
	case removed:
	case s.Data.Silent:
		say("what is shown of the others is of the past; they go on without this node where they are a majority. The gateway here keeps serving what it has, local edits wait")
	case !s.Quorum:
		adviseQuorum(s, now, say)
	case !s.CaughtUp:
		say("still reading the log; the figures above are of the past")
	}
	if len(s.Members) == 2 && !removed {
		say("two nodes tolerate no failure: add a third one, a gateway or a witness (`gatesync join … --witness`)")
	}
	for _, t := range s.Trees {
		adviseTree(t, s.Quorum, say)
	}
	for _, c := range s.Carriers {
		adviseShare(c, say)
	}
	for _, t := range s.Targets {
		if t.Error != "" && t.State != target.KeptCurrent {
			say("target %s (%s), pushed to by %s: %s", t.Name, t.State, t.Pusher, t.Error)
		}
	}
	for _, l := range s.Blobs.Lost {
		say("CONTENT LOST: blob %s (%s) is missing since this disk was damaged, and no member that can be reached has it. It stands for:\n%s\nstart members that are off, or bring the files back from a backup; check the disk",
			l.Digest, size(l.Size), strings.Join(l.Where, "\n"))
	}
	if n := max(s.Blobs.Mended, s.Blobs.Corrupt); len(s.Blobs.Lost) == 0 && n > 0 {
		say("%s damaged or missing on this disk, %d brought back: check the disk", plural(int(n), "blob"), s.Blobs.Mended)
	}
	for _, m := range s.Members {
		if !removed {
			adviseMember(m, s, now, say)
		}
	}
	if s.Node.CertificateBegins.After(now) {
		say("this node's certificate begins on %s: the clock here is slow; set it, and all goes on by itself", stamp(s.Node.CertificateBegins.UnixNano()))
	}
	adviseFormat(s, say)
	adviseCA(s, now, say)
	if left := s.Node.CertificateExpires.Sub(now); s.Node.CertificateSoon {
		if left <= 0 {
			say("this node's certificate has expired: check the clock here; if it is right, " + cluster.ReplaceSelf)
		} else {
			say("this node's certificate ends in %s; it renews itself as soon as this node has read the log or a member answers (bring a new one if you use your own PKI)", duration(left))
		}
	}
	return out
}

// adviseShare tells why content does not travel over the share. Nothing waits
// for that.
func adviseShare(c node.CarrierStatus, say func(string, ...any)) {
	if c.Name == "share" && !c.Well {
		say("the share cannot be used; content is pushed meanwhile and nobody waits: %s", c.Why)
	}
	for _, member := range slices.Sorted(maps.Keys(c.Doubts)) {
		say("%s could not read from the share lately and is sent the content instead: %s", member, c.Doubts[member])
	}
}

// adviseFormat names the old versions that hold the others back, once others
// are newer.
func adviseFormat(s node.Status, say func(string, ...any)) {
	if len(s.Format.Waits) > 0 {
		say("the cluster still uses format %d of the log, this version knows %d: upgrade gatesync on %s (or `gatesync remove` who is gone for good); the rest happens by itself",
			s.Format.Active, s.Format.Newest, strings.Join(s.Format.Waits, ", "))
	}
}

// caSoon is how long before a CA's end its replacement is advised.
const caSoon = 180 * 24 * time.Hour

func adviseCA(s node.Status, now time.Time, say func(string, ...any)) {
	c := s.CA.Replacing
	switch {
	case c != nil && c.Step == "renew" && len(c.Waits) == 0 && len(c.Dead) > 0:
		say("the old CA stays trusted until %s has a certificate of the new one: start its daemon; or `gatesync remove` it, or `gatesync rotate-ca --finish` (it then has to come back with `gatesync join … --again`)", strings.Join(c.Dead, ", "))
	case c != nil && len(c.Waits) == 0 && len(c.Dead) > 0:
		say("the new CA waits for %s: start its daemon, or `gatesync remove` it", strings.Join(c.Dead, ", "))
	case c == nil && !s.CA.Expires.IsZero() && s.CA.Expires.Sub(now) < caSoon && s.CA.Own:
		say("the CA of this node's certificate ends in %s: bring certificates of a new one", duration(s.CA.Expires.Sub(now)))
	case c == nil && !s.CA.Expires.IsZero() && s.CA.Expires.Sub(now) < caSoon:
		say("the cluster's CA ends in %s: replace it with `gatesync rotate-ca`; nothing stops meanwhile", duration(s.CA.Expires.Sub(now)))
	}
}

// roleRemoved is the role of a node that the others do not know any more.
const roleRemoved = "removed"

// adviseQuorum says once, for all voters that are down, what is the matter.
func adviseQuorum(s node.Status, now time.Time, say func(string, ...any)) {
	var dead []string
	for _, m := range s.Members {
		if m.Votes && !m.Alive {
			dead = append(dead, "  "+m.Name+" "+lastSeen(m, now))
		}
	}
	read := ""
	if !s.CaughtUp {
		read = "\nsince its start this node could not learn what is committed: the figures above are of the past"
	}
	if len(dead) == 0 {
		say("no leader: nothing can be committed just now. All voters are alive, so an election may be under way: look again in some seconds%s", read)
		return
	}
	say("no quorum: nothing can be committed. Gateways keep serving what they have, local edits wait.%s\nstart the daemons of these voters:\n%s\nif a majority is gone for good: `gatesync recover -h`", read, strings.Join(dead, "\n"))
}

func adviseTree(t node.TreeStatus, quorum bool, say func(string, ...any)) {
	if t.Root != "" {
		say("tree %s: %s", t.Name, t.Root)
	}
	switch {
	case t.Unsent > 0 && !quorum:
		say("tree %s: %s not committed yet, for want of a quorum; tried again until it works", t.Name, plural(t.Unsent, "local edit"))
	case t.Unsent > 0:
		say("tree %s: %s not committed yet; tried again until it works: %s", t.Name, plural(t.Unsent, "local edit"), t.UnsentWhy)
	}
	held := t.Held - t.Edited
	if t.Root != "" {
		held-- // the root itself, which was told of: nobody shall approve a hung mount
	}
	if n := len(t.Troubles); n > 0 && t.Root == "" {
		say("tree %s: %s not go on; the first: %s: %s", t.Name, doesOrDo(t.Busy+t.Failing), showPath(t.Troubles[0].Path), t.Troubles[0].Why)
	}
	if n := len(t.EditedPaths); n > 0 {
		more := ""
		if t.Edited > n {
			more = " …"
		}
		paths := make([]string, n)
		for i, e := range t.EditedPaths {
			paths[i] = showPath(e.Path)
		}
		say("tree %s: %s not spread, for this node's tree takes no edits (write: never): %s%s; `gatesync restore` puts the cluster's state back, `gatesync approve PATH` spreads one all the same",
			t.Name, plural(t.Edited, "local edit"), strings.Join(paths, ", "), more)
	}
	if held > 0 {
		say("tree %s: %s held back by guards: see `gatesync held`, then `gatesync approve` (spread it) or `gatesync restore` (put the cluster's state back)", t.Name, plural(held, "path"))
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

func adviseMember(m node.MemberStatus, s node.Status, now time.Time, say func(string, ...any)) {
	switch {
	case !m.Alive && m.Votes && !s.Quorum && !s.Data.Silent: // adviseQuorum has named it
	case !m.Alive:
		adviseDead(m, s, now, say)
	case len(m.Nowhere) > 0:
		say("%s lacks %s of the cluster's content, and no member that answers has:\n%s\nstart members that are off, or put a file with that content into a tree; until then it counts as behind",
			m.Name, plural(m.Missing, "blob"), strings.Join(m.Nowhere, "\n"))
	case m.Missing > 0:
		say("%s lacks %s of the cluster's content: it fetches what living members have", m.Name, plural(m.Missing, "blob"))
	}
}

func adviseDead(m node.MemberStatus, s node.Status, now time.Time, say func(string, ...any)) {
	gone := ""
	if s.Quorum { // without one nobody can be removed
		gone = fmt.Sprintf(", or `gatesync remove %s` if it is gone for good", m.Name)
	}
	seen, why, told := strings.Cut(lastSeen(m, now), ": ")
	if told {
		why = "\n" + why
	}
	say("%s %s: start its daemon%s%s", m.Name, seen, gone, why)
}

// lastSeen tells since when a member is silent and, where it is known, why.
func lastSeen(m node.MemberStatus, now time.Time) string {
	seen := "has not been seen since this daemon started"
	if m.LastSeen != nil {
		seen = "was last seen " + ago(now.Sub(*m.LastSeen))
	}
	if m.Error != "" {
		seen += ": " + m.Error
	}
	return seen
}

func doesOrDo(paths int) string {
	if paths == 1 {
		return "1 path does"
	}
	return plural(paths, "path") + " do"
}
