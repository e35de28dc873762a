package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) verifyCmd() *cobra.Command {
	var trees []string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Rehash every file and report drift",
		Long: `Read every file of this node's trees and its blob store again, whatever its times
say, and compare with what the cluster committed. Nothing is changed.

Without a quorum it is compared with the newest revision that this node knows.

Exits 3 when something differs, and 5 when nothing does, but without a quorum
nobody can say whether there are newer revisions.`,
		Example: "  gatesync verify --data-dir /var/lib/gatesync",
		Args:    noArgs,
	}
	cmd.Flags().StringArrayVar(&trees, "tree", nil, "this tree only (repeatable)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := &verifyReport{app: a, drifts: []jsonDrift{}, bar: newProgress(a.Stderr)}
		err := a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			stream, err := c.Verify(cmd.Context(), &pb.VerifyRequest{Trees: trees})
			return each(stream, err, r.take)
		})
		r.bar.end()
		if err != nil {
			return err
		}
		return r.finish()
	}
	return a.jsonFlag(cmd)
}

// verifyReport gathers what comes out of a verify and prints it.
type verifyReport struct {
	app     *app
	bar     *progress
	drifts  []jsonDrift
	summary *pb.Summary
}

type jsonDrift struct {
	Tree string `json:"tree"`
	jsonPath
	What string `json:"what"`          // missing, extra, content, mode, kind, busy, unreadable, corrupt
	Size int64  `json:"size"`          // as committed
	Why  string `json:"why,omitempty"` // for people
}

func (r *verifyReport) take(ev *pb.VerifyEvent) error {
	switch {
	case ev.GetDrift() != nil:
		d := ev.GetDrift()
		r.drifts = append(r.drifts, jsonDrift{d.GetTree(), newJSONPath(d.GetPath()), d.GetWhat(), d.GetSize(), d.GetWhy()})
		if !r.app.json {
			fmt.Fprintf(r.app.Stdout, "%-10s %s: %s%s\n", d.GetWhat(), d.GetTree(), showPath(string(d.GetPath())), because(d.GetWhy()))
		}
	case ev.GetProgress() != nil:
		r.bar.show(ev.GetProgress())
	case ev.GetSummary() != nil:
		r.summary = ev.GetSummary()
	}
	return nil
}

// finish prints the end and says how it went.
func (r *verifyReport) finish() error {
	if r.app.json {
		if err := r.app.printJSON(struct {
			Revision uint64      `json:"revision"`
			Current  bool        `json:"current"` // there was a quorum: the cluster had no newer revision
			Bytes    uint64      `json:"bytes"`
			Drifts   []jsonDrift `json:"drifts"`
		}{r.summary.GetRevision(), !r.summary.GetPast(), r.summary.GetBytes(), r.drifts}); err != nil {
			return err
		}
	} else {
		drift := "no drift"
		if n := len(r.drifts); n > 0 {
			drift = "drift of " + plural(n, "path")
		}
		fmt.Fprintf(r.app.Stdout, "%s of content verified, %s at revision %s\n", size(r.summary.GetBytes()), drift, count(r.summary.GetRevision()))
	}
	switch {
	case len(r.drifts) > 0:
		return silent(errDifferences)
	case r.summary.GetPast():
		return fmt.Errorf("%w: nobody can say whether the cluster has a newer revision than %s", cluster.ErrNoQuorum, count(r.summary.GetRevision()))
	}
	return nil
}

// because puts a reason behind what it is about.
func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}
