package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/cluster"
)

// The exit codes, documented in the root command's help.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDifferences = 3
	exitHeld        = 4
	exitNoQuorum    = 5
)

var (
	// errDifferences: the command worked and found differences; it has
	// printed them.
	errDifferences = errors.New("differences found")
	// errHeld: the command worked, but guards hold something back.
	errHeld = errors.New("held by a guard")
)

// usageError is a command line that cannot be meant.
type usageError struct {
	command string // to ask for help
	err     error
}

func (e *usageError) Error() string {
	return fmt.Sprintf("%s\nrun `%s -h` for its flags and an example", strings.TrimSpace(e.err.Error()), e.command)
}

func (e *usageError) Unwrap() error { return e.err }

func usage(cmd *cobra.Command, err error) error {
	return &usageError{command: cmd.CommandPath(), err: err}
}

// silentError is an error whose facts the command has printed already.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

func silent(err error) error { return silentError{err} }

func isSilent(err error) bool {
	var s silentError
	return errors.As(err, &s)
}

// exitCode maps every way a command can end to what the shell sees.
func exitCode(err error) int {
	var u *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &u):
		return exitUsage
	case errors.Is(err, errDifferences):
		return exitDifferences
	case errors.Is(err, errHeld):
		return exitHeld
	case errors.Is(err, cluster.ErrNoQuorum):
		return exitNoQuorum
	}
	return exitFailed
}

// exitsOf documents the exit codes of a command, by its name (with its parent's
// where it has one).
func exitsOf(command string) string {
	usual := "0 done · 1 failed · 2 wrong usage"
	switch command {
	case "verify":
		return usual + " · 3 something differs"
	case "materialize":
		return usual + " · 3 written in part (--partial)"
	case "resync":
		return usual + " · 3 differences found (--dry-run) · 4 held by a guard · 5 no quorum"
	case "push":
		return "0 done · 1 failed, or not everything could be pushed · 2 wrong usage · 3 differences found (--dry-run) · 4 held by a guard"
	case "doctor":
		return "0 no problems · 1 problems found, or failed · 2 wrong usage"
	case "wait", "token", "remove", "promote", "demote", "transfer", "rotate-ca":
		return usual + " · 5 no quorum"
	}
	return usual
}

// documentExits puts the exit codes into the help of every command.
func documentExits(root *cobra.Command) {
	const key = "exits"
	root.SetUsageTemplate(root.UsageTemplate() + "{{with .Annotations." + key + "}}\nExit codes: {{.}}\n{{end}}")
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Runnable() {
				sub.Annotations = map[string]string{key: exitsOf(strings.TrimPrefix(sub.CommandPath(), root.Name()+" "))}
			}
			walk(sub)
		}
	}
	walk(root)
}

// message is what a person reads about an error, with what to do next.
func message(err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.Is(err, cluster.ErrNoQuorum):
		return err.Error() + "\nsee `gatesync status` for who is missing; local edits wait and nothing is thrown away"
	}
	return err.Error()
}

// noArgs and exactArgs are cobra's checks as usage errors.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		s := fmt.Sprintf("unknown command %q", args[0])
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			s += fmt.Sprintf("; did you mean %q?", near[0])
		}
		return usage(cmd, errors.New(s))
	}
	return usage(cmd, fmt.Errorf("%s takes no arguments, but was given %q", cmd.CommandPath(), args))
}

func exactArgs(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(what) {
			return nil
		}
		return usage(cmd, fmt.Errorf("%s takes exactly: %s", cmd.CommandPath(), strings.Join(what, " ")))
	}
}
