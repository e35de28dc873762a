package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	what    string // there is in the help; "": what is in most
	err     error
}

func (e *usageError) Error() string {
	return fmt.Sprintf("%s\nrun `%s -h` for %s", strings.TrimSpace(e.err.Error()), e.command, cmp.Or(e.what, "its flags and an example"))
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
		return usual + " · 3 something differs · 5 no quorum"
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

// wrongFlag says what is wrong with a flag. Where a command is unknown its flags
// are too, and the command is what matters.
func wrongFlag(cmd *cobra.Command, err error) error {
	if before := cmd.Flags().Args(); cmd.HasSubCommands() && len(before) > 0 {
		return unknownCommand(cmd, before[0])
	}
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		wanted := map[string]string{
			"duration": "a time like 30s, 5m or 1h", "uint32": "a number from 0 on", "uint64": "a number from 0 on", "bool": "true or false",
		}[bad.GetFlag().Value.Type()]
		if wanted != "" {
			err = fmt.Errorf("--%s %q: give it %s", bad.GetFlag().Name, bad.GetValue(), wanted)
		}
	}
	return usage(cmd, err)
}

func unknownCommand(cmd *cobra.Command, name string) error {
	s := fmt.Sprintf("unknown command %q", name)
	cmd.SuggestionsMinimumDistance = min(2, len(name)/2) // of three letters two are too many
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		s += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return &usageError{command: cmd.CommandPath(), what: "the commands that there are", err: errors.New(s)}
}

// noArgs and exactArgs are cobra's checks as usage errors.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return unknownCommand(cmd, args[0])
	}
	return usage(cmd, fmt.Errorf("%s takes no arguments, but was given: %s", cmd.Name(), strings.Join(args, " ")))
}

func exactArgs(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(what) {
			return nil
		}
		return usage(cmd, fmt.Errorf("%s takes exactly: %s", cmd.Name(), strings.Join(what, " ")))
	}
}
