package doctor

import "strings"

// Nest notes which trees, and the data directory, lie in one another, symlinks
// resolved. The settings refuse what their names alone show.
func Nest(trees []Tree, dataDir string) {
	for i := range trees {
		t := &trees[i]
		if t.Real == "" {
			continue
		}
		if nested(t.Real, dataDir) {
			t.Within = append(t.Within, "the data directory "+dataDir)
		}
		for j, o := range trees {
			if j != i && o.Real != "" && nested(t.Real, o.Real) {
				t.Within = append(t.Within, "tree "+o.Name+" ("+o.Real+")")
			}
		}
	}
}

func nested(a, b string) bool {
	a, b = strings.TrimSuffix(a, "/")+"/", strings.TrimSuffix(b, "/")+"/"
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}
