package manifest

import "strings"

// Rank tells, for a preset, in which order what changes together is put in
// place: lower first. It is nil where the order does not matter.
func Rank(preset string) func(Path) int {
	if preset != "wso2" {
		return nil
	}
	// Synapse deploys what it finds: an API names sequences and endpoints, those
	// name templates and local entries.
	order := map[string]int{
		"local-entries": 1, "endpoints": 2, "templates": 3, "sequences": 4,
		"proxy-services": 6, "api": 7, "tasks": 8, "inbound-endpoints": 8,
	}
	return func(p Path) int {
		for dir := string(p.Dir()); dir != ""; {
			var name string
			if i := strings.LastIndexByte(dir, '/'); i >= 0 {
				dir, name = dir[:i], dir[i+1:]
			} else {
				dir, name = "", dir
			}
			if r := order[name]; r > 0 {
				return r
			}
		}
		return 5
	}
}
