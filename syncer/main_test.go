package syncer

import (
	"os"
	"testing"

	"github.com/gatesync/gatesync/integration/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }
