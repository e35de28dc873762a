package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatesync/gatesync/fallback/target"
)

// pushReport prints how a push went.
type pushReport struct {
	app    *app
	dryRun bool
	took   time.Duration
}

type jsonPush struct {
	Tree      string         `json:"tree"`
	Added     uint64         `json:"added"`
	Changed   uint64         `json:"changed"`
	Deleted   uint64         `json:"deleted"`
	Unchanged uint64         `json:"unchanged"`
	Files     int            `json:"files_sent"`
	Content   int64          `json:"content_bytes"`
	Resumed   int64          `json:"resumed_bytes"`
	Total     int64          `json:"total_bytes"`
	Sent      int64          `json:"wire_sent"`
	Received  int64          `json:"wire_received"`
	Paths     []jsonPushPath `json:"paths"`
}

type jsonPushPath struct {
	jsonPath
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
	Size int64  `json:"size"`
}

// finish prints the end and says how it went.
func (r pushReport) finish(done []target.Summary) error {
	if r.app.json {
		if err := r.app.printJSON(newJSONPushes(done)); err != nil {
			return err
		}
	} else if err := r.trees(done); err != nil {
		return err
	}
	held, failed, differences := 0, 0, 0
	for _, s := range done {
		held += s.Held()
		failed += s.Failed()
		differences += s.Differences()
	}
	switch {
	case r.dryRun && differences > 0:
		return silent(errDifferences)
	case failed > 0:
		return silent(errNotAll)
	case held > 0:
		return silent(errHeld)
	}
	return nil
}

// errNotAll: some paths could not be brought; they were named.
var errNotAll = errors.New("not everything could be pushed")

func newJSONPushes(done []target.Summary) []jsonPush {
	out := []jsonPush{}
	for _, s := range done {
		j := jsonPush{
			Tree: s.Tree, Added: s.Added, Changed: s.Changed, Deleted: s.Deleted, Unchanged: s.Unchanged,
			Files: s.Files, Content: s.Content, Resumed: s.Resumed, Total: s.Total, Sent: s.Sent, Received: s.Received, Paths: []jsonPushPath{},
		}
		for _, l := range s.Lines {
			j.Paths = append(j.Paths, jsonPushPath{newJSONPath([]byte(l.Path)), l.What, l.Why, l.Size})
		}
		out = append(out, j)
	}
	return out
}

// trees prints for people.
func (r pushReport) trees(done []target.Summary) error {
	if r.app.json {
		return nil
	}
	w := r.app.Stdout
	for _, s := range done {
		for _, l := range s.Lines {
			why := ""
			if l.Why != "" {
				why = " (" + l.Why + ")"
			}
			fmt.Fprintf(w, "%-7s %s: %s%s\n", l.What, s.Tree, showPath(string(l.Path)), why)
		}
		if r.dryRun {
			fmt.Fprintf(w, "%s: %s, %s unchanged\n", s.Tree, plural(s.Differences(), "difference"), count(s.Unchanged))
			continue
		}
		fmt.Fprintf(w, "%s: %s\n", s.Tree, pushWords(s, r.took))
	}
	return nil
}

// pushWords sums one tree up.
func pushWords(s target.Summary, took time.Duration) string {
	parts := []string{fmt.Sprintf("%s added, %s changed, %s deleted, %s unchanged", count(s.Added), count(s.Changed), count(s.Deleted), count(s.Unchanged))}
	if n := s.Held(); n > 0 {
		parts = append(parts, plural(n, "path")+" held")
	}
	if n := s.Failed(); n > 0 {
		parts = append(parts, plural(n, "path")+" failed")
	}
	wire := s.Sent + s.Received
	sent := fmt.Sprintf("the wire carried %s for %s of content in %s", size(wire), size(s.Content), duration(took))
	if saved := s.Total - wire; s.Total > 0 && saved > 0 {
		sent += fmt.Sprintf(", %.1f %% of the tree's %s saved", 100*float64(saved)/float64(s.Total), size(s.Total))
	}
	if s.Resumed > 0 {
		sent += fmt.Sprintf("; %s had arrived before", size(s.Resumed))
	}
	return strings.Join(append(parts, sent), "; ")
}
