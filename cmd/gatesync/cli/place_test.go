package cli

import (
	"testing"

	"github.com/gatesync/gatesync/config"
)

// A copy or a backup in a tree would spread to every gateway, the CA's key with it.
func TestPlacesThatAreSomebodys(t *testing.T) {
	t.Chdir(t.TempDir())
	cfg := config.Config{DataDir: "data", Trees: []config.Tree{{Name: "server", Path: "tree"}}}
	for place, free := range map[string]bool{
		"tree": false, "tree/backup": false, "./tree/../tree/d/x": false, "data/backup": false, "data": false,
		"backup": true, "trees/x": true, "data2": true,
	} {
		if err := placeOf(cfg, place); (err == nil) != free {
			t.Errorf("%s: %v", place, err)
		}
	}
}
