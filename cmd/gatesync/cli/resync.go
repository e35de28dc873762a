package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/node"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) resyncCmd() *cobra.Command {
	var dryRun bool
	var from string
	var trees []string
	cmd := &cobra.Command{
		Use:   "resync",
		Short: "Bring this node's trees and the cluster together, once",
		Long: `Look at every path of this node's trees, propose what was edited here, and
materialize what was committed elsewhere. A running daemon does this by itself
all the time and is only asked to do it now; without a daemon the command does
it itself, with any member that it can reach, and ends when all is done.

Exits 3 when --dry-run finds differences, 4 when guards hold something back,
5 without a quorum.`,
		Example: `  gatesync resync --data-dir /var/lib/gatesync --dry-run
  gatesync resync --data-dir /var/lib/gatesync --from 10.0.0.1:7946`,
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list what differs")
	cmd.Flags().StringVar(&from, "from", "", "HOST:PORT of a member to begin with (without a daemon)")
	cmd.Flags().StringArrayVar(&trees, "tree", nil, "this tree only (repeatable)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, _, err := net.SplitHostPort(from); from != "" && err != nil {
			return usage(cmd, fmt.Errorf("--from %q is no HOST:PORT", from))
		}
		r := &resyncReport{app: a, dryRun: dryRun, bar: newProgress(a.Stderr)}
		err := a.resync(cmd.Context(), &pb.ResyncRequest{DryRun: dryRun, Trees: trees}, from, r.take)
		r.bar.end()
		if err != nil {
			return err
		}
		return r.finish()
	}
	return a.jsonFlag(cmd)
}

// resync asks the daemon, or does it without one.
func (a *app) resync(ctx context.Context, req *pb.ResyncRequest, from string, take func(*pb.ResyncEvent) error) error {
	err := a.withLocal(ctx, func(c pb.LocalClient) error {
		if from != "" && !a.json {
			fmt.Fprintln(a.Stderr, "a daemon runs here, which is asked to do it: it has members of its own to ask, not --from")
		}
		stream, err := c.Resync(ctx, req)
		return each(stream, err, take)
	})
	var off *local.NotRunningError
	if !errors.As(err, &off) {
		return err
	}
	cfg, err := a.load(nil)
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintln(a.Stderr, "no daemon runs here: doing it without one")
	}
	var log *slog.Logger
	if a.env("LOG_LEVEL", "") != "" { // a command is silent unless it is asked to tell
		log = a.logger(cfg.Log)
	}
	return node.Resync(ctx, cfg, node.ResyncOptions{
		DryRun: req.GetDryRun(), Trees: req.GetTrees(), From: from, Version: a.Version, Log: log,
	}, take)
}

// resyncReport gathers what comes out of a resync and prints it.
type resyncReport struct {
	app     *app
	dryRun  bool
	bar     *progress
	diffs   []jsonDifference
	summary *pb.Summary
}

// jsonResync is the end of a resync in JSON.
type jsonResync struct {
	Revision    uint64           `json:"revision"`
	Applied     *uint64          `json:"applied,omitempty"`   // not with --dry-run, which applies nothing
	Conflicts   *uint64          `json:"conflicts,omitempty"` // likewise
	Held        uint64           `json:"held"`
	Differences []jsonDifference `json:"differences"`
	Carried     *jsonCarried     `json:"carried,omitempty"` // not with --dry-run
}

// jsonCarried is what came and went meanwhile: bytes of content, and those that
// travelled for it.
type jsonCarried struct {
	ReceivedContent uint64 `json:"received_content_bytes"`
	ReceivedWire    uint64 `json:"received_wire_bytes"`
	SentContent     uint64 `json:"sent_content_bytes"`
	SentWire        uint64 `json:"sent_wire_bytes"`
}

type jsonDifference struct {
	Tree string `json:"tree"`
	jsonPath
	What string `json:"what"`
	// Local: the edit is this disk's and goes to the cluster; else it comes
	// from the cluster to this disk.
	Local bool   `json:"local"`
	Size  int64  `json:"size"`
	Why   string `json:"why,omitempty"` // for people
}

func (r *resyncReport) take(ev *pb.ResyncEvent) error {
	switch {
	case ev.GetDifference() != nil:
		r.difference(ev.GetDifference())
	case ev.GetProgress() != nil:
		r.bar.show(ev.GetProgress())
	case ev.GetSummary() != nil:
		r.summary = ev.GetSummary()
	}
	return nil
}

func (r *resyncReport) difference(d *pb.Difference) {
	r.diffs = append(r.diffs, jsonDifference{d.GetTree(), newJSONPath(d.GetPath()), d.GetWhat(), d.GetLocal(), d.GetSize(), d.GetWhy()})
	if !r.app.json {
		arrow := "<-" // from the cluster
		if d.GetLocal() {
			arrow = "->"
		}
		fmt.Fprintf(r.app.Stdout, "%s %-8s %s: %s%s\n", arrow, d.GetWhat(), d.GetTree(), showPath(string(d.GetPath())), because(d.GetWhy()))
	}
}

// finish prints the end and says how it went.
func (r *resyncReport) finish() error {
	s := r.summary
	if r.app.json {
		out := jsonResync{Revision: s.GetRevision(), Held: s.GetHeld(), Differences: list(r.diffs)}
		if !r.dryRun {
			out.Applied, out.Conflicts = &s.Applied, &s.Conflicts
			out.Carried = &jsonCarried{s.GetReceivedContent(), s.GetReceivedWire(), s.GetSentContent(), s.GetSentWire()}
		}
		if err := r.app.printJSON(out); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(r.app.Stdout, r.words())
	}
	switch {
	case len(r.diffs) > 0:
		return silent(errDifferences)
	case s.GetHeld() > 0:
		return silent(errHeld)
	}
	return nil
}

func (r *resyncReport) words() string {
	s := r.summary
	held := ""
	if s.GetHeld() > 0 {
		held = fmt.Sprintf("; %s held, see `gatesync held`", plural(s.GetHeld(), "path"))
	}
	switch {
	case r.dryRun && len(r.diffs) == 0:
		return fmt.Sprintf("nothing to do at revision %s%s", count(s.GetRevision()), held)
	case r.dryRun:
		return fmt.Sprintf("%s at revision %s (<- from the cluster, -> from this disk)%s", plural(len(r.diffs), "difference"), count(s.GetRevision()), held)
	}
	conflicts := ""
	if s.GetConflicts() > 0 {
		conflicts = fmt.Sprintf("; %s kept aside, see `gatesync conflicts`", plural(s.GetConflicts(), "conflict"))
	}
	return fmt.Sprintf("in sync at revision %s%s%s%s", count(s.GetRevision()), held, conflicts, carried(s))
}

// carried tells what the wire carried and what it saved.
func carried(s *pb.Summary) string {
	content, wire := s.GetReceivedContent()+s.GetSentContent(), s.GetReceivedWire()+s.GetSentWire()
	if content == 0 && wire == 0 {
		return ""
	}
	words := fmt.Sprintf("; the wire carried %s for %s of content", size(int64(wire)), size(int64(content)))
	if content > wire {
		words += fmt.Sprintf(", %.1f %% saved", 100*float64(content-wire)/float64(content))
	}
	return words
}
