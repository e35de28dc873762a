package node

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// A wait for targets ends when the last of them has it; one that never will is
// late, with the reason.
func TestWaitForTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		list := func() []TargetStatus {
			edge := TargetStatus{Name: "edge", State: "pushing", Revision: 6}
			if time.Since(begun) >= time.Second {
				edge.State, edge.Revision = "current", 8
			}
			return []TargetStatus{{Name: "dmz", State: "current", Revision: 7}, edge}
		}
		s := &localService{targets: list}
		res := &pb.WaitResponse{}
		s.waitTargets(t.Context(), 7, res)
		if took := time.Since(begun); took < time.Second || !slices.Equal(res.GetTargets(), []string{"dmz", "edge"}) || len(res.GetLateTargets()) > 0 {
			t.Errorf("after %v: %v", took, res)
		}
		s.targets = func() []TargetStatus {
			return append(list(), TargetStatus{Name: "off", State: "unreachable", Error: "connection refused"})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		res = &pb.WaitResponse{}
		s.waitTargets(ctx, 7, res)
		if !slices.Equal(res.GetLateTargets(), []string{"off"}) || !strings.Contains(strings.Join(res.GetWhy(), ";"), "target off is unreachable: connection refused") {
			t.Error(res)
		}
	})
}
