package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) approveCmd() *cobra.Command {
	return a.resolveCmd("approve", "Spread what a guard holds back",
		"Spread what guards hold back: of these paths and everything below them, or all of it.", "approved")
}

func (a *app) restoreCmd() *cobra.Command {
	return a.resolveCmd("restore", "Undo here what a guard holds back",
		"Put the cluster's state back where guards hold something: of these paths and everything below them,\nor all of it. Content that stood here is kept aside, see `gatesync conflicts`.", "restored")
}

func (a *app) retryCmd() *cobra.Command {
	return a.resolveCmd("retry", "Try again what was refused",
		"Forget why paths were refused or rejected and look at them again: these paths, or all.", "tried again:")
}

// resolveCmd is one of the three words that an operator has for held paths.
func (a *app) resolveCmd(verb, short, long, done string) *cobra.Command {
	var tree string
	cmd := &cobra.Command{
		Use:     verb + " [PATH…]",
		Short:   short,
		Long:    long + "\n\nPaths are relative to the tree's root.",
		Example: fmt.Sprintf("  gatesync %[1]s --data-dir /var/lib/gatesync\n  gatesync %[1]s --data-dir /var/lib/gatesync --tree server synapse-configs/default/api/orders.xml", verb),
	}
	cmd.Flags().StringVar(&tree, "tree", "", "of one tree only")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &pb.ResolveRequest{Action: verb, Tree: tree}
		for _, arg := range args {
			p, err := manifest.ParsePath(strings.TrimPrefix(filepath.Clean(arg), "./"))
			if err != nil {
				return usage(cmd, fmt.Errorf("%w; paths are relative to the tree's root", err))
			}
			req.Paths = append(req.Paths, []byte(p))
		}
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.Resolve(cmd.Context(), req)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]uint64{"resolved": res.GetResolved()})
			}
			fmt.Fprintf(a.Stdout, "%s %s\n", done, plural(res.GetResolved(), "path"))
			return nil
		})
	}
	return a.jsonFlag(cmd)
}
