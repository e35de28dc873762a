package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) promoteCmd() *cobra.Command {
	return a.roleCmd(&cobra.Command{
		Use:   "promote NODE",
		Short: "Make a member a voter",
		Long: `Make a member, by name or id, a voter: it takes part in elections and counts for
the quorum. It has to be alive, with all of the log and the content.

The choice sticks: the cluster neither demotes it by itself nor replaces it when
it is dead. With --auto the cluster decides again (an odd number of voters, up to
the setting "voters"; dead ones are replaced after "reap_after").

A follower becomes a member of Raft, which the leader has to be able to reach.
Promote it again, when it has caught up, to make it vote.`,
		Example: "  gatesync promote --data-dir /var/lib/gatesync gw4\n  gatesync promote --data-dir /var/lib/gatesync --auto gw4",
	}, "voter", "promoted", "without waiting for the content that it lacks")
}

func (a *app) demoteCmd() *cobra.Command {
	return a.roleCmd(&cobra.Command{
		Use:   "demote NODE",
		Short: "Take a member's vote",
		Long: `Make a voter, by name or id, a non-voter: it stays a member with all its trees,
and no longer counts for the quorum. A leader hands over first.

The choice sticks: the cluster does not promote it by itself. With --auto the
cluster decides again. With --follower it leaves Raft and is fed from now on. A change after which the other voters would be no quorum,
or would not hold all content, is refused.`,
		Example: "  gatesync demote --data-dir /var/lib/gatesync gw4\n  gatesync demote --data-dir /var/lib/gatesync --auto gw4",
	}, "nonvoter", "demoted", "even if nothing can be committed afterwards")
}

func (a *app) roleCmd(cmd *cobra.Command, role, done, forced string) *cobra.Command {
	var auto, force, follower bool
	cmd.Args = exactArgs("NODE")
	cmd.Flags().BoolVar(&auto, "auto", false, "forget what was chosen for the member: the cluster decides again")
	cmd.Flags().BoolVar(&force, "force", false, forced)
	if role == "nonvoter" {
		cmd.Flags().BoolVar(&follower, "follower", false, "take it out of Raft: another node feeds it")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		chosen, said := role, fmt.Sprintf("%s %s", done, args[0])
		if auto {
			chosen, said = "", fmt.Sprintf("the cluster decides on %s again", args[0])
		}
		if follower {
			chosen, said = "follower", args[0]+" is a follower now"
		}
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.NodeRole(cmd.Context(), &pb.NodeRoleRequest{Node: args[0], Role: chosen, Force: force})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"id": res.GetId(), "chosen": chosen})
			}
			fmt.Fprintf(a.Stdout, "%s (%s)\n", said, res.GetId())
			return nil
		})
	}
	return a.jsonFlag(cmd)
}

func (a *app) transferCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer [NODE]",
		Short: "Hand leadership over",
		Long: `Make a voter, by name or id, the leader; without NODE, whichever other voter is
furthest. Nothing has to be handed over before a stop: a daemon that is stopped
does so by itself.`,
		Example: "  gatesync transfer --data-dir /var/lib/gatesync gw2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(cmd, fmt.Errorf("%s takes at most one NODE", cmd.Name()))
			}
			return nil
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &pb.TransferLeaderRequest{}
		if len(args) == 1 {
			req.Node = args[0]
		}
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.TransferLeader(cmd.Context(), req)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"leader": res.GetId(), "name": res.GetName()})
			}
			fmt.Fprintf(a.Stdout, "%s leads (%s)\n", res.GetName(), res.GetId())
			return nil
		})
	}
	return a.jsonFlag(cmd)
}
