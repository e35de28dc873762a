package syncer

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain waits for what was left behind in bounded time: on a busy machine the kernel
// may take seconds to close what was watched.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		var left error
		for range 100 { // each look takes about half a second, while something is left
			if left = goleak.Find(); left == nil {
				break
			}
		}
		if left != nil {
			fmt.Fprintln(os.Stderr, left)
			code = 1
		}
	}
	os.Exit(code)
}
