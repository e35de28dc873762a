package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) logCmd() *cobra.Command {
	var tree string
	var paths bool
	limit := uint32(20)
	cmd := &cobra.Command{
		Use:   "log",
		Short: "List revisions: who, when, what",
		Long:  "List revisions, the newest first: number, time, the node that wrote it, and what changed.",
		Example: `  gatesync log --data-dir /var/lib/gatesync --limit 50
  gatesync log --data-dir /var/lib/gatesync --tree server --paths`,
		Args: noArgs,
	}
	cmd.Flags().Uint32Var(&limit, "limit", limit, "how many at most")
	cmd.Flags().StringVar(&tree, "tree", "", "of one tree only")
	cmd.Flags().BoolVar(&paths, "paths", false, "every changed path, not only the first")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			s, err := status(cmd.Context(), c)
			if err != nil {
				return err
			}
			names := memberNames(s)
			rows := []jsonCommit{}
			stream, err := c.Log(cmd.Context(), &pb.LogRequest{Limit: limit, Tree: tree, Paths: true})
			err = each(stream, err, func(m *pb.Commit) error {
				commit, err := proto.ToCommit(m)
				if err != nil {
					return err
				}
				if a.json {
					rows = append(rows, newJSONCommit(commit, names))
					return nil
				}
				a.showCommit(commit, names, paths)
				return nil
			})
			if err != nil || !a.json {
				return err
			}
			return a.printJSON(rows)
		})
	}
	return a.jsonFlag(cmd)
}

func (a *app) showCommit(c manifest.Commit, names map[string]string, paths bool) {
	author := nameOr(names, c.ID.Node)
	fmt.Fprintf(a.Stdout, "%-8s %s  %-12s %-10s %s", count(uint64(c.Revision)), stamp(c.Time), author, c.Tree, summarize(c.Changes))
	if c.Message != "" {
		fmt.Fprintf(a.Stdout, "  %q", c.Message)
	}
	fmt.Fprintln(a.Stdout)
	if paths {
		for _, ch := range c.Changes {
			fmt.Fprintf(a.Stdout, "         %s %s\n", sign(ch), showPath(string(ch.Path)))
		}
	}
}

// summarize is a revision in a few words.
func summarize(changes []manifest.Committed) string {
	if len(changes) == 1 {
		return sign(changes[0]) + " " + showPath(string(changes[0].Path))
	}
	n := map[string]int{}
	for _, c := range changes {
		n[sign(c)]++
	}
	return fmt.Sprintf("%s: +%d ~%d -%d, first %s", plural(len(changes), "path"), n["+"], n["~"], n["-"], showPath(string(changes[0].Path)))
}

// sign is + for an addition, ~ for a change, - for a deletion.
func sign(c manifest.Committed) string {
	switch {
	case c.New.Absent():
		return "-"
	case c.Old.Entry.Absent():
		return "+"
	}
	return "~"
}

func nameOr(names map[string]string, id string) string {
	if n := names[id]; n != "" {
		return n
	}
	return id
}

// jsonCommit is a revision in JSON.
type jsonCommit struct {
	Revision uint64       `json:"revision"`
	Time     time.Time    `json:"time"`
	Node     string       `json:"node"`
	Name     string       `json:"name"`
	Tree     string       `json:"tree"`
	Origin   string       `json:"origin"`
	Message  string       `json:"message,omitempty"`
	Changes  []jsonChange `json:"changes"`
}

type jsonChange struct {
	jsonPath
	What   string `json:"what"` // add, change, delete
	Kind   string `json:"kind"`
	Size   int64  `json:"size"`
	Mode   string `json:"mode"`
	Digest string `json:"digest,omitempty"`
	Target string `json:"target,omitempty"`
}

func newJSONCommit(c manifest.Commit, names map[string]string) jsonCommit {
	j := jsonCommit{
		Revision: uint64(c.Revision), Time: time.Unix(0, c.Time).UTC(), Node: c.ID.Node, Name: nameOr(names, c.ID.Node),
		Tree: c.Tree, Origin: c.Origin.Kind.String(), Message: c.Message, Changes: []jsonChange{},
	}
	for _, ch := range c.Changes {
		e := ch.New
		if e.Absent() {
			e = ch.Old.Entry
		}
		jc := jsonChange{
			jsonPath: newJSONPath([]byte(ch.Path)), What: map[string]string{"+": "add", "~": "change", "-": "delete"}[sign(ch)],
			Kind: e.Kind.String(), Size: e.Size, Mode: fmt.Sprintf("%04o", e.Mode), Target: e.Target,
		}
		if !e.Digest.IsZero() {
			jc.Digest = e.Digest.String()
		}
		j.Changes = append(j.Changes, jc)
	}
	return j
}
