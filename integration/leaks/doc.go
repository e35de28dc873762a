// Package leaks looks for goroutines that a package's tests have left behind, as
// goleak does, but for longer: on a busy machine the kernel may take seconds to close
// what was watched. The tests of what watches or hangs call it from their TestMain.
package leaks

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// looks is how often is looked, each for about half a second while something is left.
const looks = 100

// Run runs the tests and returns what the process is to end with: an error, too, if
// any goroutine of theirs stays.
func Run(m *testing.M) (code int) {
	if code = m.Run(); code != 0 {
		return code
	}
	if err := find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func find() (left error) {
	for range looks {
		if left = goleak.Find(); left == nil {
			break
		}
	}
	return left
}
