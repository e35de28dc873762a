package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/transport"
)

func (a *app) receiveCmd() *cobra.Command {
	var listen, reserve, level string
	var stdio bool
	var trees []string
	cmd := &cobra.Command{
		Use:   "receive",
		Short: "Be the other end of a push: a target, which is no member of a cluster",
		Long: `Be the other end of ` + "`gatesync push`" + `: bring directories to what is pushed. A
target is no member of a cluster, runs as an ordinary user, and keeps nothing
but what it last agreed on, content on its way, and what a push has displaced: in
--data-dir, by default ` + defaultDataDir + `-target, with --stdio below ~/.local/state.

With --listen it waits for pushers on a port of its own, and prints the token
that they need. With --stdio it serves one push over standard input and output:
that is how push runs it over ssh.

An emptied or half source empties nothing here: too many deletions at once are
held, and so is whatever was made here (see push --delete).`,
		Example: `  gatesync receive --listen 0.0.0.0:7950 --data-dir /var/lib/gatesync-target \
    --tree server=/opt/gateway/repository/deployment/server,preset=wso2
  gatesync receive --stdio --tree server=/opt/gateway/conf`,
		Args: noArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&listen, "listen", "", "HOST:PORT to wait for pushers on")
	fl.BoolVar(&stdio, "stdio", false, "serve one push over standard input and output")
	fl.StringArrayVar(&trees, "tree", nil, "NAME=PATH[,preset=P][,ignore=GLOB]: a directory that may be pushed to (repeatable)")
	fl.StringVar(&reserve, "free-reserve", a.env("FREE_RESERVE", config.Default().FreeReserve.String()), "space on the disks that stays free")
	fl.StringVar(&level, "log-level", a.env("LOG_LEVEL", "info"), "debug, info, warn, error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (listen == "") == !stdio {
			return usage(cmd, errors.New("say either --listen HOST:PORT or --stdio"))
		}
		cfg := target.ReceiverConfig{Version: a.Version, DataDir: a.dataDir, Log: a.logger(config.Log{Level: level, Format: "text"})}
		free, err := config.ParseSize(reserve)
		if err != nil {
			return usage(cmd, fmt.Errorf("--free-reserve: %w", err))
		}
		cfg.Reserve = int64(free)
		told := cmd.Flags().Changed("data-dir") || a.env("DATA_DIR", "") != ""
		if err := a.receiveTrees(&cfg, trees, told, stdio); err != nil {
			return usage(cmd, err)
		}
		if _, err := os.Stat(config.Path(cfg.DataDir)); err == nil {
			return usage(cmd, fmt.Errorf("%s belongs to a node: a target needs a --data-dir of its own", cfg.DataDir))
		}
		if stdio {
			return a.receiveStdio(cmd.Context(), cfg)
		}
		return a.receiveListen(cmd.Context(), cfg, listen)
	}
	return a.jsonFlag(cmd)
}

// receiveTrees reads the --tree flags, by the rules of a node's settings, and
// finds the data directory unless it was told.
func (a *app) receiveTrees(cfg *target.ReceiverConfig, trees []string, told, stdio bool) error {
	if len(trees) == 0 {
		return errors.New("--tree is missing: a directory that may be pushed to, for example --tree server=/opt/gateway/conf")
	}
	check := config.Default()
	check.Name = "target"
	for _, s := range trees {
		t, err := config.ParseTree(s)
		if err != nil {
			return err
		}
		check.Trees = append(check.Trees, t)
	}
	switch {
	case told:
	case stdio:
		cfg.DataDir = a.stdioDataDir(check.Trees)
	default:
		cfg.DataDir = defaultDataDir + "-target"
	}
	cfg.Trees, check.DataDir = check.Trees, cfg.DataDir
	return check.Validate()
}

// stdioDataDir is where a target that nobody has set up keeps its data: in the
// user's own state, for each directory another one.
func (a *app) stdioDataDir(trees []config.Tree) string {
	base := ""
	for _, kv := range a.Environ {
		if v, ok := strings.CutPrefix(kv, "XDG_STATE_HOME="); ok && filepath.IsAbs(v) {
			base = v
		} else if v, ok := strings.CutPrefix(kv, "HOME="); ok && base == "" && v != "" {
			base = filepath.Join(v, ".local", "state")
		}
	}
	h := blake3.New()
	for _, t := range trees {
		fmt.Fprintf(h, "%q ", t.Path)
	}
	return filepath.Join(base, "gatesync", "targets", filepath.Base(trees[0].Path)+"-"+hex.EncodeToString(h.Sum(nil)[:6]))
}

// receiveStdio serves one push. Standard output belongs to the protocol.
func (a *app) receiveStdio(ctx context.Context, cfg target.ReceiverConfig) error {
	cfg.Log, cfg.Late = slog.New(slog.DiscardHandler), true
	conn := stdio{a.Stdin, a.Stdout}
	// Descriptors that are polled: else an end that is told to stop would hang
	// in a read until the other end says something.
	if in, ok := a.Stdin.(*os.File); ok {
		conn.Reader = polled(in)
	}
	if out, ok := a.Stdout.(*os.File); ok {
		conn.Writer = polled(out)
	}
	r, err := target.OpenReceiver(cfg)
	if err != nil {
		return errors.Join(target.Refuse(conn, err), err)
	}
	return errors.Join(r.Serve(ctx, conn), r.Close())
}

func polled(f *os.File) *os.File {
	fd := int(f.Fd())
	if unix.SetNonblock(fd, true) != nil {
		return f
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// stdio is the process's input and output as one stream.
type stdio struct {
	io.Reader
	io.Writer
}

// Close ends both, where they can be ended.
func (s stdio) Close() error {
	var errs []error
	for _, x := range []any{s.Reader, s.Writer} {
		if c, ok := x.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

func (a *app) receiveListen(ctx context.Context, cfg target.ReceiverConfig, listen string) error {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	key, err := target.LoadKey(cfg.DataDir)
	if err != nil {
		return err
	}
	cfg.Secret, cfg.Want = transport.SecretDigest, transport.SecretDigest(key.Token.Secret)
	r, err := target.OpenReceiver(cfg)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen on %s: %w: choose another host:port, or stop what uses this one", listen, err), r.Close())
	}
	if a.json {
		err = a.printLine(struct {
			Address     string `json:"address"`
			Fingerprint string `json:"fingerprint"`
			Token       string `json:"token"`
		}{ln.Addr().String(), key.Token.Fingerprint, key.Token.String()})
	} else {
		_, err = fmt.Fprintf(a.Stdout, "target on %s, fingerprint %s\ntoken %s\n", ln.Addr(), key.Token.Fingerprint, key.Token)
	}
	if err != nil {
		return errors.Join(err, ln.Close(), r.Close())
	}
	return errors.Join(r.Listen(ctx, ln, key.Identity), r.Close())
}
