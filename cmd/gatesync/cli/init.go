package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/node"
)

func (a *app) initCmd() *cobra.Command {
	var f nodeFlags
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new cluster with this node as its first",
		Long: `Make a new cluster: its own CA, its id, and this node as its first member.
What stands in the trees' directories becomes the first revisions.

Settings are written to gatesync.yaml in the data directory.`,
		Example: `  gatesync init --data-dir /var/lib/gatesync --name gw1 --listen 10.0.0.1:7946 \
    --tree server=/opt/apim/repository/deployment/server,preset=wso2`,
		Args: noArgs,
	}
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := f.config(cmd, a)
		if err != nil {
			return err
		}
		made, err := node.Init(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(made)
		}
		fmt.Fprintf(a.Stdout, "made cluster %s with its first node %s (%s)\n", made.Cluster, cfg.Name, made.Node)
		a.sayWhereNodesDial(made)
		fmt.Fprintf(a.Stdout, `
next:
  gatesync run   --data-dir %[1]s     # start the daemon
  gatesync token --data-dir %[1]s     # then: a token, with which the next node joins
`, a.dataDir)
		return nil
	}
	return a.jsonFlag(cmd)
}

// sayWhereNodesDial prints what init and join found out rather than were told.
func (a *app) sayWhereNodesDial(made node.Made) {
	fmt.Fprintf(a.Stdout, "other nodes reach it at %s", made.Address)
	if made.Guessed {
		fmt.Fprint(a.Stdout, " (found out; set `advertise` in gatesync.yaml if that is wrong)")
	}
	fmt.Fprintln(a.Stdout)
	for _, dir := range made.Created {
		fmt.Fprintf(a.Stdout, "made the directory %s, which did not exist\n", dir)
	}
}
