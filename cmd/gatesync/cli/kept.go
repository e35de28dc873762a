package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/gatesync/gatesync/fallback/target"
)

// listKept lists what pushes have displaced at a target.
func (a *app) listKept() error {
	list, err := target.Kept(a.dataDir)
	if err != nil {
		return err
	}
	if a.json {
		rows := []jsonConflict{}
		for _, k := range list {
			rows = append(rows, jsonConflict{
				ID: k.ID, Tree: k.Tree, jsonPath: newJSONPath([]byte(k.Path)), Time: time.Unix(0, k.Time).UTC(),
				Winner: uint64(k.Winner), Size: k.Lost.Size, Why: k.Why,
			})
		}
		return a.printJSON(rows)
	}
	if len(list) == 0 {
		fmt.Fprintln(a.Stdout, "no conflicts")
		return nil
	}
	rows := [][]string{{"ID", "TREE", "TIME", "SIZE", "PATH", "WHY"}}
	for _, k := range list {
		rows = append(rows, []string{k.ID, k.Tree, stamp(k.Time), size(k.Lost.Size), showPath(string(k.Path)), k.Why})
	}
	table(a.Stdout, rows)
	fmt.Fprintf(a.Stderr, "\n`gatesync conflicts show ID` prints what was kept; `drop ID` forgets it\n")
	return nil
}

// dropKept forgets what a target keeps.
func (a *app) dropKept(action string, ids []string, all bool) error {
	if action != "drop" {
		return errors.New("this is a target's data directory: what is pushed to it stands as it was pushed; " +
			"take what was kept with `gatesync conflicts show ID`, and put it where the pushes come from")
	}
	list, err := target.Kept(a.dataDir)
	if err != nil {
		return err
	}
	paths := map[string]string{}
	for _, k := range list {
		paths[k.ID] = showPath(string(k.Path))
		if all {
			ids = append(ids, k.ID)
		}
	}
	for _, id := range ids {
		if err := target.DropKept(a.dataDir, id); err != nil {
			return err
		}
		if !a.json {
			fmt.Fprintf(a.Stdout, "dropped %s  %s\n", id, paths[id])
		}
	}
	return nil
}
