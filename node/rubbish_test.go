package node

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/transport"
)

// Rubbish on the local socket hurts nobody, and the socket is its owner's.
func TestRubbishOnTheLocalSocket(t *testing.T) {
	b := besiege(t)
	info, err := os.Lstat(local.Socket(b.cfg.DataDir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	for i := range 200 {
		c, err := net.Dial("unix", local.Socket(b.cfg.DataDir))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		switch i % 3 {
		case 0:
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
		case 1:
			_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+strings.Repeat("\xff", 1000))
		}
	}
	err = b.local(func(ctx context.Context, c pb.LocalClient) error {
		for _, id := range []string{"", "../../x", "x-1\x00", strings.Repeat("x", 40_000)} {
			stream, err := c.Content(ctx, &pb.ContentRequest{Conflict: id})
			if err == nil {
				_, err = stream.Recv()
			}
			if err == nil {
				t.Errorf("conflict %.20q has content", id)
			}
			if _, err := c.Conflicts(ctx, &pb.ConflictsRequest{Action: "restore", Ids: []string{id}}); err == nil && id != "" {
				t.Errorf("conflict %.20q was restored", id)
			}
		}
		for _, p := range []string{"../x", "/etc/passwd", "a\x00", strings.Repeat("d/", 10_000)} {
			if _, err := c.Resolve(ctx, &pb.ResolveRequest{Action: "approve", Tree: "server", Paths: [][]byte{[]byte(p)}}); err == nil {
				t.Errorf("%.20q was approved", p)
			}
		}
		stream, err := c.Content(ctx, &pb.ContentRequest{Digest: []byte("short")})
		if err == nil {
			_, err = stream.Recv()
		}
		if err == nil {
			t.Error("a short digest has content")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.unharmed(t)
}

// Rubbish on Raft's own streams: lengths that nothing follows allocate nothing,
// and Raft goes on.
//
// It runs alone: the memory that it looks at is the whole process's.
func TestRubbishOnRaftsStreams(t *testing.T) {
	b := besiege(t)
	id, err := transport.LoadIdentity(identityFiles(b.evil.cfg))
	if err != nil {
		t.Fatal(err)
	}
	addr := b.address()
	s, err := transport.Listen(transport.Config{
		Listen: "127.0.0.1:0", Identity: id, ClusterID: b.file.Cluster, Self: b.file.Node,
		Resolve: func(cluster.NodeID) (string, bool) { return addr, true },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	huge := "\xff\xff\xff\xff"
	for name, text := range map[string]string{
		"an unknown call":         "\x77",
		"entries without end":     "\x00\x81\xa7Entries\xdd" + huge,
		"a map without end":       "\x00\xdf" + huge,
		"bytes without end":       "\x00\x81\xa6Leader\xc6" + huge + "xyz",
		"a string without end":    "\x01\x81\xa9Candidate\xdb" + huge,
		"nesting without end":     "\x00\x81\xa7Entries" + strings.Repeat("\x91", 100_000),
		"a snapshot of 2^63":      "\x02\x81\xa4Size\xcf\x7f" + strings.Repeat("\xff", 7),
		"entries that are no map": "\x00\xc0\xc0\xc0\xc0",
	} {
		c, err := s.Raft().Dial(raft.ServerAddress(b.victim.Node.ID), 10*time.Second)
		if err != nil {
			t.Fatal(name, err)
		}
		_, _ = io.WriteString(c, text) // it may have hung up before the end
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = io.Copy(io.Discard, c)
		if grown := int64(heap()) - int64(b.heap); grown > 64<<20 {
			t.Errorf("%s: the heap has grown by %d MB", name, grown>>20)
		}
		_ = c.Close()
	}
	b.unharmed(t)
}
