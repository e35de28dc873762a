package target

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/gatesync/gatesync/manifest"
)

// committed is what a cluster has committed, as of one moment.
type committed struct {
	u        *Upkeep
	revision manifest.Revision // all trees are at least as new
	views    map[string]*manifest.Manifest
}

// source takes the trees as they are now.
func (k *upheld) source() (*committed, error) {
	c := &committed{u: k.u, revision: k.u.cfg.Log.Revision(), views: map[string]*manifest.Manifest{}}
	for _, name := range k.trees() {
		v, ok := k.u.cfg.Log.View(name)
		if !ok {
			return nil, refused(CodeTree, "the cluster has no tree %q: see `gatesync status`, and change the target with `gatesync targets add`", name)
		}
		c.views[name] = v.Manifest
	}
	if len(c.views) == 0 {
		return nil, refused(CodeTree, "the cluster has no tree yet")
	}
	return c, nil
}

// Tree implements Source.
func (c *committed) Tree(_ context.Context, name string) (*manifest.Manifest, []Line, error) {
	m, ok := c.views[name]
	if !ok {
		return nil, nil, fmt.Errorf("no tree %q", name)
	}
	return m, nil, nil
}

// Open implements Source: content of the cluster goes by its digest.
func (c *committed) Open(ctx context.Context, _ string, _ manifest.Path, ref manifest.BlobRef) (io.ReadCloser, error) {
	if ref.Size == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return c.u.cfg.Open(ctx, ref)
}

// Old implements Source: history has older versions.
func (c *committed) Old(_ context.Context, d manifest.Digest) (io.ReadCloser, error) {
	r, err := c.u.cfg.Old(d)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoOld, err)
	}
	return r, nil
}
