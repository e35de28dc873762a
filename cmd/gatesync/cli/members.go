package cli

import (
	"time"

	"github.com/spf13/cobra"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) membersCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "members",
		Short:   "List the members of the cluster",
		Long:    "List the members of the cluster. The leader is marked with a *.",
		Example: "  gatesync members --data-dir /var/lib/gatesync --json",
		Args:    noArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			s, err := status(cmd.Context(), c)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(s.Members)
			}
			rows := [][]string{{"MEMBER", "ROLE", "ADDRESS", "ALIVE", "APPLIED", "VERSION", "ID"}}
			for _, m := range s.Members {
				rows = append(rows, append(memberRow(s, m, time.Now()), m.Version, m.ID))
			}
			table(a.Stdout, rows)
			return nil
		})
	}
	return a.jsonFlag(cmd)
}
