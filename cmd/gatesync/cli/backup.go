package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/backup"
	"github.com/gatesync/gatesync/node"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) backupCmd() *cobra.Command {
	var check, force bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole cluster into one file, or check such a file",
		Long: `Write the committed trees, the retained history and the cluster's identity into
one file, of which "restore-cluster" makes the cluster again. Any member will do;
its daemon may run. "-" writes to standard output.

The file holds the key of the cluster's CA and everything in the trees: it is
made with mode 0600; keep it as safe as the gateways themselves. It appears under
its name only once it is complete and was read back; what stands there already
is replaced only with --force.

Not in it: edits that are not committed yet, what is held on a node, and what
conflicts have kept aside there.`,
		Example: `  gatesync backup --data-dir /var/lib/gatesync /backup/gatesync-$(date +%F)
  gatesync backup --check /backup/gatesync-2026-01-31
  gatesync backup - | ssh backup@host 'cat > gatesync.backup'`,
		Args: exactArgs("FILE"),
	}
	cmd.Flags().BoolVar(&check, "check", false, "write nothing: read FILE to its end and verify it")
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it exists, once the new one is complete")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, file := cmd.Context(), args[0]
		var sum backup.Summary
		var err error
		switch {
		case check && file == "-":
			_, sum, err = backup.Read(a.Stdin, nil)
		case check:
			sum, err = checkBackup(file)
		case file == "-":
			return a.writeBackup(ctx, a.Stdout)
		default:
			sum, err = a.backupTo(ctx, file, force)
		}
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(sum)
		}
		word := "wrote"
		if check {
			word = "checked"
		}
		fmt.Fprintf(a.Stdout, "%s %s: cluster %s at revision %d, %s (%s), by %s at %s\n",
			word, file, sum.Cluster, sum.Revision, plural(sum.Blobs, "blob"), size(sum.Bytes), sum.Node, stamp(sum.TimeNS))
		if sum.Lacking > 0 {
			fmt.Fprintf(a.Stdout, "%s of the history are not in it: that node did not have them\n", plural(sum.Lacking, "blob"))
		}
		if !check {
			fmt.Fprintln(a.Stdout, "it holds the key of the cluster's CA: keep it safe")
		}
		return nil
	}
	return a.jsonFlag(cmd)
}

// writeBackup has the daemon write a backup, or reads the data directory where
// none runs.
func (a *app) writeBackup(ctx context.Context, out io.Writer) error {
	err := a.withLocal(ctx, func(c pb.LocalClient) error {
		stream, err := c.Backup(ctx, &pb.BackupRequest{})
		return each(stream, err, func(m *pb.BackupChunk) error {
			_, err := out.Write(m.GetData())
			return err
		})
	})
	var stopped *local.NotRunningError
	if !errors.As(err, &stopped) {
		return err
	}
	cfg, err := a.load(nil)
	if err != nil {
		return err
	}
	skipped, err := node.BackupStopped(ctx, cfg, a.Version, out)
	if err == nil && skipped > 0 {
		fmt.Fprintf(a.Stderr, "gatesync: the last %d entries of this node's log may not be committed and are not in the backup; with the daemon running they would be\n", skipped)
	}
	return err
}

// backupTo writes a file beside, reads it back and renames it.
func (a *app) backupTo(ctx context.Context, file string, force bool) (sum backup.Summary, err error) {
	if cfg, err := a.load(nil); err == nil { // it must not spread with a tree; whatever else is wrong says itself
		if err := placeOf(cfg, file); err != nil {
			return sum, err
		}
	}
	if err := mayWrite(file, force); err != nil {
		return sum, err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".new-*") // mode 0600
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err // the name is nobody's business
		}
		return sum, fmt.Errorf("make a file in %s: %w", filepath.Dir(file), err)
	}
	defer os.Remove(f.Name()) // fails once it was renamed
	err = a.writeBackup(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return sum, err
	}
	if sum, err = checkBackup(f.Name()); err != nil {
		return sum, fmt.Errorf("what was written does not read back: %w", err)
	}
	if err := mayWrite(file, force); err != nil { // it took a while
		return sum, err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return sum, err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return sum, err
	}
	return sum, errors.Join(dir.Sync(), dir.Close())
}

// mayWrite refuses to replace what nobody asked to be replaced.
func mayWrite(file string, force bool) error {
	info, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory: name a file in it", file)
	case !force:
		return fmt.Errorf("%s exists: choose another name, or give --force to replace it", file)
	}
	return nil
}

func checkBackup(file string) (sum backup.Summary, err error) {
	f, err := os.Open(file)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	_, sum, err = backup.Read(f, nil)
	if err != nil {
		err = fmt.Errorf("%s: %w", file, err)
	}
	return sum, err
}

func (a *app) restoreClusterCmd() *cobra.Command {
	var f nodeFlags
	cmd := &cobra.Command{
		Use:   "restore-cluster FILE",
		Short: "Make the cluster again out of a backup, with this node as its first",
		Long: `Make the cluster again out of a backup, on a fresh machine: its trees, its
history and its identity, with this node as the only member. The other nodes
then join with tokens, as after init. "-" reads standard input.

The members of the old cluster are not members any more, and its tokens are
void. Make sure that no node of it runs: it would go on as the old cluster.

Files that already stand in the trees' directories and are not in the backup are
held (gatesync held).`,
		Example: `  gatesync restore-cluster /backup/gatesync-2026-01-31 --data-dir /var/lib/gatesync \
    --name gw1 --listen 10.0.0.1:7946 --tree server=/opt/apim/repository/deployment/server`,
		Args: exactArgs("FILE"),
	}
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := f.config(cmd, a)
		if err != nil {
			return err
		}
		in := a.Stdin
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		made, sum, err := node.RestoreCluster(cfg, in)
		if errors.Is(err, backup.ErrDamaged) {
			err = fmt.Errorf("%s: %w", args[0], err)
		}
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(struct {
				node.Made
				Backup backup.Summary `json:"backup"`
			}{made, sum})
		}
		fmt.Fprintf(a.Stdout, "made cluster %s again, as of revision %d, with its first node %s (%s)\n", made.Cluster, sum.Revision, cfg.Name, made.Node)
		a.sayWhereNodesDial(made)
		fmt.Fprintf(a.Stdout, `
next:
  gatesync run   --data-dir %[1]s     # start the daemon; it fills the trees
  gatesync token --data-dir %[1]s     # then: a token, with which the next node joins
`, a.dataDir)
		return nil
	}
	return a.jsonFlag(cmd)
}
