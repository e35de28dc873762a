package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/checkout"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/node"
	"github.com/gatesync/gatesync/node/local"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func (a *app) materializeCmd() *cobra.Command {
	var to string
	req := &pb.MaterializeRequest{}
	cmd := &cobra.Command{
		Use:   "materialize",
		Short: "Write a copy of a tree, as of any kept revision, into an empty directory",
		Long: `Write a copy of a tree into a directory, out of this node's own blobs: the newest
revision, or one that the history still holds. For a gateway whose shared mount
or disk is gone: point it to the copy and it serves again.

The tree's own directory is neither read nor written, so this works while it
hangs or is gone for good; with or without a running daemon. The directory must
be empty or absent: nothing is overwritten. What is written is verified by its
digest, flushed, and only then moved into place. The copy is no tree: what is
changed in it goes nowhere.

Without a majority, or without a daemon, the newest revision is the newest of
this node; it says so, and which revision is surely committed.

Content that this node lacks is fetched from the other members by the daemon.
What cannot be had is named, and nothing is written (exit code 1); with --partial
the rest is (exit code 3).`,
		Example: `  gatesync materialize --data-dir /var/lib/gatesync --tree server --to /srv/server-copy
  gatesync materialize --data-dir /var/lib/gatesync --tree server --revision 1200 --to /tmp/before`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&req.Tree, "tree", "", "the tree (needed where there are several)")
	cmd.Flags().StringVar(&to, "to", "", "an empty directory, or one to be made (required)")
	cmd.Flags().Uint64Var(&req.Revision, "revision", 0, "as of this revision (default: the newest)")
	cmd.Flags().BoolVar(&req.Partial, "partial", false, "go on without content that cannot be had")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" {
			return usage(cmd, errors.New("--to is missing: an empty directory, or one to be made"))
		}
		cfg, err := a.load(nil)
		if err != nil {
			return err
		}
		if req.Tree == "" && len(cfg.Trees) == 1 {
			req.Tree = cfg.Trees[0].Name
		}
		if req.Tree == "" {
			return usage(cmd, errors.New("--tree is missing: which of the trees"))
		}
		if err := placeOf(cfg, to); err != nil {
			return err
		}
		return a.materialize(cmd.Context(), cfg, req, to)
	}
	return a.jsonFlag(cmd)
}

// placeOf refuses places that are somebody's. It compares names alone: a
// tree's directory must not be touched.
func placeOf(cfg config.Config, to string) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	within := func(dir string) bool {
		dir, err := filepath.Abs(dir)
		return err == nil && strings.HasPrefix(to+"/", dir+"/")
	}
	for _, t := range cfg.Trees {
		if within(t.Path) {
			return fmt.Errorf("%s is, or lies in, the directory of tree %s: name another place; `gatesync restore` fills a tree's own directory anew", to, t.Name)
		}
	}
	if within(cfg.DataDir) {
		return fmt.Errorf("%s lies in the data directory: name another place", to)
	}
	return nil
}

func (a *app) materialize(ctx context.Context, cfg config.Config, req *pb.MaterializeRequest, to string) error {
	dir, err := checkout.Open(to)
	if err != nil {
		return err
	}
	m := &materialization{app: a, dir: dir, tree: req.GetTree(), bar: newProgress(a.Stderr)}
	err = a.streamMaterialize(ctx, cfg, req, m.take)
	m.bar.end()
	if err = m.whole(err); err != nil || len(m.missing) > 0 && !req.GetPartial() {
		err = errors.Join(err, dir.Abort())
	} else {
		err = dir.Commit()
		m.written = err == nil
	}
	if err != nil {
		return err
	}
	return m.finish()
}

// streamMaterialize asks the daemon, or reads the data directory where none
// runs.
func (a *app) streamMaterialize(ctx context.Context, cfg config.Config, req *pb.MaterializeRequest, take func(*pb.MaterializeEvent) error) error {
	err := a.withLocal(ctx, func(c pb.LocalClient) error {
		stream, err := c.Materialize(ctx, req)
		return each(stream, err, take)
	})
	var stopped *local.NotRunningError
	if !errors.As(err, &stopped) {
		return err
	}
	return node.MaterializeStopped(ctx, cfg, req, take)
}

// materialization takes the events of one revision and fills a directory.
type materialization struct {
	app     *app
	dir     *checkout.Dir
	tree    string
	bar     *progress
	written bool

	head    *pb.MaterializeHead
	missing []jsonMissing
	files   uint64
	dirs    uint64
	links   uint64
	bytes   uint64
	seen    uint64
	// of the file whose content is coming
	path  manifest.Path
	entry manifest.Entry
	pipe  *io.PipeWriter
	put   chan error
}

type jsonMissing struct {
	jsonPath
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// errVoid ends a file whose content turned out to be damaged.
var errVoid = errors.New("damaged")

func (m *materialization) take(ev *pb.MaterializeEvent) error {
	switch of := ev.GetOf().(type) {
	case *pb.MaterializeEvent_Head:
		m.head = of.Head
	case *pb.MaterializeEvent_Missing:
		e := of.Missing.GetEntry()
		digest, err := manifest.DigestFromBytes(e.GetDigest())
		if err != nil {
			return err
		}
		m.missing = append(m.missing, jsonMissing{newJSONPath(of.Missing.GetPath()), digest.String(), e.GetSize()})
	case *pb.MaterializeEvent_Entry:
		return m.begin(of.Entry)
	case *pb.MaterializeEvent_Data:
		if m.pipe == nil {
			return errors.New("content came without a file")
		}
		if _, err := m.pipe.Write(of.Data); err != nil {
			return m.end(err)
		}
	case *pb.MaterializeEvent_Whole:
		if of.Whole {
			return m.end(nil)
		}
		if err := m.end(errVoid); !errors.Is(err, errVoid) {
			return err
		}
	}
	return nil
}

// begin stages an entry; a file's is staged beside, while its content comes.
func (m *materialization) begin(t *pb.TreeNode) error {
	if m.pipe != nil {
		return errors.New("an entry came before the content of the last had ended")
	}
	n, err := proto.ToNode(t.GetNode())
	if err != nil {
		return err
	}
	m.path, m.entry = manifest.Path(t.GetPath()), n.Entry
	if !n.Entry.HasContent() {
		if err := m.dir.Put(m.path, n.Entry, nil); err != nil {
			return err
		}
		m.count()
		return nil
	}
	r, w := io.Pipe()
	m.pipe, m.put = w, make(chan error, 1)
	go func() {
		err := m.dir.Put(m.path, m.entry, r)
		_ = r.CloseWithError(err) // always nil
		m.put <- err
	}()
	return nil
}

// end ends the content of the latest file and waits until it is staged.
func (m *materialization) end(err error) error {
	if m.pipe == nil {
		return errors.New("content ended without a file")
	}
	_ = m.pipe.CloseWithError(err) // always nil; nil is EOF
	m.pipe = nil
	if err = <-m.put; err == nil {
		m.count()
	}
	return err
}

func (m *materialization) count() {
	switch {
	case m.entry.IsDir():
		m.dirs++
	case m.entry.HasContent():
		m.files++
		m.bytes += uint64(m.entry.Size)
	default:
		m.links++
	}
	m.seen++
	m.bar.show(&pb.Progress{Tree: m.tree, Done: m.seen, Total: m.head.GetEntries()})
}

// whole tells whether all that was announced has come, after a stream that
// ended with err. It also ends a file that was cut off.
func (m *materialization) whole(err error) error {
	if m.pipe != nil {
		cut := m.end(io.ErrUnexpectedEOF)
		if err == nil {
			err = cut
		}
	}
	if err != nil {
		return err
	}
	if len(m.missing) == 0 && m.seen != m.head.GetEntries() {
		return fmt.Errorf("%d of %d entries came: the daemon has ended; try again", m.seen, m.head.GetEntries())
	}
	return nil
}

// finish prints what was done, or why not.
func (m *materialization) finish() error {
	a, h := m.app, m.head
	var end error
	switch {
	case !m.written:
		end = fmt.Errorf("the content of %s of tree %s cannot be had; nothing was written. Start members that are off and this node's daemon, or write the rest with --partial", plural(len(m.missing), "path"), m.tree)
	case len(m.missing) > 0:
		end = silent(errDifferences)
	}
	if a.json {
		if err := a.printJSON(struct {
			Tree     string        `json:"tree"`
			To       string        `json:"to"`
			Written  bool          `json:"written"`
			Revision uint64        `json:"revision"`
			Newest   uint64        `json:"newest"`          // that this node has
			Known    uint64        `json:"known_committed"` // what is above it may not be committed
			Current  bool          `json:"current"`         // the cluster has no newer one
			Files    uint64        `json:"files"`
			Dirs     uint64        `json:"dirs"`
			Symlinks uint64        `json:"symlinks"`
			Bytes    uint64        `json:"bytes"`
			Missing  []jsonMissing `json:"missing"`
		}{m.tree, m.dir.Path(), m.written, h.GetRevision(), h.GetNewest(), h.GetKnown(), h.GetCurrent(), m.files, m.dirs, m.links, m.bytes, list(m.missing)}); err != nil {
			return err
		}
		return end
	}
	for _, x := range first(m.missing) {
		fmt.Fprintf(a.Stdout, "missing: %s (%s, %.16s…)\n", showPath(x.Path), size(x.Size), x.Digest)
	}
	more(a.Stdout, len(m.missing))
	if m.written {
		fmt.Fprintf(a.Stdout, "tree %s as of revision %s is in %s: %s, %s, %s\n", m.tree, count(h.GetRevision()), m.dir.Path(),
			plural(m.files, "file"), size(m.bytes), plural(m.links, "symlink"))
	}
	switch {
	case h.GetRevision() <= h.GetKnown():
	case h.GetKnown() == 0:
		fmt.Fprintln(a.Stdout, "its daemon ended before it wrote down how far its log is committed: some of the latest revisions may not be")
	default:
		fmt.Fprintf(a.Stdout, "of it, what is above revision %s stands in this node's log alone and may not have been committed when its daemon ended; --revision %d leaves it out\n", count(h.GetKnown()), h.GetKnown())
	}
	if !h.GetCurrent() && h.GetRevision() == h.GetNewest() {
		fmt.Fprintf(a.Stdout, "revision %s is the newest that this node has; no majority was there to say whether the cluster has a newer one\n", count(h.GetNewest()))
	}
	return end
}
