package target

import (
	"context"
	"errors"
	"io"

	"github.com/gatesync/gatesync/manifest"
)

// Source is what is pushed: a folder, or what a cluster has committed.
type Source interface {
	// Tree tells what is to stand there, and which paths cannot be said anything
	// about: those are left alone at the target.
	Tree(ctx context.Context, name string) (*manifest.Manifest, []Line, error)
	// Open opens a file's content. It may have become another one since Tree:
	// whoever reads it compares the digest.
	Open(ctx context.Context, tree string, p manifest.Path, ref manifest.BlobRef) (io.ReadCloser, error)
	// Old opens an older version by its digest; ErrNoOld where it is not here.
	Old(ctx context.Context, d manifest.Digest) (io.ReadCloser, error)
}

// ErrNoOld: a source has no such older version.
var ErrNoOld = errors.New("this older version is not here")

// Options of a push.
type Options struct {
	Version string // of the program
	// TokenID and Secret of the target's token; empty over ssh.
	TokenID string
	Secret  []byte
	// Cluster, its life and Revision say whose committed trees these are; empty
	// for a folder. Of one cluster a target takes the newest Epoch only; 0: a
	// person's push.
	Cluster                      string
	Incarnation, Epoch, Revision uint64
	// Target is the cluster's name for the target, Targets are those of all of
	// them: a target that is reached by two names refuses the second one.
	Target  string
	Targets []string
	// History: the source is likely to have older versions.
	History bool
	// Trees are the names of the source's trees, "" the only one of a folder.
	Trees []string
	// To is the target's tree, where there is one source tree; "" its only one,
	// or the one of the same name.
	To     string
	Delete Policy
	DryRun bool
	Fresh  bool  // the target's root may have lost its marker
	Limit  int64 // bytes a second; 0: none
	// Begin is called once the target has let the pusher in, before anything is
	// read; it may wait, and its error ends the push. nil: nothing is waited for.
	Begin func(ctx context.Context) error
	// Progress may be called by two goroutines at once; nil: nobody is told.
	Progress func(Progress)
}

// Progress is how far a push is.
type Progress struct {
	Tree        string
	Phase       string // look, send, apply
	Done, Total int64  // of entries
	Bytes, Of   int64  // of content, in phase send
	Wire        int64  // bytes sent so far
}

// Summary is how a push of one tree went.
type Summary struct {
	Tree                               string
	Added, Changed, Deleted, Unchanged uint64
	Lines                              []Line // with a word; of a dry run all that differ
	Files                              int    // whose content was sent
	Content                            int64  // its bytes
	Resumed                            int64  // bytes that an earlier push had brought
	Total                              int64  // bytes of all that is to stand there
	Sent, Received                     int64  // on the wire
}

// Held counts what a guard holds.
func (s Summary) Held() int { return s.lines(WhatHeld) }

// Failed counts what could not be done.
func (s Summary) Failed() int { return s.lines(WhatFailed) }

// Differences counts what a dry run found.
func (s Summary) Differences() int { return len(s.Lines) }

func (s Summary) lines(what string) (n int) {
	for _, l := range s.Lines {
		if l.What == what {
			n++
		}
	}
	return n
}
