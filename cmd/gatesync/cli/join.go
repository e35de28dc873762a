package cli

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/node"
)

func (a *app) joinCmd() *cobra.Command {
	var f nodeFlags
	var token string
	var adopt, again, witness, follower bool
	cmd := &cobra.Command{
		Use:   "join HOST:PORT",
		Short: "Make this node a member of an existing cluster",
		Long: `Make this node a member of an existing cluster, through any running member.

The token comes from ` + "`gatesync token`" + ` on a member. The key of this node is made
here and never leaves it.

Files that already stand in this node's trees and not in the cluster's are held:
neither deleted nor spread, until ` + "`gatesync approve`" + ` or ` + "`gatesync restore`" + `.
With --adopt they are spread at once.

With --write never what is edited in this node's trees is never spread: it is put
back and kept aside (or, with --edits report, stands and is shown).

With --witness this node has no tree: it holds the log and the content of all
trees, and votes. Beside two gateways it makes the third voter, so that either
of them may fail.

With --follower this node takes no part in Raft: it dials one member, or another
follower, and is fed the log by it. It needs no connection from outside, so it
works behind a firewall or NAT. Whoever joins when Raft has enough members (the
setting "members_max") becomes one by itself.

With --again a node that cannot go on as itself (it was removed, or its part of
the log or its identity is damaged or lost) comes back as a new member, with the
settings of its gatesync.yaml (so --name, --listen and --tree are not given), its
trees and its content. Remove its former self first, if it still is a member.`,
		Example: `  gatesync join 10.0.0.1:7946 --token gs1-… --data-dir /var/lib/gatesync \
    --name gw2 --listen 10.0.0.2:7946 --tree server=/opt/apim/repository/deployment/server`,
		Args: exactArgs("HOST:PORT"),
	}
	f.add(cmd)
	cmd.Flags().StringVar(&token, "token", "", "join token (or GATESYNC_TOKEN, which no process list shows)")
	cmd.Flags().BoolVar(&adopt, "adopt", false, "spread files that stand only in this node's trees")
	cmd.Flags().BoolVar(&witness, "witness", false, "without a tree: this node holds log and content, and votes")
	cmd.Flags().BoolVar(&follower, "follower", false, "outside of Raft: this node is fed by another one, by connections that it dials")
	cmd.Flags().BoolVar(&again, "again", false, "the data directory holds a node that cannot go on as itself: come back as a new one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o := node.JoinOptions{Via: args[0], Token: cmp.Or(token, a.env("TOKEN", "")), Adopt: adopt, Again: again, Follower: follower, Version: a.Version}
		cfg, err := a.joiner(cmd, &f, o, witness)
		if err != nil {
			return err
		}
		made, err := node.Join(cmd.Context(), cfg, o)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(made)
		}
		a.sayJoined(made, cfg.Name, witness)
		return nil
	}
	return a.jsonFlag(cmd)
}

// joiner is the settings of a node that joins: those of the flags, or those that
// it had as its former self. What cannot be meant together is refused.
func (a *app) joiner(cmd *cobra.Command, f *nodeFlags, o node.JoinOptions, witness bool) (cfg config.Config, err error) {
	if witness && len(f.trees) > 0 {
		return cfg, usage(cmd, errors.New("--witness is a node without a tree: leave one of --witness and --tree out"))
	}
	f.treeless = witness
	if o.Again {
		cfg, err = a.load(nil)
	} else {
		cfg, err = f.config(cmd, a)
	}
	if err != nil {
		return cfg, err
	}
	for _, t := range cfg.Trees {
		if write, _ := cfg.Direction(t); o.Adopt && write == "never" {
			return cfg, usage(cmd, fmt.Errorf("--adopt spreads what stands in tree %s, and write: never spreads nothing of it: leave one of them out", t.Name))
		}
	}
	if o.Token == "" {
		return cfg, usage(cmd, errors.New("--token is missing: `gatesync token` on a member prints one"))
	}
	return cfg, nil
}

func (a *app) sayJoined(made node.Made, name string, witness bool) {
	as, what := "", "the trees"
	if made.Follower {
		as = ", a follower"
	}
	if witness {
		what = "the content of all trees"
	}
	fmt.Fprintf(a.Stdout, "joined cluster %s as %s (%s)%s\n", made.Cluster, name, made.Node, as)
	a.sayWhereNodesDial(made)
	fmt.Fprintf(a.Stdout, "\nnext:\n  gatesync run --data-dir %s     # start the daemon; it fetches %s\n", a.dataDir, what)
}
