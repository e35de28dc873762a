package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) removeCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Remove a member from the cluster for good",
		Long: `Remove a member, by name or id. Nobody talks to it any more and it no longer
counts for the quorum. Its tree is left as it is. To come back it
becomes a new member (` + "`gatesync join … --again`" + ` on its data directory).

A removal after which the other voters would be no quorum, or would not hold all
content, is refused.`,
		Example: "  gatesync remove --data-dir /var/lib/gatesync gw3",
		Args:    exactArgs("NODE"),
	}
	cmd.Flags().BoolVar(&force, "force", false, "even if nothing can be committed afterwards")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.RemoveNode(cmd.Context(), &pb.RemoveNodeRequest{Node: args[0], Force: force})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"removed": res.GetId()})
			}
			fmt.Fprintf(a.Stdout, "removed %s (%s)\n", args[0], res.GetId())
			return nil
		})
	}
	return a.jsonFlag(cmd)
}
