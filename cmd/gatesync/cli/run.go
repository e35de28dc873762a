package cli

import (
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/node"
)

func (a *app) runCmd() *cobra.Command {
	var seeds []string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground until SIGTERM or SIGINT; it then stops
cleanly within five seconds. It logs to standard error. SIGHUP makes it read
certificates of an own PKI anew at once; otherwise it looks once a minute.

Flags override gatesync.yaml for this run; GATESYNC_* variables stand in between.

Nodes find each other by the addresses that they last heard. Where all of them
have changed at once, --seed names one member's new address, on each node.`,
		Example: `  gatesync run --data-dir /var/lib/gatesync
  GATESYNC_LOG_LEVEL=debug gatesync run --data-dir /var/lib/gatesync --http 127.0.0.1:9000`,
		Args: noArgs,
	}
	keys := map[string]string{ // flag → key
		"listen": "listen", "advertise": "advertise", "http": "http", "share": "share",
		"scan-interval": "scan_interval", "log-level": "log.level", "log-format": "log.format",
	}
	cmd.Flags().String("listen", "", "the one port for everything between nodes")
	cmd.Flags().String("advertise", "", "what other nodes dial")
	cmd.Flags().StringSliceVar(&seeds, "seed", nil, "HOST:PORT of any member, where every remembered address has changed (repeatable)")
	cmd.Flags().String("http", "", "/healthz, /readyz, /metrics")
	cmd.Flags().String("share", "", "directory on a mount that other members see too")
	cmd.Flags().String("scan-interval", "", "time between full scans")
	cmd.Flags().String("log-level", "", "debug, info, warn, error")
	cmd.Flags().String("log-format", "", "text, json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		flags := map[string]string{}
		for flag, key := range keys {
			if f := cmd.Flags().Lookup(flag); f.Changed {
				flags[key] = f.Value.String()
			}
		}
		if len(seeds) > 0 {
			flags["seeds"] = strings.Join(seeds, ",")
		}
		cfg, err := a.load(flags)
		var wrong *config.FlagError
		if errors.As(err, &wrong) {
			return usage(cmd, wrong)
		}
		if err != nil {
			return err
		}
		reload := make(chan struct{}, 1)
		defer onHangup(reload)()
		return node.Serve(cmd.Context(), cfg, node.Options{Version: a.Version, Log: a.logger(cfg.Log), Reload: reload})
	}
	return cmd
}

// onHangup puts a token into ch at each SIGHUP, until the function that it
// returns is called.
func onHangup(ch chan<- struct{}) (stop func()) {
	hup, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hup {
			select {
			case ch <- struct{}{}:
			default: // it was asked already
			}
		}
	}()
	return func() {
		signal.Stop(hup)
		close(hup)
		<-done
	}
}

// logger is where the daemon logs. The settings were validated.
func (a *app) logger(l config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level))
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(a.Stderr, opts))
}
