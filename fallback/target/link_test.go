package target

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatesync/gatesync/config"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"google.golang.org/protobuf/proto"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newLimiter(&out, 100_000)
		start := time.Now()
		for range 10 {
			if n, err := l.Write(make([]byte, 50_000)); n != 50_000 || err != nil {
				t.Fatal(n, err)
			}
		}
		if took := time.Since(start); took < 4800*time.Millisecond || took > 5200*time.Millisecond {
			t.Errorf("500,000 bytes at 100,000 a second took %s", took)
		}
		time.Sleep(time.Minute) // idle time is no credit
		start = time.Now()
		_, _ = l.Write(make([]byte, 100_000))
		if took := time.Since(start); took < 800*time.Millisecond {
			t.Errorf("after a pause: %s", took)
		}
	})
}

// Whoever falls silent is given up, and whoever works silently is not.
func TestLinkGivesUpTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		l := newLink(here, 0)
		defer l.close()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		if _, _, err := l.next(); !errors.Is(err, errIdle) {
			t.Errorf("%v", err)
		}
		here, there = net.Pipe()
		a, b := newLink(here, 0), newLink(there, 0)
		got := make(chan error, 1)
		go func() { _, _, err := b.next(); got <- err }()
		go func() { _, _, _ = a.next() }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(got) > 0 {
			t.Errorf("%v although the other end is there", <-got)
		}
		a.close()
		b.close()
	})
}

// A frame that takes minutes is no silence: bytes come all the time.
func TestLinkWaitsForTheSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		l := newLink(here, 0)
		defer l.close()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		frame := append([]byte{frameData, 0, 0, 0, 200}, make([]byte, 200)...)
		go func() {
			for i := range frame {
				time.Sleep(idleMost / 10)
				_, _ = there.Write(frame[i : i+1])
			}
		}()
		if kind, payload, err := l.next(); kind != frameData || len(payload) != 200 || err != nil {
			t.Errorf("frame %d of %d bytes: %v", kind, len(payload), err)
		}
	})
}

// fuzzTarget serves what a fuzzer says after a good hello.
func FuzzReceiver(f *testing.F) {
	hello, err := proto.Marshal(&pb.PushHello{Protocol: protocol, Delete: "held"})
	if err != nil {
		f.Fatal(err)
	}
	frame := func(kind byte, m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return append([]byte{kind, 0, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	}
	root := [32]byte{}
	tree := frame(frameTree, &pb.PushTree{Name: "t", RootDigest: root[:], Nonce: []byte("n")})
	f.Add(tree)
	f.Add(append(tree, frame(frameWants, &pb.PushWants{End: true, Gone: []uint64{1, 2}, Skip: [][]byte{[]byte("../x")}})...))
	f.Add(append(tree, frame(frameWants, &pb.PushWants{End: true, Wants: []*pb.PushWant{{Path: []byte("a/b"), Entry: &pb.Entry{Kind: 1, Mode: 0o644, Size: 3, Digest: root[:]}}}})...))
	f.Add([]byte{frameBye, 0, 0, 0, 0})
	dir := f.TempDir()
	r, err := OpenReceiver(ReceiverConfig{DataDir: dir + "/data", Trees: []config.Tree{{Name: "t", Path: dir + "/t"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = r.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		in := append(append([]byte{frameHello, 0, 0, 0, byte(len(hello))}, hello...), b...)
		_ = r.Serve(context.Background(), script{bytes.NewReader(in)})
	})
}

// script is a stream whose other end says its lines and hears nothing.
type script struct{ io.Reader }

func (script) Write(b []byte) (int, error) { return len(b), nil }
func (script) Close() error                { return nil }
