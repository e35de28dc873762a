package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) waitCmd() *cobra.Command {
	var revision uint64
	var targets bool
	timeout := 30 * time.Second
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until every live member has applied a revision",
		Long: `Wait until every live member has applied a revision: by default the newest,
after what was edited here has been committed. Members that do not answer are
named and not waited for. For pipelines: edit, wait, test.

With --targets it waits for the targets (see ` + "`gatesync targets`" + `), too, and for all
of them: a target that is off is late.

Exits 1 when the time is up, 5 when there is no quorum.`,
		Example: `  gatesync wait --data-dir /var/lib/gatesync
  gatesync wait --data-dir /var/lib/gatesync --revision 1234 --timeout 2m
  gatesync wait --data-dir /var/lib/gatesync --targets`,
		Args: noArgs,
	}
	cmd.Flags().Uint64Var(&revision, "revision", 0, "revision to wait for (default: the newest)")
	cmd.Flags().BoolVar(&targets, "targets", false, "wait until all targets have it, too")
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait; 0: until it is done")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if timeout < 0 {
			return usage(cmd, fmt.Errorf("--timeout %s: it must not be less than zero; 0 waits until it is done", timeout))
		}
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			res, err := c.Wait(cmd.Context(), &pb.WaitRequest{Revision: revision, TimeoutNs: int64(cmp.Or(timeout, saySoEvery)), Targets: targets})
			for err == nil && timeout == 0 && len(late(res)) > 0 { // for ever, but not in silence
				fmt.Fprintf(a.Stderr, "still waiting for %s: %s\n", strings.Join(late(res), ", "), whyLate(res))
				res, err = c.Wait(cmd.Context(), &pb.WaitRequest{Revision: res.GetRevision(), TimeoutNs: int64(saySoEvery), Targets: targets})
			}
			if err != nil {
				return err
			}
			if err := a.showWait(res); err != nil {
				return err
			}
			if late := late(res); len(late) > 0 {
				return fmt.Errorf("revision %d was not applied within %s by %s: %s", res.GetRevision(), timeout, strings.Join(late, ", "), whyLate(res))
			}
			return nil
		})
	}
	return a.jsonFlag(cmd)
}

// saySoEvery is how often a wait without an end tells what it waits for.
const saySoEvery = 30 * time.Second

// late names the members and targets that are.
func late(res *pb.WaitResponse) []string {
	return append(list(res.GetLate()), res.GetLateTargets()...)
}

// whyLate says what keeps the late ones, where that is known.
func whyLate(res *pb.WaitResponse) string {
	if len(res.GetWhy()) == 0 {
		return "`gatesync status` there tells why"
	}
	return strings.Join(res.GetWhy(), "; ")
}

func (a *app) showWait(res *pb.WaitResponse) error {
	if a.json {
		return a.printJSON(struct {
			Revision    uint64   `json:"revision"`
			Applied     []string `json:"applied"`
			Dead        []string `json:"dead"`
			Late        []string `json:"late"`
			Targets     []string `json:"targets"`
			LateTargets []string `json:"late_targets"`
			Why         []string `json:"why"`
		}{
			res.GetRevision(), list(res.GetApplied()), list(res.GetDead()), list(res.GetLate()),
			list(res.GetTargets()), list(res.GetLateTargets()), list(res.GetWhy()),
		})
	}
	fmt.Fprintf(a.Stdout, "revision %s is applied by %s\n", count(res.GetRevision()), strings.Join(res.GetApplied(), ", "))
	if at := res.GetTargets(); len(at) > 0 {
		fmt.Fprintf(a.Stdout, "and stands at the targets %s\n", strings.Join(at, ", "))
	}
	if dead := res.GetDead(); len(dead) > 0 {
		fmt.Fprintf(a.Stderr, "not waited for, as they do not answer: %s\n", strings.Join(dead, ", "))
	}
	return nil
}

// list is never null in JSON.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
