package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/config"
)

// nodeFlags are what init and join are told about the new node.
type nodeFlags struct {
	name, listen, advertise, http string
	trees                         []string
	share                         string
	ca, cert, key                 string
	write, edits                  string
	treeless                      bool // a witness
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	d := config.Default()
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "how people call this node (required)")
	fl.StringVar(&f.listen, "listen", d.Listen, "the one port for everything between nodes")
	fl.StringVar(&f.advertise, "advertise", "", "what other nodes dial, where that is another address")
	fl.StringVar(&f.http, "http", d.HTTP, `/healthz, /readyz, /metrics; "" switches them off`)
	fl.StringArrayVar(&f.trees, "tree", nil, "NAME=PATH[,preset=P][,ignore=GLOB][,storage=auto|local|direct][,write=any|never][,edits=repair|report][,nudge=true]: a directory to keep in sync (repeatable)")
	fl.StringVar(&f.write, "write", "", "any (default) or never: whether gateways beside this node may edit its trees")
	fl.StringVar(&f.edits, "edits", "", "repair (default) or report: what becomes of edits with --write never")
	fl.StringVar(&f.share, "share", "", "directory on a mount that other members see too: content travels over it while it is well")
	fl.StringVar(&f.ca, "tls-ca", "", "CA certificates of your own PKI")
	fl.StringVar(&f.cert, "tls-cert", "", "this node's certificate of your own PKI")
	fl.StringVar(&f.key, "tls-key", "", "this node's key of your own PKI")
}

// config turns the flags into a new node's settings.
func (f *nodeFlags) config(cmd *cobra.Command, a *app) (config.Config, error) {
	cfg := config.Default()
	cfg.DataDir, cfg.Name, cfg.Listen, cfg.Advertise = a.dataDir, f.name, f.listen, f.advertise
	cfg.HTTP, cfg.Share = f.http, f.share
	cfg.WritePolicy, cfg.Edits = f.write, f.edits
	if cfg.Share != "" {
		abs, err := filepath.Abs(cfg.Share)
		if err != nil {
			return cfg, err
		}
		cfg.Share = abs
	}
	if !cmd.Flags().Changed("http") {
		cfg.HTTP = a.env("HTTP", cfg.HTTP)
	}
	cfg.TLS.CA, cfg.TLS.Cert, cfg.TLS.Key = f.ca, f.cert, f.key
	if f.name == "" {
		return cfg, usage(cmd, errors.New("--name is missing: how people will call this node"))
	}
	if len(f.trees) == 0 && !f.treeless {
		hint := ""
		if cmd.Flags().Lookup("witness") != nil {
			hint = " (or --witness: a voter without a tree)"
		}
		return cfg, usage(cmd, fmt.Errorf("--tree is missing: a directory to keep in sync, for example --tree server=/opt/gateway/conf%s", hint))
	}
	for _, s := range f.trees {
		t, err := config.ParseTree(s)
		if err != nil {
			return cfg, usage(cmd, err)
		}
		cfg.Trees = append(cfg.Trees, t)
	}
	if err := cfg.Validate(); err != nil {
		return cfg, usage(cmd, err)
	}
	return cfg, nil
}

// load reads a node's settings, with some keys set by flags for this run.
func (a *app) load(flags map[string]string) (config.Config, error) {
	cfg, err := config.Load(a.dataDir, config.Source{Environ: a.Environ, Flags: flags})
	var none *config.NoNodeError
	if errors.As(err, &none) {
		return cfg, a.noNode(none)
	}
	if err != nil {
		return cfg, fmt.Errorf("settings: %w", err)
	}
	return cfg, nil
}
