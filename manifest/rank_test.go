package manifest_test

import (
	"slices"
	"testing"

	"github.com/gatesync/gatesync/manifest"
)

// What is named comes before what names it, also in a tenant's folder; what
// has no rank stands in between.
func TestRankPutsWhatIsNamedFirst(t *testing.T) {
	rank := manifest.Rank("wso2")
	paths := []manifest.Path{
		"server/synapse-configs/default/api/a.xml", "tenants/1/synapse-configs/default/tasks/t.xml",
		"server/synapse-configs/default/sequences/s.xml", "server/other.xml",
		"tenants/1/synapse-configs/default/endpoints/e.xml", "server/synapse-configs/default/local-entries/l.xml",
		"server/synapse-configs/default/templates/deep/er/x.xml",
	}
	slices.SortStableFunc(paths, func(a, b manifest.Path) int { return rank(a) - rank(b) })
	want := []manifest.Path{
		"server/synapse-configs/default/local-entries/l.xml", "tenants/1/synapse-configs/default/endpoints/e.xml",
		"server/synapse-configs/default/templates/deep/er/x.xml", "server/synapse-configs/default/sequences/s.xml",
		"server/other.xml", "server/synapse-configs/default/api/a.xml", "tenants/1/synapse-configs/default/tasks/t.xml",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("the order is %q", paths)
	}
	if manifest.Rank("plain") != nil || manifest.Rank("") != nil {
		t.Error("a preset without an order has one")
	}
}
