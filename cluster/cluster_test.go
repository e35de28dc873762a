package cluster

import (
	"errors"
	"fmt"
	"testing"
)

// What one attempt says of itself must not be taken for what is true of all.
func TestAnUnknownOutcomeHidesWhatTheLastAttemptSays(t *testing.T) {
	last := NotCommitted(fmt.Errorf("last attempt: %w", ErrNoQuorum))
	for what, err := range map[string]error{"itself": last, "wrapped": fmt.Errorf("in time: %w", last), "twice": NotCommitted(last)} {
		if !errors.Is(err, ErrNotCommitted) || !errors.Is(err, ErrNoQuorum) {
			t.Errorf("%s: %v", what, err)
		}
	}
	unknown := fmt.Errorf("propose: %w", OutcomeUnknown(fmt.Errorf("given up: %w", last)))
	if errors.Is(unknown, ErrNotCommitted) || !errors.Is(unknown, ErrNoQuorum) {
		t.Errorf("%v", unknown)
	}
	var leader *NotLeaderError
	if !errors.As(OutcomeUnknown(NotCommitted(&NotLeaderError{Leader: "n-1"})), &leader) || leader.Leader != "n-1" {
		t.Error("the cause is lost")
	}
	if NotCommitted(nil) != nil || OutcomeUnknown(nil) != nil {
		t.Error("no error became one")
	}
}
