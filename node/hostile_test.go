package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// besieged is a cluster of one node, and a member with a valid certificate that
// speaks to it as it pleases.
type besieged struct {
	*gateway
	evil   *gateway
	file   nodeFile // of the evil one
	victim Status
	conn   *grpc.ClientConn
	heap   uint64
}

func besiege(t *testing.T) *besieged {
	t.Helper()
	b := &besieged{gateway: newGateway(t, "gw1"), evil: newGateway(t, "evil")}
	if _, err := Init(t.Context(), b.cfg); err != nil {
		t.Fatal(err)
	}
	b.run()
	if err := b.evil.join(b.gateway, b.token(time.Minute, 1)); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.file, err = dataDir(b.evil.cfg.DataDir).readNode(); err != nil {
		t.Fatal(err)
	}
	if b.victim, err = b.status(); err != nil {
		t.Fatal(err)
	}
	b.conn = b.dial(t)
	b.write("before.xml", "x\n")
	b.committed(t, "before.xml")
	b.heap = heap()
	return b
}

func (b *besieged) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	id, err := transport.LoadIdentity(identityFiles(b.evil.cfg))
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := transport.DialAs(testContext(t), b.address(), id, b.file.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// committed waits until a file stands in the committed tree.
func (b *besieged) committed(t *testing.T, path string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		if _, ok := b.tree(t)[path]; !ok {
			return fmt.Errorf("%s is not committed", path)
		}
		return nil
	})
}

// tree is the committed tree, as any member may read it.
func (b *besieged) tree(t *testing.T) map[string]*pb.Node {
	t.Helper()
	stream, err := pb.NewClusterClient(b.conn).Manifest(testContext(t), &pb.ManifestRequest{Tree: "server"})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*pb.Node{}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range m.GetNodes() {
			all[string(n.GetPath())] = n.GetNode()
		}
	}
}

// unharmed checks that the node still works, has grown by little, and has not
// filled its log.
func (b *besieged) unharmed(t *testing.T) {
	t.Helper()
	name := fmt.Sprintf("after-%d.xml", time.Now().UnixNano())
	b.write(name, "y\n")
	b.committed(t, name)
	if grown := int64(heap()) - int64(b.heap); grown > 64<<20 {
		t.Errorf("the heap has grown by %d MB", grown>>20)
	}
	b.log.mu.Lock()
	text := b.log.b.String()
	b.log.mu.Unlock()
	if n := strings.Count(text, "msg=refused"); n > 20 {
		t.Errorf("%d refusals are logged, one for each peer and kind is enough", n)
	}
	left, err := os.ReadDir(filepath.Dir(b.cfg.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if n := e.Name(); n != "data" && n != "tree" && !strings.Contains(n, "gatesync") {
			t.Errorf("%s was made beside the tree", n)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// wantCode checks how a call ended.
func wantCode(t *testing.T, what string, err error, want ...codes.Code) {
	t.Helper()
	for _, c := range want {
		if status.Code(err) == c {
			return
		}
	}
	t.Errorf("%s: %v, want %v", what, err, want)
}

func (b *besieged) propose(t *testing.T, cmd *pb.Command) (*pb.Outcome, error) {
	t.Helper()
	cmd.Format = raftstore.Format
	res, err := pb.NewClusterClient(b.conn).Propose(testContext(t), &pb.ProposeRequest{Command: cmd})
	return res.GetOutcome(), err
}

func (b *besieged) changeset(seq uint64, changes ...*pb.Change) *pb.Command {
	return &pb.Command{Do: &pb.Command_Propose{Propose: &pb.Changeset{
		Id: &pb.ChangesetID{Node: string(b.file.Node), Seq: seq}, Tree: "server", Changes: changes,
	}}}
}

func TestPromise_OwnTree_HostileProposals(t *testing.T) {
	b := besiege(t)
	dir := &pb.Entry{Kind: uint32(manifest.Dir), Mode: 0o755}
	link := func(target string) *pb.Entry {
		d := manifest.DigestOf([]byte(target))
		return &pb.Entry{Kind: uint32(manifest.Symlink), Mode: 0o777, Size: int64(len(target)), Target: []byte(target), Digest: d[:]}
	}
	d := manifest.DigestOf([]byte("x"))
	var bad []*pb.Change
	for _, p := range []string{
		"", "..", "../evil", "/etc/evil", "a/../../evil", "./a", "a//b", "a/", "nul\x00", ".gatesync/marker.json",
		strings.Repeat("x", 256), strings.Repeat("d/", 10_000) + "f", strings.Repeat("y", 40_000),
	} {
		bad = append(bad, &pb.Change{Path: []byte(p), New: dir})
	}
	for i, target := range []string{"..", "../..", "/etc/passwd", "x/../../evil", ".gatesync/marker.json", "a\x00b", ""} {
		bad = append(bad, &pb.Change{Path: fmt.Appendf(nil, "l%d", i), New: link(target)})
	}
	bad = append(bad, &pb.Change{Path: []byte("l0/below"), New: dir}) // through a link
	for i, e := range []*pb.Entry{
		{Kind: 1, Size: 1<<63 - 1, Digest: d[:]}, {Kind: 1, Size: -1 << 63, Digest: d[:]}, {Kind: 1, Size: 1, Digest: d[:5]}, {Kind: 1, Size: 1},
		{Kind: 77}, {Kind: 257, Mode: 0o755}, {Mode: 0o644}, {Kind: 2, Mode: 0o4755}, {Kind: 2, Size: 5}, {Kind: 3, Mode: 0o777, Target: []byte("x")},
	} {
		bad = append(bad, &pb.Change{Path: fmt.Appendf(nil, "e%d", i), New: e})
	}
	seq := uint64(0)
	for _, c := range bad { // each alone, so that none hides behind another
		seq++
		out, err := b.propose(t, b.changeset(seq, c))
		if err != nil {
			t.Fatalf("%.80q: %v", c.GetPath(), err)
		}
		r := proto.ToResult(out.GetResult())
		if r.Revision != 0 || len(r.Refused) != 1 {
			t.Errorf("%.80q -> %v: outcome %v", c.GetPath(), c.GetNew(), out)
		}
	}
	if got := b.tree(t); len(got) != 1 {
		t.Errorf("committed: %v", got)
	}
	// A path can be long and deep; it is still a path in the tree.
	var deep []*pb.Change
	for p, i := "dddddddddd", 0; i < manifest.MaxDepth; p, i = p+"/dddddddddd", i+1 {
		deep = append(deep, &pb.Change{Path: []byte(p), New: dir})
	}
	for len(deep) > 0 {
		n := min(len(deep), 15)
		seq++
		if out, err := b.propose(t, b.changeset(seq, deep[:n]...)); err != nil || len(out.GetResult().GetRefused()) > 0 {
			t.Fatal(out, err)
		}
		deep = deep[n:]
	}
	b.unharmed(t)
}

// What a member says in another's name, or nobody could have said, is refused
// before the log sees it.
func TestHostileCommands(t *testing.T) {
	b := besiege(t)
	rev := func() uint64 { s, err := b.status(); _ = err; return uint64(s.Revision) }
	before := rev()
	victim := b.victim.Node.ID
	me := func(m *pb.Member) *pb.Command {
		return &pb.Command{Do: &pb.Command_PutMember{PutMember: &pb.PutMember{Member: m}}}
	}
	for name, c := range map[string]struct {
		cmd  *pb.Command
		want codes.Code
	}{
		"nothing":                 {&pb.Command{}, codes.InvalidArgument},
		"another's changeset":     {&pb.Command{Do: &pb.Command_Propose{Propose: &pb.Changeset{Id: &pb.ChangesetID{Node: string(victim), Seq: 1 << 60}}}}, codes.PermissionDenied},
		"another's address":       {me(&pb.Member{Id: string(victim), Name: "gw1", Address: "evil:1", AddressEpoch: 1<<64 - 1}), codes.PermissionDenied},
		"a stranger":              {me(&pb.Member{Id: "n-6666666666666666", Name: "x", Address: "evil:1"}), codes.PermissionDenied},
		"another cluster":         {&pb.Command{Do: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c-evil"}}}, codes.InvalidArgument},
		"an entry over the limit": {b.changeset(1, &pb.Change{Path: []byte(strings.Repeat("x", 100_000))}), codes.InvalidArgument},
	} {
		for range 5 {
			_, err := b.propose(t, c.cmd)
			wantCode(t, name, err, c.want)
		}
	}
	ctx := testContext(t)
	cl := pb.NewClusterClient(b.conn)
	_, err := cl.Propose(ctx, &pb.ProposeRequest{})
	wantCode(t, "no command", err, codes.InvalidArgument)
	_, err = cl.Propose(ctx, &pb.ProposeRequest{Command: &pb.Command{Format: 99, Do: &pb.Command_Noop{Noop: &pb.Noop{}}}})
	wantCode(t, "a command of tomorrow", err, codes.InvalidArgument)
	_, err = cl.RemoveMember(ctx, &pb.RemoveMemberRequest{Id: strings.Repeat("x", 1000)})
	wantCode(t, "removal of nobody", err, codes.NotFound)
	_, err = cl.Renew(ctx, &pb.RenewRequest{CsrDer: []byte("rubbish")})
	wantCode(t, "a renewal of rubbish", err, codes.InvalidArgument)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = cl.Applied(short, &pb.AppliedRequest{Revision: 1<<64 - 1})
	wantCode(t, "the last revision of all", err, codes.DeadlineExceeded)
	if now := rev(); now != before {
		t.Errorf("revision %d, was %d", now, before)
	}
	// Its token's digest stands in the log, for it to read: it moves nobody.
	out, err := b.propose(t, &pb.Command{Do: &pb.Command_UseToken{UseToken: &pb.UseToken{
		Id: "k-none", Member: &pb.Member{Id: string(victim), Name: "gw1", Address: "evil:1", AddressEpoch: 1<<64 - 1},
	}}})
	if err != nil || out.GetCode() == 0 {
		t.Errorf("a token that nobody made: %v %v", out, err)
	}
	b.unharmed(t)
}

// A member speaks for itself: what it says of others moves nobody, whatever
// epoch it claims, and what it says of itself is bounded.
func TestLiesInHello(t *testing.T) {
	b := besiege(t)
	cl, victim := pb.NewClusterClient(b.conn), b.victim.Node.ID
	state := func(change func(*pb.NodeState)) *pb.NodeState {
		s := &pb.NodeState{Id: string(b.file.Node), ClusterId: b.file.Cluster, Version: "test"}
		change(s)
		return s
	}
	for name, s := range map[string]*pb.NodeState{
		"another's id": state(func(s *pb.NodeState) { s.Id = string(victim) }),
		"no state":     nil,
		"much":         state(func(s *pb.NodeState) { s.Version = strings.Repeat("x", 100_000) }),
		"many trees": state(func(s *pb.NodeState) {
			s.Trees = make([]*pb.TreeState, 10_000)
			for i := range s.Trees {
				s.Trees[i] = &pb.TreeState{}
			}
		}),
	} {
		_, err := cl.Hello(testContext(t), &pb.HelloRequest{State: s})
		wantCode(t, name, err, codes.InvalidArgument)
	}
	lies := []*pb.Member{{Id: string(victim), Name: "gw1", Address: "evil:1", AddressEpoch: 1<<64 - 1}}
	for i := range 1000 {
		lies = append(lies, &pb.Member{Id: fmt.Sprintf("n-%016x", i), Name: fmt.Sprint("x", i), Address: "evil:1", AddressEpoch: 1<<64 - 1})
	}
	for range 20 {
		res, err := cl.Hello(testContext(t), &pb.HelloRequest{Members: lies, State: state(func(*pb.NodeState) {})})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range res.GetMembers() {
			if m.GetAddress() == "evil:1" || len(res.GetMembers()) > 2 {
				t.Fatalf("it is believed: %d members, %v", len(res.GetMembers()), m)
			}
		}
	}
	s, err := b.status()
	if err != nil || s.Node.Address != b.victim.Node.Address {
		t.Errorf("this node is at %q, says %v", s.Node.Address, err)
	}
	b.unharmed(t)
}

// Content that is not what it is called, of sizes that cannot be, in streams
// that break every rule or stall: refused, said once, and nothing grows.
func TestHostileContent(t *testing.T) {
	b := besiege(t)
	content := pb.NewContentClient(b.conn)
	d := manifest.DigestOf([]byte("x"))
	offer := func(size int64) *pb.Offer {
		return &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: d[:], Size: size}}}
	}
	eager := offer(1)
	eager.Eager = true
	broken := map[string][]*pb.PushRequest{
		"2^63":               {{Offer: offer(1<<63 - 1)}},
		"negative":           {{Offer: offer(-1)}},
		"an exabyte":         {{Offer: offer(1 << 60)}},
		"no digest":          {{Offer: &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Size: 1}}}}},
		"too many":           {{Offer: &pb.Offer{Batch: 1, Blobs: make([]*pb.BlobInfo, 2000)}}},
		"not offered":        {{Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: []byte("x")}}}},
		"longer than it is":  {{Offer: eager, Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: []byte("xyz")}}}},
		"another size":       {{Offer: eager, Pieces: []*pb.Piece{{Digest: d[:], Size: 3, Data: []byte("xyz")}}}},
		"empty message":      {{}},
		"end of nothing":     {{End: 9}},
		"backwards":          {{Offer: eager, Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: []byte("x")}}, End: 1}, {Offer: eager}},
		"a piece too large":  {{Offer: offer(1 << 30)}, {Pieces: []*pb.Piece{{Digest: d[:], Size: 1 << 30, Data: make([]byte, 300<<10)}}}},
		"many open batches":  manyOffers(100),
		"over gRPC's limits": {{Offer: eager, Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: make([]byte, 1<<20)}}}},
	}
	for i, blob := range broken["too many"][0].GetOffer().GetBlobs() {
		_ = blob
		broken["too many"][0].GetOffer().GetBlobs()[i] = &pb.BlobInfo{Digest: d[:], Size: 1}
	}
	for name, messages := range broken {
		stream, err := content.Push(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if stream.Send(m) != nil {
				break
			}
		}
		for err == nil {
			_, err = stream.Recv()
		}
		wantCode(t, name, err, codes.InvalidArgument, codes.ResourceExhausted)
	}
	// False content, a thousand times in one stream: each batch is refused.
	stream, err := content.Push(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 1000; i++ {
		wrong := manifest.DigestOf(fmt.Appendf(nil, "what it is called %d", i))
		if err := stream.Send(&pb.PushRequest{
			Offer:  &pb.Offer{Batch: i, Blobs: []*pb.BlobInfo{{Digest: wrong[:], Size: 4}}, Eager: true},
			Pieces: []*pb.Piece{{Digest: wrong[:], Size: 4, Data: []byte("evil")}}, End: i,
		}); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || r.GetRefused() == "" {
			t.Fatalf("false content: %v %v", r, err)
		}
	}
	// Tiny messages without end, all of them allowed: one byte each.
	go func() {
		for i := uint64(1001); i < 21_000; i++ {
			if stream.Send(&pb.PushRequest{
				Offer: &pb.Offer{Batch: i, Blobs: []*pb.BlobInfo{{Digest: d[:], Size: 1}}, Eager: true}, Pieces: []*pb.Piece{{Digest: d[:], Size: 1, Data: []byte("x")}}, End: i,
			}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for receipts := 0; ; receipts++ {
		if _, err := stream.Recv(); err != nil {
			wantCode(t, "tiny messages", err, codes.Unknown) // the end of the stream
			if !errors.Is(err, io.EOF) || receipts == 0 {
				t.Errorf("%d receipts, %v", receipts, err)
			}
			break
		}
	}
	// A thousand streams that begin and stall, on several connections.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused, never := 0, manifest.DigestOf([]byte("never comes"))
	for range 4 {
		c := pb.NewContentClient(b.dial(t))
		for range 250 {
			s, err := c.Push(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if s.Send(&pb.PushRequest{Offer: &pb.Offer{Batch: 1, Blobs: []*pb.BlobInfo{{Digest: never[:], Size: 1 << 30}}}}) == nil {
				if _, err := s.Recv(); status.Code(err) == codes.ResourceExhausted {
					refused++
				}
			}
		}
	}
	if refused < 900 {
		t.Errorf("only %d of 1,000 streams that stall were refused", refused)
	}
	// Fetches of what is not there, by the thousand.
	fetch, err := content.Fetch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]*pb.BlobInfo, 1024)
	for i := range want {
		none := manifest.DigestOf(fmt.Append(nil, i))
		want[i] = &pb.BlobInfo{Digest: none[:], Size: 1 << 39}
	}
	for range 50 {
		if err := fetch.Send(&pb.FetchRequest{Want: want}); err != nil {
			t.Fatal(err)
		}
		if m, err := fetch.Recv(); err != nil || len(m.GetMissing()) != len(want) {
			t.Fatalf("%d missing, %v", len(m.GetMissing()), err)
		}
	}
	b.unharmed(t)
}

func manyOffers(n int) (out []*pb.PushRequest) {
	for i := range n {
		d := manifest.DigestOf(fmt.Append(nil, i))
		out = append(out, &pb.PushRequest{Offer: &pb.Offer{Batch: uint64(i + 1), Blobs: []*pb.BlobInfo{{Digest: d[:], Size: 1}}}})
	}
	return out
}

// A member may lie about receipts: this is a crash model, and it is trusted.
// What it so brought into the log has no content, and holds nobody else up.
func TestForgedReceiptsHoldNobodyUp(t *testing.T) {
	b := besiege(t)
	d := manifest.DigestOf([]byte("nobody has this"))
	c := b.changeset(1, &pb.Change{Path: []byte("hollow.xml"), New: &pb.Entry{Kind: 1, Mode: 0o644, Size: 15, Digest: d[:]}})
	for name, r := range map[string]*pb.Receipt{
		"none":             nil,
		"of no store":      {Node: string(b.victim.Node.ID), Store: "s-0"},
		"of its own store": {Node: string(b.file.Node), Store: "s-evil"},
		"of nobody":        {Node: "n-6666666666666666", Store: "s-1"},
	} {
		c.GetPropose().GetId().Seq++
		c.GetPropose().Receipts = []*pb.Receipt{r}
		if r == nil {
			c.GetPropose().Receipts = nil
		}
		out, err := b.propose(t, c)
		if err != nil || raftstore.Code(out.GetCode()) != raftstore.CodeReceipts {
			t.Errorf("%s: %v %v", name, out, err)
		}
	}
	hello, err := pb.NewClusterClient(b.conn).Hello(testContext(t), &pb.HelloRequest{State: &pb.NodeState{Id: string(b.file.Node)}})
	if err != nil {
		t.Fatal(err)
	}
	c.GetPropose().GetId().Seq++
	c.GetPropose().Receipts = []*pb.Receipt{{Node: string(b.victim.Node.ID), Store: hello.GetState().GetStore()}}
	if out, err := b.propose(t, c); err != nil || out.GetResult().GetRevision() == 0 {
		t.Fatalf("a forged receipt: %v %v (has the trust model changed? tell docs/guarantees)", out, err)
	}
	b.unharmed(t)
	if _, err := os.Lstat(filepath.Join(b.cfg.Trees[0].Path, "hollow.xml")); err == nil {
		t.Error("a file without content stands in the tree")
	}
}

// A member that is removed while it talks is cut off.
func TestRemovedMemberIsCutOff(t *testing.T) {
	b := besiege(t)
	stream, err := pb.NewContentClient(b.conn).Fetch(testContext(t))
	if err == nil {
		err = stream.Send(&pb.FetchRequest{Want: []*pb.BlobInfo{{Digest: make([]byte, 32), Size: 1}}})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	err = b.local(func(ctx context.Context, c pb.LocalClient) error {
		_, err := c.RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "evil"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the stream of a removed member: %v", err)
	}
	eventually(t, 10*time.Second, func() error {
		_, err := pb.NewClusterClient(b.conn).Hello(testContext(t), &pb.HelloRequest{State: &pb.NodeState{Id: string(b.file.Node)}})
		if !errors.Is(err, cluster.ErrNotMember) && status.Code(err) != codes.Unavailable {
			return fmt.Errorf("a call of a removed member: %w", err)
		}
		return nil
	})
}

// Rubbish on the local socket hurts nobody, and the socket is its owner's.
func TestRubbishOnTheLocalSocket(t *testing.T) {
	b := besiege(t)
	info, err := os.Lstat(filepath.Join(b.cfg.DataDir, socketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	for i := range 200 {
		c, err := net.Dial("unix", filepath.Join(b.cfg.DataDir, socketName))
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
		if _, err := io.WriteString(c, text); err != nil {
			t.Error(name, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = io.Copy(io.Discard, c)
		if grown := int64(heap()) - int64(b.heap); grown > 64<<20 {
			t.Errorf("%s: the heap has grown by %d MB", name, grown>>20)
		}
		_ = c.Close()
	}
	b.unharmed(t)
}
