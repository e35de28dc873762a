package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) verifyCmd() *cobra.Command {
	var trees []string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Rehash every file and report drift",
		Long: `Read every file of this node's trees and its blob store again, whatever its times
say, and compare with what the cluster committed. Nothing is changed.

Exits 3 when something differs.`,
		Example: "  gatesync verify --data-dir /var/lib/gatesync",
		Args:    noArgs,
	}
	cmd.Flags().StringArrayVar(&trees, "tree", nil, "this tree only (repeatable)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := &resyncReport{app: a, dryRun: true, bar: newProgress(a.Stderr)}
		err := a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			stream, err := c.Verify(cmd.Context(), &pb.VerifyRequest{Trees: trees})
			return each(stream, err, func(ev *pb.VerifyEvent) error {
				switch {
				case ev.GetDrift() != nil:
					r.difference(ev.GetDrift())
				case ev.GetProgress() != nil:
					r.bar.show(ev.GetProgress())
				case ev.GetSummary() != nil:
					r.summary = ev.GetSummary()
				}
				return nil
			})
		})
		r.bar.end()
		if err != nil {
			return err
		}
		if len(r.diffs) == 0 && !a.json {
			fmt.Fprintf(a.Stdout, "%s of content verified, no drift at revision %s\n", size(r.summary.GetBytes()), count(r.summary.GetRevision()))
			return nil
		}
		return r.finish()
	}
	return a.jsonFlag(cmd)
}
