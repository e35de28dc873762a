package cli

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/config"
)

// defaultDataDir is where packages put a node's data.
const defaultDataDir = "/var/lib/gatesync"

// Program is gatesync with everything that it takes from its process.
type Program struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string
	Version        string   // "" when the build did not stamp one
	Executable     []string // how the demo starts more of us; nil: the running binary
}

// app is one run of a Program: its streams and the flags of all commands.
type app struct {
	Program
	dataDir string
	json    bool
}

// Run runs one command line and returns its exit code.
func (p Program) Run(ctx context.Context, args []string) int {
	if p.Version == "" {
		p.Version = buildVersion()
	}
	a := &app{Program: p}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := exitCode(err)
	if err != nil && !isSilent(err) {
		fmt.Fprintf(p.Stderr, "gatesync: %s\n", message(err))
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "gatesync",
		Short: "Keeps directories identical on every node of a gateway cluster",
		Long: `gatesync keeps directories identical on every node of a gateway cluster.

A daemon runs beside each gateway. Any node may be written to; what is written
on one stands on all, in one order, whole, and nothing is lost.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 differences found ·
4 held by a guard · 5 no quorum`,
		Example: `  # the first node, then its daemon
  gatesync init --data-dir /var/lib/gatesync --name gw1 --listen 10.0.0.1:7946 \
    --tree server=/opt/gateway/repository/deployment/server,preset=wso2
  gatesync run --data-dir /var/lib/gatesync

  # on the first node: a token; on the second: join with it
  gatesync token --data-dir /var/lib/gatesync
  gatesync join 10.0.0.1:7946 --token TOKEN --data-dir /var/lib/gatesync \
    --name gw2 --listen 10.0.0.2:7946 --tree server=/opt/gateway/repository/deployment/server

  # see it all work on this machine
  gatesync demo`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetIn(a.Stdin)
	root.SetFlagErrorFunc(wrongFlag)
	root.Version = a.Version
	root.SetVersionTemplate(versionLine(a.Version))
	root.SetHelpCommand(helpCmd())
	root.PersistentFlags().StringVar(&a.dataDir, "data-dir", a.env("DATA_DIR", defaultDataDir), "directory of this node's data and settings")
	root.PersistentFlags().Lookup("data-dir").DefValue = defaultDataDir
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddGroup(
		&cobra.Group{ID: "node", Title: "Set up and run a node:"},
		&cobra.Group{ID: "look", Title: "Look:"},
		&cobra.Group{ID: "act", Title: "Act:"},
		&cobra.Group{ID: "more", Title: "More:"},
	)
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	for _, c := range []struct {
		group string
		cmd   *cobra.Command
	}{
		{"node", a.initCmd()}, {"node", a.tokenCmd()}, {"node", a.joinCmd()}, {"node", a.runCmd()},
		{"look", a.statusCmd()}, {"look", a.membersCmd()}, {"look", a.logCmd()}, {"look", a.waitCmd()}, {"look", a.verifyCmd()}, {"look", a.doctorCmd()},
		{"look", a.conflictsCmd()}, {"look", a.heldCmd()},
		{"act", a.resyncCmd()}, {"act", a.pushCmd()}, {"act", a.receiveCmd()}, {"act", a.targetsCmd()}, {"act", a.approveCmd()}, {"act", a.restoreCmd()}, {"act", a.retryCmd()}, {"act", a.removeCmd()},
		{"act", a.promoteCmd()}, {"act", a.demoteCmd()}, {"act", a.transferCmd()}, {"act", a.rotateCACmd()},
		{"act", a.recoverCmd()}, {"act", a.backupCmd()}, {"act", a.restoreClusterCmd()}, {"act", a.materializeCmd()},
		{"more", a.demoCmd()}, {"more", a.versionCmd()},
	} {
		c.cmd.GroupID = c.group
		root.AddCommand(c.cmd)
	}
	documentExits(root)
	return root
}

// helpCmd is cobra's, but one that knows when it cannot help.
func helpCmd() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command",
		Example: "  gatesync help status",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || of.HasSubCommands() && len(rest) > 0 {
				return unknownCommand(of, rest[0])
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// env looks a variable up in the program's own environment.
func (a *app) env(name, otherwise string) string {
	prefix := config.EnvPrefix + name + "="
	for _, kv := range a.Environ {
		if v, ok := strings.CutPrefix(kv, prefix); ok && v != "" {
			return v
		}
	}
	return otherwise
}

// jsonFlag gives a command that prints facts its --json.
func (a *app) jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON for programs")
	return cmd
}

// buildVersion is the version of a binary that `go install` made.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
