package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/fallback/target"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) conflictsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "conflicts",
		Short: "List, show, restore or drop what lost a conflict",
		Long: `When two nodes change one path at the same moment, the first that is committed
wins everywhere. The loser's content is kept aside on the node where it was
written, outside the tree, until somebody restores or drops it. With the data
directory of a target (gatesync receive): what pushes have displaced there.`,
		Example: `  gatesync conflicts --data-dir /var/lib/gatesync
  gatesync conflicts --data-dir /var/lib/gatesync show ID > mine.xml
  gatesync conflicts --data-dir /var/lib/gatesync restore ID
  gatesync conflicts --data-dir /var/lib/gatesync drop --all`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listConflicts(cmd) },
	}
	a.jsonFlag(cmd)
	ls := a.jsonFlag(&cobra.Command{
		Use: "list", Short: "List what was kept aside", Args: noArgs,
		Long: `List what was kept aside on this node: its id, tree, path and size, and the
revision that stands in the tree instead.`,
		Example: "  gatesync conflicts list --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.listConflicts(cmd) },
	})
	show := &cobra.Command{
		Use: "show ID", Short: "Print the content that was kept aside", Args: exactArgs("ID"),
		Long:    "Print the content that was kept aside, byte by byte, to compare it or to keep it elsewhere.",
		Example: "  gatesync conflicts show ID | diff - /opt/gateway/conf/api.xml",
		RunE: func(cmd *cobra.Command, args []string) error {
			if target.IsTarget(a.dataDir) {
				return target.KeptContent(a.dataDir, args[0], a.Stdout)
			}
			return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
				stream, err := c.Content(cmd.Context(), &pb.ContentRequest{Conflict: args[0]})
				return each(stream, err, func(m *pb.ContentChunk) error {
					_, err := a.Stdout.Write(m.GetData())
					return err
				})
			})
		},
	}
	cmd.AddCommand(ls, show,
		a.resolveConflicts("restore", "Put the content back into the tree, as a new edit", "restored",
			`Put the content back at its path in this node's tree. That is an edit like any
other: it goes to all nodes, and what stands there now stays in the history.`),
		a.resolveConflicts("drop", "Forget the content for good", "dropped",
			"Forget the content that was kept aside. Nothing in a tree changes."))
	return cmd
}

func (a *app) resolveConflicts(action, short, done, long string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: action + " ID…", Short: short, Long: long,
		Example: fmt.Sprintf("  gatesync conflicts %s ID\n  gatesync conflicts %s --all", action, action),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) > 0) {
			return usage(cmd, errors.New("name the conflicts by id, or say --all"))
		}
		if target.IsTarget(a.dataDir) {
			return a.dropKept(action, args, all)
		}
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.Conflicts(cmd.Context(), &pb.ConflictsRequest{Action: action, Ids: args, All: all})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(newJSONConflicts(res.GetConflicts()))
			}
			for _, x := range res.GetConflicts() {
				fmt.Fprintf(a.Stdout, "%s %s  %s\n", done, x.GetId(), showPath(string(x.GetPath())))
			}
			return nil
		})
	}
	return a.jsonFlag(cmd)
}

func (a *app) listConflicts(cmd *cobra.Command) error {
	if target.IsTarget(a.dataDir) {
		return a.listKept()
	}
	return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
		res, err := c.Conflicts(cmd.Context(), &pb.ConflictsRequest{Action: "list"})
		if err != nil {
			return err
		}
		all := res.GetConflicts()
		if a.json {
			return a.printJSON(newJSONConflicts(all))
		}
		if len(all) == 0 {
			fmt.Fprintln(a.Stdout, "no conflicts")
			return nil
		}
		rows := [][]string{{"ID", "TREE", "TIME", "WINNER", "SIZE", "PATH"}}
		for _, x := range all {
			rows = append(rows, []string{x.GetId(), x.GetTree(), stamp(x.GetTimeNs()), "revision " + count(x.GetWinner()),
				size(x.GetLost().GetSize()), showPath(string(x.GetPath()))})
		}
		table(a.Stdout, rows)
		fmt.Fprintf(a.Stderr, "\n`gatesync conflicts show ID` prints what was kept; `restore ID` puts it back as a new edit; `drop ID` forgets it\n")
		return nil
	})
}

// jsonConflict is a conflict in JSON.
type jsonConflict struct {
	ID   string `json:"id"`
	Tree string `json:"tree"`
	jsonPath
	Time   time.Time `json:"time"`
	Winner uint64    `json:"winner"`
	Size   int64     `json:"size"`
	Why    string    `json:"why,omitempty"`
}

func newJSONConflicts(all []*pb.Conflict) []jsonConflict {
	rows := []jsonConflict{}
	for _, x := range all {
		rows = append(rows, jsonConflict{
			ID: x.GetId(), Tree: x.GetTree(), jsonPath: newJSONPath(x.GetPath()), Time: time.Unix(0, x.GetTimeNs()).UTC(),
			Winner: x.GetWinner(), Size: x.GetLost().GetSize(), Why: x.GetWhy(),
		})
	}
	return rows
}
