package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) heldCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "held",
		Short: "List what guards hold back on this node, and why",
		Long: `List what guards hold back on this node: deletions of too much at once, a root
that is missing or not ours, files that stood here before the node joined, edits
in a tree that takes none (write: never), what cannot be replicated. Held means: neither spread to other nodes nor undone here.`,
		Example: "  gatesync held --data-dir /var/lib/gatesync",
		Args:    noArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.Held(cmd.Context(), &pb.HeldRequest{})
			if err != nil {
				return err
			}
			return a.showHeld(res.GetItems())
		})
	}
	return a.jsonFlag(cmd)
}

func (a *app) showHeld(items []*pb.HeldItem) error {
	if a.json {
		type row struct {
			Tree string `json:"tree"`
			jsonPath
			Guard  string    `json:"guard"`
			Why    string    `json:"why"`
			Change string    `json:"change,omitempty"`
			Time   time.Time `json:"time"`
		}
		rows := []row{}
		for _, x := range items {
			rows = append(rows, row{x.GetTree(), newJSONPath(x.GetPath()), x.GetGuard(), x.GetWhy(), x.GetChange(), time.Unix(0, x.GetTimeNs()).UTC()})
		}
		return a.printJSON(rows)
	}
	if len(items) == 0 {
		fmt.Fprintln(a.Stdout, "nothing is held")
		return nil
	}
	rows, unfit := [][]string{{"TREE", "GUARD", "CHANGE", "SINCE", "PATH", "WHY"}}, false
	for _, x := range items {
		unfit = unfit || x.GetGuard() == "unfit"
		path := showPath(string(x.GetPath()))
		if path == "" {
			path = "(the whole tree)"
		}
		rows = append(rows, []string{x.GetTree(), x.GetGuard(), cmp.Or(x.GetChange(), "-"), stamp(x.GetTimeNs()), path, x.GetWhy()})
	}
	table(a.Stdout, rows)
	fmt.Fprintf(a.Stderr, "\n`gatesync approve [PATH…]` spreads it; `gatesync restore [PATH…]` puts the cluster's state back here and keeps what stood here aside\n")
	if unfit {
		fmt.Fprintln(a.Stderr, "what is unfit cannot be spread: change it, take it away, or name it under `ignore` of its tree in gatesync.yaml")
	}
	return nil
}
