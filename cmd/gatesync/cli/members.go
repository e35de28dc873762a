package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/node"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) membersCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the members of the cluster",
		Long: `List the members of the cluster. The leader is marked with a *.
CONTENT is how far a member holds all content, of every tree and of the
retained history: who has not all of it does not become a voter. A role that
an operator chose (promote, demote) says so; otherwise the cluster decides.`,
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
			rows := [][]string{{"MEMBER", "ROLE", "ADDRESS", "ALIVE", "APPLIED", "CONTENT", "VERSION", "ID"}}
			for _, m := range s.Members {
				rows = append(rows, append(memberRow(s, m, time.Now()), contentCell(m), m.Version, m.ID))
			}
			table(a.Stdout, rows)
			fmt.Fprintf(a.Stdout, "\nquorum %s\n", quorumLine(s))
			return nil
		})
	}
	return a.jsonFlag(cmd)
}

func contentCell(m node.MemberStatus) string {
	if m.Missing > 0 {
		return fmt.Sprintf("%s, lacks %s", count(m.Content), plural(m.Missing, "blob"))
	}
	return count(m.Content)
}
