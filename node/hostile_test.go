package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

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
	conn, _, err := transport.DialAs(testContext(t), b.address(), id, b.file.Cluster, transport.Instance{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// committed waits until a file stands in the committed tree.
func (b *besieged) committed(t *testing.T, path string) {
	t.Helper()
	eventually(t, func() error {
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
	ctx, cancel := context.WithTimeout(t.Context(), patience)
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
	// What it calls itself is printed on the terminals of all.
	out, err := b.propose(t, me(&pb.Member{Id: string(b.file.Node), Name: "evil\x1b[2J", AddressEpoch: 7}))
	if err != nil || raftstore.Code(out.GetCode()) != raftstore.CodeMalformed {
		t.Errorf("a name that clears the screen: %v %v", out, err)
	}
	// Its token's digest stands in the log, for it to read: it moves nobody.
	out, err = b.propose(t, &pb.Command{Do: &pb.Command_UseToken{UseToken: &pb.UseToken{
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
		"a bell":       state(func(s *pb.NodeState) { s.Version = "\a" }),
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
	eventually(t, func() error {
		_, err := pb.NewClusterClient(b.conn).Hello(testContext(t), &pb.HelloRequest{State: &pb.NodeState{Id: string(b.file.Node)}})
		if !errors.Is(err, cluster.ErrNotMember) && status.Code(err) != codes.Unavailable {
			return fmt.Errorf("a call of a removed member: %w", err)
		}
		return nil
	})
}
