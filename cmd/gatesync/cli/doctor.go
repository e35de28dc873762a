package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/doctor"
	"github.com/gatesync/gatesync/doctor/probe"
	"github.com/gatesync/gatesync/node"
)

// errProblems: the doctor has found problems, and has printed them.
var errProblems = errors.New("problems found")

func (a *app) doctorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong around this node, and what to do about it",
		Long: `Look at what gatesync stands on: the data directory, kernel limits, the way to
every other member (with both clocks and certificates), the majority, and for
each tree its directory, its filesystem or mount, the mount's options, the file
server's clock, and whether other members have the same directory.

Each finding comes with its remedy. A problem means that something does not work
or content is in danger; a warning, that something will hurt; a note is worth
knowing. The daemon may run or not. What is tried out in a tree lies under
.gatesync in its root and is removed again; a directory that hangs is a finding
after some seconds.

Exits 1 when there are problems, 0 when there are none.`,
		Example: `  gatesync doctor --data-dir /var/lib/gatesync
  gatesync doctor --data-dir /var/lib/gatesync --json`,
		Args: noArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := a.load(nil)
		if err != nil {
			return err
		}
		facts, err := gatherFacts(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		checks := doctor.Examine(facts)
		problems := doctor.Count(checks, doctor.Problem)
		if a.json {
			err = a.printJSON(struct {
				Problems int            `json:"problems"`
				Warnings int            `json:"warnings"`
				Checks   []doctor.Check `json:"checks"`
				Facts    doctor.Facts   `json:"facts"`
			}{problems, doctor.Count(checks, doctor.Warning), checks, facts})
		} else {
			a.showChecks(checks)
		}
		if err == nil && problems > 0 {
			err = silent(errProblems)
		}
		return err
	}
	return a.jsonFlag(cmd)
}

// gatherFacts looks at everything. The trees are visited at the same time: one
// that hangs holds nobody up.
func gatherFacts(ctx context.Context, cfg config.Config) (f doctor.Facts, err error) {
	s, err := node.Survey(ctx, cfg)
	if err != nil {
		return f, err
	}
	var machine probe.Machine
	f.Now, f.User = time.Now(), doctor.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	f.Data = machine.Data(cfg.DataDir, s.KeyFile, int64(cfg.FreeReserve))
	f.Data.Damaged, f.Data.DaemonPID, f.Data.DaemonHung = s.Damaged, s.DaemonPID, s.DaemonHung
	f.Data.DaemonUID = machine.Owner(s.DaemonPID)
	f.Limits = machine.Limits(s.DaemonPID)
	visits := make([]*probe.Visit, len(cfg.Trees))
	var under sync.WaitGroup
	for i, t := range cfg.Trees {
		under.Go(func() {
			visits[i] = machine.Visit(probe.Asked{Name: t.Name, Path: t.Path, Storage: t.Storage, UID: f.User.UID,
				Judge: func(marker []byte) error { return s.JudgeMarker(t.Name, marker) }})
		})
	}
	if cfg.Share != "" {
		under.Go(func() {
			v := machine.Visit(probe.Asked{Name: "share", Path: cfg.Share, UID: f.User.UID, Judge: func([]byte) error { return nil }})
			v.Close()
			f.Share = &v.Tree
		})
	}
	under.Wait()
	nonces := map[string]string{}
	for _, v := range visits {
		if v.Nonce != "" {
			nonces[v.Tree.Name] = v.Nonce
		}
	}
	f.Cluster = s.Ask(ctx, nonces)
	for _, v := range visits {
		v.Close()
		f.Trees = append(f.Trees, v.Tree)
	}
	doctor.Nest(f.Trees, cfg.DataDir)
	return f, nil
}

func (a *app) showChecks(checks []doctor.Check) {
	for _, c := range checks {
		word := "fine"
		for _, sev := range []doctor.Severity{doctor.Problem, doctor.Warning, doctor.Note} {
			if n := doctor.Count([]doctor.Check{c}, sev); n > 0 {
				word = plural(n, string(sev))
				break
			}
		}
		fmt.Fprintf(a.Stdout, "%-20s %s\n", c.Name, word)
		for _, x := range c.Findings {
			subject := ""
			if x.Subject != "" {
				subject = showPath(x.Subject) + ": "
			}
			fmt.Fprintf(a.Stdout, "  %-8s %s%s\n", x.Severity, subject, strings.ReplaceAll(x.What, "\n", "\n           "))
			if x.Remedy != "" {
				fmt.Fprintf(a.Stdout, "           do: %s\n", x.Remedy)
			}
		}
	}
	problems, warnings := doctor.Count(checks, doctor.Problem), doctor.Count(checks, doctor.Warning)
	if problems+warnings == 0 {
		fmt.Fprintln(a.Stdout, "all is well")
		return
	}
	fmt.Fprintf(a.Stdout, "%s, %s\n", plural(problems, "problem"), plural(warnings, "warning"))
}
