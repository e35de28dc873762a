package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) tokenCmd() *cobra.Command {
	ttl, uses := time.Hour, uint32(1)
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a join token",
		Long: `Print a token with which a new node joins. It carries the fingerprint of the
cluster's CA, so that the joiner knows whom it talks to, and a secret: whoever
has it may join until it is used up or expires.`,
		Example: `  gatesync token --data-dir /var/lib/gatesync
  gatesync token --data-dir /var/lib/gatesync --ttl 10m --uses 3`,
		Args: noArgs,
	}
	cmd.Flags().DurationVar(&ttl, "ttl", ttl, "how long it is good for")
	cmd.Flags().Uint32Var(&uses, "uses", uses, "how many nodes may join with it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if ttl <= 0 || uses == 0 {
			return usage(cmd, fmt.Errorf("--ttl %s --uses %d: both must be more than zero", ttl, uses))
		}
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.Token(cmd.Context(), &pb.TokenRequest{TtlNs: int64(ttl), Uses: uses})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"token": res.GetToken(), "expires": time.Unix(0, res.GetExpiresNs()).UTC(), "uses": uses})
			}
			fmt.Fprintln(a.Stdout, res.GetToken())
			fmt.Fprintf(a.Stderr, "good for %s until %s; on the new machine: gatesync join HOST:PORT --token … (HOST:PORT of any member)\n",
				plural(int(uses), "node"), stamp(res.GetExpiresNs()))
			return nil
		})
	}
	return a.jsonFlag(cmd)
}
