package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/node"
)

func TestShareLine(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	since := now.Add(-time.Hour)
	for _, c := range []struct {
		well    bool
		members []string
		want    string
	}{
		{false, []string{"gw2", "gw3"}, "not used for"},
		{true, nil, "no other member is known to see it"},
		{true, []string{"gw2"}, "only gw2 sees it too"},
		{true, []string{"gw2", "gw3"}, "with gw2, gw3"},
	} {
		line := shareLine(node.CarrierStatus{Name: "share", Path: "/mnt/x", Well: c.well, Members: c.members, Since: &since}, now)
		if !strings.HasPrefix(line, "/mnt/x: ") || !strings.Contains(line, c.want) {
			t.Errorf("well %v, members %v: %q", c.well, c.members, line)
		}
	}
}
