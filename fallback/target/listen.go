package target

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/transport"
	"github.com/gatesync/gatesync/vfs"
)

const (
	// handshakeMost bounds a TLS handshake, sessionsMost the connections.
	handshakeMost = 10 * time.Second
	sessionsMost  = 32
)

// Key is what a listening target is known by: its certificate and its token.
type Key struct {
	Identity *transport.Identity
	Token    transport.Token
}

// LoadKey reads the key of a data directory, or makes it.
func LoadKey(dataDir string) (Key, error) {
	files := transport.FilesIn(filepath.Join(dataDir, "identity"))
	if _, err := os.Stat(files.Cert); errors.Is(err, fs.ErrNotExist) {
		if err := makeIdentity(files); err != nil {
			return Key{}, err
		}
	}
	id, err := transport.LoadIdentity(files)
	if err != nil {
		return Key{}, err
	}
	k := Key{Identity: id}
	file := filepath.Join(dataDir, "token")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if k.Token, err = transport.NewToken(id.IssuerPEM()); err != nil {
			return k, err
		}
		return k, vfs.ReplaceFile(file, []byte(k.Token.String()+"\n"), 0o600)
	}
	if err == nil {
		k.Token, err = transport.ParseToken(string(b))
	}
	if err != nil {
		return k, fmt.Errorf("the target's token %s: %w; remove the file, and a new one is made", file, err)
	}
	return k, nil
}

// makeIdentity makes a CA for this target alone, and throws its key away: the
// token's fingerprint is what pushers go by.
func makeIdentity(files transport.Files) error {
	name := make([]byte, 8)
	_, _ = rand.Read(name) // never fails (crypto/rand)
	id := "target-" + hex.EncodeToString(name)
	caPEM, caKey, err := transport.NewCA(id)
	if err != nil {
		return err
	}
	ca := transport.CA{ClusterID: id, Cert: caPEM, Key: caKey}
	cert, key, err := ca.Issue(cluster.NodeID(id), id, time.Now())
	if err != nil {
		return err
	}
	return transport.WriteIdentity(files, caPEM, cert, key)
}

// Listen serves whoever connects to ln, until ctx ends. It closes ln, ends all
// sessions and waits for them.
func (r *Receiver) Listen(ctx context.Context, ln net.Listener, id *transport.Identity) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	conf := transport.TargetServer(id)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	slots := make(chan struct{}, sessionsMost)
	for {
		raw, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			r.cfg.Log.Warn("cannot accept a connection", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second): // no descriptors, most likely
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = raw.Close()
			r.cfg.Log.Warn("too many connections: one was closed", "from", raw.RemoteAddr())
			continue
		}
		sessions.Go(func() {
			defer func() { <-slots }()
			r.one(ctx, raw, conf)
		})
	}
}

// one is one connection.
func (r *Receiver) one(ctx context.Context, raw net.Conn, conf *tls.Config) {
	from := raw.RemoteAddr().String()
	hctx, cancel := context.WithTimeout(ctx, handshakeMost)
	defer cancel()
	c := tls.Server(raw, conf)
	if err := c.HandshakeContext(hctx); err != nil {
		_ = raw.Close()
		r.cfg.Log.Debug("a connection was not of ours", "from", from, "err", err)
		return
	}
	if err := r.Serve(ctx, c); err != nil {
		r.cfg.Log.Warn("a push has ended early", "from", from, "err", err)
		return
	}
	r.cfg.Log.Info("pushed", "from", from)
}
