package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) versionCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		Example: "  gatesync version --json",
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		if a.json {
			return a.printJSON(map[string]string{"version": a.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
		}
		fmt.Fprint(a.Stdout, versionLine(a.Version))
		return nil
	}
	return a.jsonFlag(cmd)
}

func versionLine(version string) string {
	return fmt.Sprintf("gatesync %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
