package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback/target"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/transport"
)

// pushFlags are what a push is told.
type pushFlags struct {
	from, to         string
	token, tokenFile string
	delete, limit    string
	trees            []string
	dryRun, fresh    bool

	ssh, remoteBinary, remoteDataDir string
	remoteReserve                    string
	preset                           string
	ignore                           []string
}

func (a *app) pushCmd() *cobra.Command {
	f := &pushFlags{}
	cmd := &cobra.Command{
		Use:   "push TARGET",
		Short: "Bring a target, which is no member, to what is committed here, or to a folder, once",
		Long: `Bring directories of another host to what the cluster has committed (the daemon
of --data-dir is asked), or with --from to what stands in a folder, with no
cluster at all. Digests decide what differs; of what differs only what is new
about it travels; everything is staged over there, verified, and swapped in.

TARGET is HOST:PORT of a ` + "`gatesync receive --listen`" + `, whose token is given with
--token, --token-file or GATESYNC_TOKEN; or ssh://user@host[:port]/path, over the
system's ssh with all of its configuration (ssh://host/~/path: below the home
directory), where nothing but the gatesync binary has to be installed.

What stands at the target and not here:
  --delete=held  deletes what an earlier push has brought, unless it is too much
                 at once; holds what was made over there (the default)
  --delete=yes   deletes it; what no push has brought is kept aside first
  --delete=no    deletes nothing
An edit made over there is kept aside when it is displaced: see
` + "`gatesync conflicts --data-dir`" + ` of the target.

A push that was interrupted goes on where it was when it is run again.`,
		Example: `  gatesync push --data-dir /var/lib/gatesync gw9.example.com:7950 --token-file gw9.token
  gatesync push --from ./artifacts ssh://deploy@gw9.example.com/opt/gateway/conf --dry-run
  gatesync push --from ./artifacts ssh://gw9/opt/gateway/conf --preset wso2 --limit 10MB/s`,
		Args: exactArgs("TARGET"),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.from, "from", "", "the folder to push; without it, what the cluster has committed")
	fl.BoolVar(&f.dryRun, "dry-run", false, "only list what differs")
	fl.StringVar(&f.delete, "delete", string(target.DeleteHeld), "held, yes, no: what becomes of what stands only there")
	fl.StringArrayVar(&f.trees, "tree", nil, "this tree only (repeatable); with --from: the target's tree to push to")
	a.tokenFlags(cmd, f)
	fl.BoolVar(&f.fresh, "fresh-root", false, "the target's directory may have lost its marker: fill it anew")
	fl.StringVar(&f.ssh, "ssh", "ssh", "the ssh command with its options")
	a.remoteFlags(cmd, f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.to = args[0]
		return a.push(cmd, f)
	}
	return a.jsonFlag(cmd)
}

func (a *app) tokenFlags(cmd *cobra.Command, f *pushFlags) {
	fl := cmd.Flags()
	fl.StringVar(&f.token, "token", a.env("TOKEN", ""), "the target's `token`, as gatesync receive printed it")
	fl.Lookup("token").DefValue = ""
	fl.StringVar(&f.tokenFile, "token-file", "", "a file with the target's token")
	fl.StringVar(&f.limit, "limit", "", "send at most so much, for example 10MB/s")
}

func (a *app) remoteFlags(cmd *cobra.Command, f *pushFlags) {
	fl := cmd.Flags()
	fl.StringVar(&f.remoteBinary, "remote-binary", "gatesync", "gatesync on the target's host (ssh)")
	fl.StringVar(&f.remoteDataDir, "remote-data-dir", "", "the target's data directory (ssh); by default below ~/.local/state/gatesync")
	fl.StringVar(&f.remoteReserve, "remote-free-reserve", "", "space that stays free over there (ssh)")
	fl.StringVar(&f.preset, "preset", "", "what is ignored over there: plain, wso2 (ssh)")
	fl.StringArrayVar(&f.ignore, "ignore", nil, "a glob that is ignored over there (ssh, repeatable)")
}

func (a *app) push(cmd *cobra.Command, f *pushFlags) error {
	o := target.Options{Version: a.Version, Delete: target.Policy(f.delete), DryRun: f.dryRun, Fresh: f.fresh}
	if !o.Delete.Valid() {
		return usage(cmd, fmt.Errorf("--delete=%s: say held, yes or no", f.delete))
	}
	var err error
	if o.Limit, err = parseLimit(f.limit); err != nil {
		return usage(cmd, err)
	}
	over, err := a.way(cmd, f)
	if err != nil {
		return err
	}
	if f.from == "" && f.limit == "" {
		if cfg, err := a.load(nil); err == nil { // without one the daemon does not answer either
			o.Limit = int64(cfg.Limit)
		}
	}
	if f.from == "" {
		return a.withLocal(cmd.Context(), func(c pb.LocalClient) error {
			src, err := committed(cmd.Context(), c, f.trees, &o)
			if err != nil {
				return err
			}
			return a.pushOver(cmd, over, src, o)
		})
	}
	if len(f.trees) > 1 {
		return usage(cmd, errors.New("--from pushes one folder: name one --tree of the target"))
	}
	o.Trees = []string{""}
	if len(f.trees) == 1 {
		o.To = f.trees[0]
	}
	src, err := target.OpenFolder(f.from)
	if err != nil {
		return err
	}
	defer src.Close()
	return a.pushOver(cmd, over, src, o)
}

// parseLimit reads a --limit, "" for none.
func parseLimit(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := config.ParseRate(s)
	if err != nil || n < 1024 {
		return 0, fmt.Errorf("--limit %q: write it like 10MB/s, and at least 1KB/s", s)
	}
	return int64(n), nil
}

// way is how a target is reached; explain says more about a failed push.
type way struct {
	dial    func(ctx context.Context) (io.ReadWriteCloser, error)
	explain func(error) error
	secret  transport.Token
}

func (a *app) way(cmd *cobra.Command, f *pushFlags) (*way, error) {
	w := &way{explain: func(err error) error { return err }}
	s, isSSH, err := target.ParseSSH(f.to)
	if err != nil {
		return nil, usage(cmd, err)
	}
	if !isSSH {
		if w.secret, err = f.parseToken(); err != nil {
			return nil, usage(cmd, err)
		}
		w.dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
			return transport.DialTarget(ctx, f.to, w.secret)
		}
		return w, nil
	}
	name := "tree"
	if len(f.trees) == 1 {
		name = f.trees[0]
	} else if f.from == "" || len(f.trees) > 1 {
		return nil, usage(cmd, errors.New("an ssh target is one directory: name the tree to push with --tree"))
	}
	tree, err := s.Tree(name, f.preset, f.ignore)
	if err != nil {
		return nil, usage(cmd, err)
	}
	o := target.SSHOptions{Command: strings.Fields(f.ssh), Binary: f.remoteBinary, Tree: tree, DataDir: f.remoteDataDir}
	if f.remoteReserve != "" {
		o.Args = []string{"--free-reserve", f.remoteReserve}
	}
	w.dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := s.Dial(ctx, o)
		if err != nil {
			return nil, err
		}
		w.explain = conn.Explain
		return conn, nil
	}
	return w, nil
}

// parseToken finds the token of a listening target.
func (f *pushFlags) parseToken() (transport.Token, error) {
	text := f.token
	if f.tokenFile != "" {
		b, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return transport.Token{}, err
		}
		text = string(b)
	}
	if text == "" {
		return transport.Token{}, errors.New("--token is missing: `gatesync receive --listen` prints it when it starts (a target over ssh is written ssh://host/path)")
	}
	return transport.ParseToken(text)
}

// pushOver opens the stream, pushes and reports.
func (a *app) pushOver(cmd *cobra.Command, w *way, src target.Source, o target.Options) error {
	bar := newPushProgress(a.Stderr)
	o.Progress = bar.show
	o.TokenID, o.Secret = w.secret.ID, w.secret.Secret
	conn, err := w.dial(cmd.Context())
	if err != nil {
		bar.end()
		return err
	}
	done, err := target.Push(cmd.Context(), conn, src, o)
	bar.end()
	report := pushReport{app: a, dryRun: o.DryRun, took: bar.took()}
	if err != nil {
		if perr := report.trees(done); perr != nil {
			return perr
		}
		return w.explain(err)
	}
	return errors.Join(w.explain(nil), report.finish(done))
}
