package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/node"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) rotateCACmd() *cobra.Command {
	var finish bool
	timeout := time.Minute
	cmd := &cobra.Command{
		Use:   "rotate-ca",
		Short: "Replace the cluster's CA, without a restart",
		Long: `Replace the CA that signs the nodes' certificates. All members first trust the
new CA as well; then it signs, and every node renews its certificate; when all
have, the old CA is dropped and its certificates are refused. Nothing restarts
and no write fails. Who leads goes on with it, also after a change of leaders;
` + "`gatesync status`" + ` shows how far it is.

A member that is down holds up only the last step: it comes back with its old
certificate and renews it. --finish drops the old CA without it; it then has to
come back with ` + "`gatesync join … --again`" + `. With certificates of an own PKI there
is nothing to do here: change the files, they are read anew.`,
		Example: `  gatesync rotate-ca --data-dir /var/lib/gatesync
  gatesync rotate-ca --data-dir /var/lib/gatesync --finish`,
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&finish, "finish", false, "drop the old CA although members that are down have no certificate of the new one")
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait for the end; 0: do not wait")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.RotateCA(cmd.Context(), &pb.RotateCARequest{Finish: finish})
			if err != nil {
				return err
			}
			if timeout > 0 {
				if err := a.waitCA(cmd.Context(), c, timeout); err != nil {
					return err
				}
			}
			if a.json {
				return a.printJSON(map[string]string{"from": res.GetFrom(), "to": res.GetTo()})
			}
			done := "the CA is replaced"
			if timeout <= 0 {
				done = "the CA is being replaced"
			}
			fmt.Fprintf(a.Stdout, "%s\n  old: %s\n  new: %s\n", done, res.GetFrom(), res.GetTo())
			return nil
		})
	}
	return a.jsonFlag(cmd)
}

// waitCA waits for the end of the replacement, telling of each step.
func (a *app) waitCA(ctx context.Context, c pb.LocalClient, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last *node.CAChange
	for {
		s, err := status(ctx, c)
		switch {
		case ctx.Err() != nil && last != nil:
			return fmt.Errorf("not done within %s: %s; it goes on by itself, see `gatesync status`", timeout, caStep(last))
		case err != nil:
			return err
		case s.CA.Replacing == nil:
			return nil
		}
		now := s.CA.Replacing
		if last == nil || last.Step != now.Step || !slices.Equal(last.Dead, now.Dead) {
			fmt.Fprintln(a.Stderr, caStep(now))
		}
		last = now
		if now.Step == "renew" && len(now.Waits) == 0 && len(now.Dead) > 0 {
			return errors.New("every living member has a certificate of the new CA; the old one stays trusted for " + strings.Join(now.Dead, ", ") +
				", which is down: start its daemon, or `gatesync rotate-ca --finish` (it then has to come back with `gatesync join … --again`)")
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
