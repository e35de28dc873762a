// Command gatesync keeps directories identical on every node of a gateway
// cluster. Everything it does is in package cli; this file only gives it the
// process.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/gatesync/gatesync/cmd/gatesync/cli"
)

// version is stamped by the build: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	program := cli.Program{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Environ: os.Environ(), Version: version,
	}
	code := program.Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
