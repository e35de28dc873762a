package standing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/integration/standing"
)

func TestDiffers(t *testing.T) {
	want := standing.Tree{"a": "1", "b": "2", "c": "3"}
	if err := want.Differs(standing.Tree{"a": "1", "b": "2", "c": "3"}); err != nil {
		t.Errorf("equal trees: %v", err)
	}
	got := fmt.Sprint(want.Differs(standing.Tree{"a": "1", "c": "4", "d": "5"}))
	for _, s := range []string{"3 paths differ", `missing "b" (2)`, `"c" is 4, want 3`, `extra "d" (5)`} {
		if !strings.Contains(got, s) {
			t.Errorf("no %s in %s", s, got)
		}
	}
	many := standing.Tree{}
	for i := range 100 {
		many[fmt.Sprint(i)] = "-"
	}
	if got := fmt.Sprint(many.Differs(standing.Tree{})); !strings.HasPrefix(got, "100 paths") || strings.Count(got, "missing") > 12 {
		t.Errorf("too many are named: %s", got)
	}
}
