package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/node"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// watchEvery is how often `status --watch` looks.
const watchEvery = time.Second

func (a *app) statusCmd() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show members, trees, and what needs attention",
		Long: `Show this node's view of the cluster: who leads and who is alive, how far each
tree is, what is held or in conflict, and what to do about it.

Exits 1 when the daemon does not run or the node was removed from the cluster,
and 5 when there is no quorum.`,
		Example: `  gatesync status --data-dir /var/lib/gatesync
  gatesync status --data-dir /var/lib/gatesync --json | jq .revision
  gatesync status --data-dir /var/lib/gatesync --watch`,
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "print again each second until interrupted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if watch {
			return a.watchStatus(cmd.Context())
		}
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			s, err := status(cmd.Context(), c)
			if err != nil {
				return err
			}
			if err := a.showStatus(s); err != nil {
				return err
			}
			switch {
			case s.Node.Role == roleRemoved:
				return silent(cluster.ErrNotMember)
			case !s.Quorum:
				return silent(cluster.ErrNoQuorum)
			}
			return nil
		})
	}
	return a.jsonFlag(cmd)
}

func (a *app) showStatus(s node.Status) error {
	if a.json {
		return a.printJSON(s)
	}
	writeStatus(a.Stdout, s, time.Now())
	return nil
}

// watchStatus prints the status until interrupted, also through a restart of
// the daemon.
func (a *app) watchStatus(ctx context.Context) error {
	clear := ""
	if isTerminal(a.Stdout) && !a.json {
		clear = "\x1b[H\x1b[2J"
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		err := a.withLocal(ctx, func(c pb.LocalClient) error {
			s, err := status(ctx, c)
			if err != nil {
				return err
			}
			if a.json {
				return a.printLine(s)
			}
			fmt.Fprint(a.Stdout, clear)
			return a.showStatus(s)
		})
		var off *local.NotRunningError
		switch {
		case ctx.Err() != nil:
			return nil // interrupted by the person who watched
		case errors.As(err, &off):
			fmt.Fprintf(a.Stdout, "%s%s\n", clear, off)
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// writeStatus prints a status for people.
func writeStatus(w io.Writer, s node.Status, now time.Time) {
	names := memberNames(s)
	head := [][]string{
		{"node", fmt.Sprintf("%s (%s), %s, up %s", s.Node.Name, s.Node.ID, roleForPeople(s.Node.Role), duration(now.Sub(s.Node.Started).Round(time.Second)))},
		{"cluster", s.Cluster},
		{"leader", leaderName(s, names)},
		{"quorum", quorumLine(s)},
		{"revision", count(s.Revision)},
	}
	if !s.Node.CertificateExpires.IsZero() {
		head = append(head, []string{"certificate", certificateLine(s, now)})
	}
	if s.CaughtUp && s.Format.Newest > s.Format.Active {
		head = append(head, []string{"log format", fmt.Sprintf("%d (this node understands %d)", s.Format.Active, s.Format.Newest)})
	}
	for _, c := range s.Carriers {
		if c.Name == "share" {
			head = append(head, []string{"share", shareLine(c, now)})
		}
	}
	table(w, head)

	fmt.Fprintln(w)
	members := [][]string{{"MEMBER", "ROLE", "ADDRESS", "ALIVE", "APPLIED"}}
	for _, m := range s.Members {
		members = append(members, memberRow(s, m, now))
	}
	table(w, members)
	if line := proxyLine(s); line != "" {
		fmt.Fprintln(w, line)
	}

	fmt.Fprintln(w)
	writeTrees(w, s)
	if len(s.Targets) > 0 {
		fmt.Fprintln(w)
		writeTargets(w, s.Targets, now)
	}
	if todo := advice(s, names, now); len(todo) > 0 {
		fmt.Fprintln(w, "\nneeds attention:")
		for _, line := range todo {
			fmt.Fprintf(w, "  ! %s\n", strings.ReplaceAll(line, "\n", "\n    "))
		}
	}
}

func writeTrees(w io.Writer, s node.Status) {
	if len(s.Trees) == 0 {
		fmt.Fprintln(w, "no trees: this node is a witness, it holds the log and the content of all trees")
		return
	}
	trees := [][]string{{"TREE", "FILES", "SIZE", "APPLIED", "HELD", "CONFLICTS", "REJECTED", "BUSY", "PATH"}}
	for _, t := range s.Trees {
		trees = append(trees, []string{
			t.Name, count(t.Files), size(t.Bytes), count(t.Applied),
			count(t.Held), count(t.Conflicts), count(t.Rejected), count(t.Busy), showPath(t.Path),
		})
	}
	table(w, trees)
	for _, t := range s.Trees {
		if line := placeLine(t); line != "" {
			fmt.Fprintln(w, line)
		}
		if line := directionLine(t); line != "" {
			fmt.Fprintln(w, line)
		}
	}
}

// placeLine tells of a directory that other nodes have too; "" for a node's own.
func placeLine(t node.TreeStatus) string {
	switch {
	case t.StorageWhy != "":
		return t.Name + ": nothing is done yet: " + t.StorageWhy
	case t.Storage != "direct":
		return ""
	case t.Steward == "":
		return t.Name + ": other nodes have the same directory; nobody is its steward just now"
	}
	return fmt.Sprintf("%s: other nodes have the same directory; %s is its steward", t.Name, t.Steward)
}

// proxyLine names the members behind an HTTP proxy; "" where there are none.
func proxyLine(s node.Status) string {
	proxy := ""
	var via []string
	for _, m := range s.Members {
		if m.Proxy != "" {
			proxy, via = m.Proxy, append(via, m.Name)
		}
	}
	if proxy == "" {
		return ""
	}
	return fmt.Sprintf("through the proxy %s (the daemon's HTTPS_PROXY; NO_PROXY exempts hosts): %s", proxy, strings.Join(via, ", "))
}

// directionLine tells of a tree that takes no edits; "" for all others.
func directionLine(t node.TreeStatus) string {
	if t.Write != "never" {
		return ""
	}
	line := fmt.Sprintf("%s: takes no edits (write: never, edits: %s)", t.Name, t.Edits)
	if t.Repaired > 0 {
		line += fmt.Sprintf("; %s put back since the start, see `gatesync conflicts`", plural(t.Repaired, "edit"))
	}
	return line
}

// shareLine tells whether content travels over the share.
func shareLine(c node.CarrierStatus, now time.Time) string {
	since := ""
	if c.Since != nil {
		since = " for " + duration(now.Sub(*c.Since))
	}
	switch {
	case !c.Well:
		return fmt.Sprintf("%s: not used%s, content is pushed", showPath(c.Path), since)
	case len(c.Members) == 0:
		return showPath(c.Path) + ": no other member is known to see it, content is pushed"
	case len(c.Members) == 1:
		return fmt.Sprintf("%s: only %s sees it too, content is pushed: for a single one that is the shorter way", showPath(c.Path), c.Members[0])
	}
	return fmt.Sprintf("%s: in use%s with %s", showPath(c.Path), since, strings.Join(c.Members, ", "))
}

// certificateLine tells of this node's certificate and of the CA.
func certificateLine(s node.Status, now time.Time) string {
	line := "ends in " + duration(s.Node.CertificateExpires.Sub(now))
	if s.CA.Fingerprint != "" {
		line += fmt.Sprintf("; CA %.16s…", s.CA.Fingerprint)
	}
	if c := s.CA.Replacing; c != nil {
		line += fmt.Sprintf("; %.16s… replaces %.16s…: %s", c.To, c.From, caStep(c))
	}
	return line
}

// caStep says how far the replacement of the CA is.
func caStep(c *node.CAChange) string {
	what := "members take over the new CA"
	if c.Step == "renew" {
		what = "members get certificates of the new CA"
	}
	if len(c.Waits) > 0 {
		what += ", waiting for " + strings.Join(c.Waits, ", ")
	}
	if len(c.Dead) > 0 {
		what += ", down: " + strings.Join(c.Dead, ", ")
	}
	return what
}

func memberRow(s node.Status, m node.MemberStatus, now time.Time) []string {
	name, alive := m.Name, "yes"
	if m.ID == s.Node.ID {
		name += " (this)"
	}
	if m.ID == s.Leader {
		name += " *"
	}
	if !m.Alive {
		alive = "no"
		switch {
		case m.LastSeen != nil:
			alive = "no, seen " + ago(now.Sub(*m.LastSeen))
		case m.DeadSince != nil:
			alive = "no, not within " + duration(now.Sub(*m.DeadSince).Round(time.Second))
		}
	}
	applied := count(m.Applied)
	if m.Alive && m.Applied < s.Revision {
		applied += fmt.Sprintf(" (-%s)", count(s.Revision-m.Applied))
	}
	role := roleForPeople(m.Role)
	if m.Chosen != "" {
		role += " (chosen)"
	}
	return []string{name, role, m.Address, alive, applied}
}

func leaderName(s node.Status, names map[string]string) string {
	if s.Leader == "" {
		return "none"
	}
	return names[s.Leader]
}

// roleForPeople is a role in the words of the messages.
func roleForPeople(role string) string {
	if role == string(cluster.NonVoter) {
		return "non-voter"
	}
	return role
}

func quorumLine(s node.Status) string {
	word := "yes"
	switch {
	case s.Node.Role == roleRemoved:
		return "not this node's any more"
	case !s.Quorum && s.VotersAlive == s.Voters:
		word = "NO leader"
	case !s.Quorum:
		word = "NO"
	}
	tolerance := ""
	if s.Quorum && s.Tolerance > 0 {
		tolerance = fmt.Sprintf("; %s may fail", plural(s.Tolerance, "more voter"))
	} else if s.Quorum {
		tolerance = "; no further voter may fail"
	}
	return fmt.Sprintf("%s: %d of %s alive%s", word, s.VotersAlive, plural(s.Voters, "voter"), tolerance)
}

// memberNames maps ids to what people call the nodes.
func memberNames(s node.Status) map[string]string {
	names := map[string]string{}
	for _, m := range s.Members {
		names[m.ID] = m.Name
	}
	return names
}
