package manifest

import "testing"

func TestPromise_OwnTree_LinksStayInside(t *testing.T) {
	for _, c := range []struct {
		at, target string
		out        bool
	}{
		{"l", "f", false}, {"d/l", "../f", false}, {"d/l", "./x//y", false}, {"a/b/l", "../..", false},
		{"l", "..", true}, {"l", "../x", true}, {"d/l", "../../x", true}, {"l", "/x", true}, {"l", "", true},
		{"d/l", "x/../y", true}, {"l", "a\x00b", true}, {"l", ".gatesync/marker.json", true},
	} {
		if err := CheckLink(Path(c.at), c.target); (err != nil) != c.out {
			t.Errorf("%s -> %q: %v", c.at, c.target, err)
		}
	}
}
