package target

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/delta"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// protocol is the version of what this package speaks. Another one is refused.
const protocol = 2

// lingerMost is how long a pusher may take to hear a refusal.
const lingerMost = 3 * time.Second

// ReceiverConfig is what a Receiver is made of.
type ReceiverConfig struct {
	DataDir string        // its own: ancestor, blobs, what was kept aside
	Trees   []config.Tree // that may be pushed to
	Version string        // of the program
	// Secret is a digest of what a pusher has to show, by transport.SecretDigest;
	// nil: the stream's other end was let in by somebody else (sshd).
	Secret func(secret []byte) (digest []byte)
	Want   []byte
	Limit  manifest.DeleteLimit // the zero one: the default
	// Reserve is what stays free of the disks of tree and data.
	Reserve int64
	// Late: the data directory is taken with the first tree, not at once. Who
	// serves one pusher and ends must hear who it is before another process,
	// with another pusher, can be made to give way.
	Late bool
	Log  *slog.Logger // nil: silent
}

// Receiver is a target's end: it brings its trees to what is pushed. Serve may
// run several times at once; of the sessions of one tree all but one are refused.
type Receiver struct {
	cfg   ReceiverConfig
	codec *delta.Codec

	mu    sync.Mutex
	busy  map[string]bool // by tree
	blobs *blob.Store     // nil until the data directory is used
	lock  *os.File
}

// OpenReceiver opens or makes a target's data directory.
func OpenReceiver(cfg ReceiverConfig) (*Receiver, error) {
	if cfg.Limit == (manifest.DeleteLimit{}) {
		cfg.Limit = manifest.DefaultDeleteLimit()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, t := range cfg.Trees {
		if _, err := manifest.NewIgnore(t.Preset, t.Ignore); err != nil {
			return nil, fmt.Errorf("tree %s: %w", t.Name, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(cfg.DataDir, "partial"), 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	r := &Receiver{cfg: cfg, codec: delta.NewCodec(), busy: map[string]bool{}}
	if cfg.Late {
		return r, nil
	}
	return r, r.use()
}

// lockDir makes sure that one process works with a data directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "receive.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, refused(CodeBusy, "another gatesync receive works with %s at this moment: try again when it has ended", dir)
	}
	return f, nil
}

// Close ends the use of the data directory. No Serve may run.
func (r *Receiver) Close() error {
	if r.blobs == nil {
		return nil
	}
	return errors.Join(r.blobs.Close(), r.lock.Close())
}

// Serve is one session, with whoever is at the other end of conn, which it
// closes. It ends when the pusher has, when ctx ends, or with what went wrong;
// the pusher has been told of that as far as it can be.
func (r *Receiver) Serve(ctx context.Context, conn io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if _, err := io.WriteString(conn, magic); err != nil {
		_ = conn.Close()
		return err
	}
	l := newLink(conn, 0)
	defer l.close()
	defer context.AfterFunc(ctx, func() { l.abort(context.Cause(ctx)) })()
	err := r.session(ctx, l)
	if err == nil {
		return nil
	}
	l.refuse(err)
	return err
}

func (r *Receiver) session(ctx context.Context, l *link) error {
	var hello pb.PushHello
	if err := l.expect(frameHello, &hello); err != nil {
		return fmt.Errorf("no hello: %w", err)
	}
	if err := r.admit(&hello); err != nil {
		return err
	}
	welcome := &pb.PushWelcome{Protocol: protocol, Version: r.cfg.Version}
	for _, t := range r.cfg.Trees {
		o := &pb.PushTarget{Name: t.Name, Preset: t.Preset, ModeMask: modeMask(t)}
		for _, g := range t.Ignore {
			o.Ignore = append(o.Ignore, []byte(g))
		}
		welcome.Trees = append(welcome.Trees, o)
	}
	if err := l.send(frameWelcome, welcome); err != nil {
		return err
	}
	for {
		kind, payload, err := l.next()
		if err != nil {
			return err
		}
		switch kind {
		case frameBye:
			return nil
		case frameTree:
			var m pb.PushTree
			if err := parse(payload, &m); err != nil {
				return err
			}
			if err := r.tree(ctx, l, &hello, &m); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: a frame of kind %d between trees", ErrProtocol, kind)
		}
	}
}

// admit judges who is there.
func (r *Receiver) admit(h *pb.PushHello) error {
	if h.GetProtocol() != protocol {
		return refused(CodeVersion, "the pusher is gatesync %s and speaks version %d of the push, this target is gatesync %s and speaks version %d: install the same gatesync on both",
			printable(h.GetVersion()), h.GetProtocol(), r.cfg.Version, protocol)
	}
	if r.cfg.Secret != nil && subtle.ConstantTimeCompare(r.cfg.Secret(h.GetSecret()), r.cfg.Want) != 1 {
		return refused(CodeToken, "this is not the token of this target: `gatesync receive` prints it when it starts; give it with --token or GATESYNC_TOKEN")
	}
	if !Policy(h.GetDelete()).Valid() {
		return fmt.Errorf("%w: delete policy %q", ErrProtocol, h.GetDelete())
	}
	return nil
}

// treeCalled finds a tree that may be pushed to.
func (r *Receiver) treeCalled(name string) (config.Tree, error) {
	i := slices.IndexFunc(r.cfg.Trees, func(t config.Tree) bool { return t.Name == name })
	if i < 0 {
		return config.Tree{}, refused(CodeTree, "this target has no tree %q", printable(name))
	}
	return r.cfg.Trees[i], nil
}

// claim takes a tree for one session, and the data directory for this process.
func (r *Receiver) claim(name string) (release func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[name] {
		return nil, refused(CodeBusy, "another push to tree %s is under way: try again when it has ended", name)
	}
	if err := r.use(); err != nil {
		return nil, err
	}
	r.busy[name] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, name)
	}, nil
}

// use takes the data directory, where that has not been done. mu is held.
func (r *Receiver) use() (err error) {
	if r.blobs != nil {
		return nil
	}
	lock, err := lockDir(r.cfg.DataDir)
	if err != nil {
		return err
	}
	blobs, err := blob.Open(filepath.Join(r.cfg.DataDir, "blobs"), blob.Options{Reserve: r.cfg.Reserve, Log: r.cfg.Log})
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	r.lock, r.blobs = lock, blobs
	return nil
}

func newSession() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// tidy removes what no tree needs any more: content that arrived and is in
// place. What was kept aside stays.
func (r *Receiver) tidy(ctx context.Context, live map[manifest.Digest]struct{}) {
	r.mu.Lock()
	alone := len(r.busy) == 1
	r.mu.Unlock()
	if !alone {
		return // another session's content is on its way; the next one tidies
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	lives := func(d manifest.Digest) bool { _, ok := live[d]; return ok }
	err := r.blobs.Discard(lives) // what is in place was flushed there
	if _, cerr := r.blobs.Collect(ctx, lives); err == nil {
		err = cerr
	}
	if err != nil {
		r.cfg.Log.Warn("cannot tidy the blob store", "err", err)
	}
	left, _ := os.ReadDir(r.partialDir())
	for _, f := range left {
		_ = os.Remove(filepath.Join(r.partialDir(), f.Name()))
	}
}

func (r *Receiver) partialDir() string { return filepath.Join(r.cfg.DataDir, "partial") }

// Refuse tells a pusher why no session comes about, and closes the stream.
func Refuse(conn io.ReadWriteCloser, why error) error {
	if _, err := io.WriteString(conn, magic); err != nil {
		return err
	}
	l := newLink(conn, 0)
	defer l.close()
	l.refuse(why)
	return nil
}

// refuse tells the other end why this one ends the session, as far as it can
// be told.
func (l *link) refuse(why error) {
	var no *RefusedError
	if !errors.As(why, &no) {
		no = &RefusedError{Code: CodeFailed, Message: why.Error()}
	}
	if l.send(frameRefused, &pb.PushRefused{Code: no.Code, Message: no.Message}) != nil {
		return // it is gone
	}
	// What is still on its way here has to be read, or the refusal is lost with
	// the connection.
	defer time.AfterFunc(lingerMost, func() { _ = l.conn.Close() }).Stop()
	_, _ = io.Copy(io.Discard, l.r)
}

// evict is refuse for an end that may not listen any more: it is told within a
// moment or not at all, and the stream is closed.
func (l *link) evict(why *RefusedError) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = l.send(frameRefused, &pb.PushRefused{Code: why.Code, Message: why.Message})
	}()
	select {
	case <-told:
	case <-time.After(time.Second):
	}
	l.abort(why)
	<-told
}
