package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/node"
)

func (a *app) recoverCmd() *cobra.Command {
	var yes, dry bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Give up a majority that is lost for good, and go on from this node",
		Long: `Give up a majority that is lost for good: this node becomes the only voter and
the cluster goes on with what this node has. Its daemon must be stopped.

Shows what is known and what may be lost, asks, and does it. Everything in this
node's log then counts as committed. What only the lost nodes had is not in the
cluster any more.

With several survivors run "recover --dry-run" on each and recover on the one
whose log goes furthest ("log up to", in JSON last_index), and of equal ones on
the one with the highest revision. The others, and lost nodes that return after
all, rejoin by themselves once they meet this node: as non-voters, under their
old ids. What they alone hold goes aside on them (gatesync conflicts).

Lost nodes that come back together, before they have met this one, are the old
cluster and go on as such; they yield as soon as they meet this node. So do not
start them where they cannot reach it.`,
		Example: `  gatesync recover --data-dir /var/lib/gatesync --dry-run
  gatesync recover --data-dir /var/lib/gatesync`,
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what is known")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		cfg, err := a.load(nil)
		if err != nil {
			return err
		}
		r, err := node.OpenRecovery(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		switch {
		case a.json && dry:
			return a.printJSON(r.Facts)
		case !a.json:
			a.showRecovery(r.Facts)
		}
		if dry {
			return nil
		}
		if err := r.Facts.Needless(); err != nil {
			return err
		}
		if !yes {
			if err := a.confirm(r.Facts.Name); err != nil {
				return err
			}
		}
		done, err := r.Do()
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(done)
		}
		fmt.Fprintf(a.Stdout, `
%s is the only voter of incarnation %d of cluster %s, at revision %d.
its log of before is kept in %s

next:
  gatesync run --data-dir %s     # start the daemon
the other members rejoin by themselves as soon as their daemons run and reach this one;
`+"`gatesync remove NAME`"+` forgets one that never comes back.
do not start lost nodes where they reach each other and not this one.
`, r.Facts.Name, done.Incarnation, done.Cluster, done.Revision, done.OldLog, a.dataDir)
		return nil
	}
	return a.jsonFlag(cmd)
}

// confirm asks the person at the terminal.
func (a *app) confirm(name string) error {
	in, ok := a.Stdin.(*os.File)
	if ok {
		_, err := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
		ok = err == nil
	}
	if !ok {
		return errors.New("nobody is there to ask: give --yes if you mean it")
	}
	fmt.Fprintf(a.Stderr, "\ntype the name of this node (%s) to go on: ", name)
	line, err := bufio.NewReader(a.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if said := strings.TrimSpace(line); said != name && said != "yes" {
		return errors.New("not confirmed: nothing was changed")
	}
	return nil
}

// showRecovery prints the facts for a person.
func (a *app) showRecovery(f node.RecoveryFacts) {
	fmt.Fprintf(a.Stdout, "cluster %s, incarnation %d\nthis node %s (%s), %s: revision %d, log up to %d (term %d)\n\n",
		f.Cluster, f.Incarnation, f.Name, f.Node, votes(f.Voter), f.Revision, f.LastIndex, f.LastTerm)
	rows := [][]string{{"MEMBER", "ROLE", "ADDRESS", "LAST HEARD", "NOW"}}
	for _, m := range f.Members {
		rows = append(rows, recoveryRow(m))
	}
	table(a.Stdout, rows)
	fmt.Fprintln(a.Stdout)
	for _, t := range f.Trees {
		fmt.Fprintf(a.Stdout, "tree %s: %s, root digest %.16s…\n", t.Name, plural(t.Entries, "path"), t.RootDigest)
	}
	if n := len(f.Uncertain); n > 0 {
		fmt.Fprintf(a.Stdout, "\n%s may not have been committed (the daemon last knew it of the log up to %d) and would be:\n", plural(n, "revision"), f.KnownCommitted)
		for _, u := range first(f.Uncertain) {
			fmt.Fprintf(a.Stdout, "  revision %d of %s by %s: %s, first %s\n", u.Revision, u.Tree, u.Author, plural(u.Changes, "change"), showPath(u.First))
		}
		more(a.Stdout, n)
	}
	if n := len(f.Missing); n > 0 {
		fmt.Fprintf(a.Stdout, "\nWOULD BE LOST: the content of %s is not on this node. Unless another survivor that rejoins has it, these stay away:\n", plural(n, "path"))
		for _, m := range first(f.Missing) {
			fmt.Fprintf(a.Stdout, "  %s: %s (%s, %.16s…)\n", m.Tree, showPath(m.Path), size(m.Size), m.Digest)
		}
		more(a.Stdout, n)
	} else {
		fmt.Fprintln(a.Stdout, "all content of these trees is on this node")
	}
	fmt.Fprintln(a.Stdout, "\nMAY BE LOST: revisions that the other voters committed and this node's log does not hold.\nNobody here can know whether there are any.")
	if newer := f.Newer(); len(newer) > 0 {
		fmt.Fprintf(a.Stdout, "\nBETTER ELSEWHERE: the log of %s goes further than this node's. Stop its daemon and recover there.\n", strings.Join(newer, ", "))
	}
	if err := f.Needless(); err != nil {
		fmt.Fprintf(a.Stdout, "\nNOT NEEDED: %v\n", err)
	}
	fmt.Fprintln(a.Stdout, "\nIf another node has survived, compare: `gatesync recover --dry-run` on each, and recover where the log goes furthest.")
}

const shown = 20

func first[T any](all []T) []T { return all[:min(len(all), shown)] }

func more(w io.Writer, n int) {
	if n > shown {
		fmt.Fprintf(w, "  and %s more (--json has all)\n", count(n-shown))
	}
}

func recoveryRow(m node.RecoveryMember) []string {
	heard, now := "never", "no answer"
	if m.Heard != nil {
		heard = ago(time.Since(*m.Heard))
	}
	if m.Alive {
		now = fmt.Sprintf("answers, revision %d, log up to %d", m.Revision, m.Last)
		if m.Leader {
			now += ", HAS A LEADER"
		}
	}
	return []string{m.Name, votes(m.Voter), m.Address, heard, now}
}

func votes(voter bool) string {
	if voter {
		return "voter"
	}
	return "non-voter"
}
