package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/node"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

func (a *app) targetsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "targets",
		Short: "Receivers of pushes that the cluster keeps current by itself",
		Long: `Targets are receivers of pushes that are no members: a ` + "`gatesync receive --listen`" + `,
or a directory behind sshd. What is added here stands in the cluster's own
configuration, and the cluster keeps it current: one member pushes, whom the log
names; when it dies, or cannot reach the target, another one takes over. A member
whose time is over is refused by the target itself.`,
		Example: `  gatesync targets add gw9 gw9.example.com:7950 --token-file gw9.token
  gatesync targets
  gatesync targets remove gw9`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listTargets(cmd) },
	}
	a.jsonFlag(cmd)
	cmd.AddCommand(a.targetsAddCmd(), a.targetsListCmd(), a.targetsRemoveCmd())
	return cmd
}

func (a *app) targetsAddCmd() *cobra.Command {
	f := &pushFlags{}
	cmd := &cobra.Command{
		Use:   "add NAME TARGET",
		Short: "Add a target, or change the settings of the one of that name",
		Long: `Add a target to the cluster's configuration, under a name. TARGET is as for
` + "`gatesync push`" + `: HOST:PORT with its token, or ssh://user@host[:port]/path with one
--tree. All settings are told anew: what is not named has its default.

The token is kept in the cluster's log, like the key of its CA: whoever has a
member's data directory has it. Over ssh each member uses the ssh configuration and
keys of the user that its daemon runs as, and the command that its own settings
name (ssh: in gatesync.yaml); nobody is asked for a password.`,
		Example: `  gatesync targets add gw9 gw9.example.com:7950 --token-file gw9.token --limit 10MB/s
  gatesync targets add gw8 ssh://deploy@gw8.example.com/opt/gateway/conf --tree server --preset wso2`,
		Args: exactArgs("NAME", "TARGET"),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.delete, "delete", string(target.DeleteHeld), "held, yes, no: what becomes of what stands only there")
	fl.StringArrayVar(&f.trees, "tree", nil, "this tree only (repeatable)")
	a.tokenFlags(cmd, f)
	a.remoteFlags(cmd, f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.to = args[1]
		t, err := f.target(args[0])
		if err != nil {
			return usage(cmd, err)
		}
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			if _, err := c.AddTarget(cmd.Context(), &pb.AddTargetRequest{Target: raftstore.FromTarget(t)}); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"name": t.Name, "address": t.Address})
			}
			fmt.Fprintf(a.Stdout, "the cluster keeps %s (%s) current from now on; `gatesync targets list` tells how it goes\n", t.Name, t.Address)
			return nil
		})
	}
	return a.jsonFlag(cmd)
}

// target makes a target of the flags. What can be known here is checked here: in
// the log nobody is there to be asked.
func (f *pushFlags) target(name string) (t cluster.Target, err error) {
	t = cluster.Target{
		Name: name, Address: f.to, Trees: f.trees, Delete: f.delete, Preset: f.preset, Ignore: f.ignore,
		RemoteBinary: f.remoteBinary, RemoteDataDir: f.remoteDataDir, RemoteReserve: f.remoteReserve,
	}
	if !target.Policy(f.delete).Valid() {
		return t, fmt.Errorf("--delete=%s: say held, yes or no", f.delete)
	}
	if t.Limit, err = parseLimit(f.limit); err != nil {
		return t, err
	}
	over, isSSH, err := target.ParseSSH(f.to)
	switch {
	case err != nil:
		return t, err
	case isSSH && len(t.Trees) != 1:
		return t, errors.New("an ssh target is one directory: name the tree to push with --tree")
	case isSSH:
		if _, err := manifest.NewIgnore(t.Preset, t.Ignore); err != nil {
			return t, err
		}
		_, err := over.Tree(t.Trees[0], t.Preset, t.Ignore)
		return t, err
	}
	if f.preset != "" || len(f.ignore) > 0 || f.remoteDataDir != "" || f.remoteReserve != "" {
		return t, errors.New("--preset, --ignore and --remote-… are for targets over ssh: a `gatesync receive --listen` is told them over there")
	}
	t.RemoteBinary = ""
	if _, _, err := net.SplitHostPort(f.to); err != nil {
		return t, fmt.Errorf("%q is neither HOST:PORT nor ssh://…", f.to)
	}
	tok, err := f.parseToken()
	t.Token = tok.String()
	return t, err
}

func (a *app) targetsListCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the targets: who pushes, and how current they are",
		Long: `List the targets. STATE is waiting, pushing, current, partly (some paths could not
be brought), refused (by the target itself), unreachable (for the member that
pushes; after a few seconds another one tries), or unknown (the pusher is silent).`,
		Example: "  gatesync targets list --data-dir /var/lib/gatesync --json",
		Args:    noArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.listTargets(cmd) }
	return a.jsonFlag(cmd)
}

func (a *app) listTargets(cmd *cobra.Command) error {
	return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
		s, err := status(cmd.Context(), c)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(s.Targets)
		}
		if len(s.Targets) == 0 {
			fmt.Fprintln(a.Stdout, "no targets: add one with `gatesync targets add`")
			return nil
		}
		writeTargets(a.Stdout, s.Targets, time.Now())
		for _, t := range s.Targets {
			if t.Error != "" {
				fmt.Fprintf(a.Stdout, "%s: %s\n", t.Name, t.Error)
			}
		}
		return nil
	})
}

func writeTargets(w io.Writer, list []node.TargetStatus, now time.Time) {
	rows := [][]string{{"TARGET", "PUSHER", "STATE", "REVISION", "HELD", "ADDRESS"}}
	for _, t := range list {
		state, pusher := t.State, t.Pusher
		if t.Since != nil {
			state += " for " + duration(max(0, now.Sub(*t.Since)).Round(time.Second))
		}
		if pusher == "" {
			pusher = "-"
		}
		rows = append(rows, []string{t.Name, pusher, state, count(t.Revision), count(t.Held), t.Address})
	}
	table(w, rows)
}

func (a *app) targetsRemoveCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Keep a target current no longer; what stands there stays",
		Long: `Take a target out of the cluster's configuration. A push that is under way is
cut, and none begins any more. What stands at the target stays, whole.`,
		Example: "  gatesync targets remove gw9",
		Args:    exactArgs("NAME"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			if _, err := c.RemoveTarget(cmd.Context(), &pb.RemoveTargetRequest{Name: args[0]}); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"removed": args[0]})
			}
			fmt.Fprintf(a.Stdout, "removed %s\n", args[0])
			return nil
		})
	}
	return a.jsonFlag(cmd)
}
