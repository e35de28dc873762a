package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// FuzzNodeFile: a node.json that is accepted is written and read as the same.
func FuzzNodeFile(f *testing.F) {
	good, err := json.Marshal(nodeFile{
		Format: 1, Node: "n-0123456789abcdef", Name: "gw1", Cluster: "c-1", Address: "h:1", Epoch: 3,
		Trees: []treeFile{{Name: "server", ID: "t-1", Generation: 2, Made: true}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, s := range []string{"", "{", "null", `{"format":99}`, `{"format":-1}`, `{"trees":[{"name":"../../x"}]}`, `{"node":"../x","trees":[null]}`} {
		f.Add([]byte(s))
	}
	dir := dataDir(f.TempDir())
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := writeRaw(dir.nodeFile(), b); err != nil {
			t.Fatal(err)
		}
		n, err := dir.readNode()
		if err != nil {
			return
		}
		if !idPattern.MatchString(string(n.Node)) || n.Cluster == "" {
			t.Errorf("%q is taken for node %q of cluster %q", b, n.Node, n.Cluster)
		}
		for _, tree := range n.Trees {
			if filepath.Dir(dir.records(tree.Name)) != dir.join("trees") {
				t.Errorf("the records of tree %q are %s", tree.Name, dir.records(tree.Name))
			}
		}
		text, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var again nodeFile
		if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, n) {
			t.Errorf("%+v comes back as %+v, %v", n, again, err)
		}
	})
}

// FuzzBook: no cache of addresses keeps a node from starting; what is read of
// it is what was in it.
func FuzzBook(f *testing.F) {
	for _, s := range []string{
		`{"n-0123456789abcdef":{"name":"gw1","address":"h:1","epoch":3}}`, "", "{", "null", "[]",
		`{"":{"address":"h:1"}}`, `{"n-1":null}`, `{"n-1":{"epoch":-1}}`,
	} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "peers.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := writeRaw(path, b); err != nil {
			t.Fatal(err)
		}
		book := openBook(path, quiet())
		for _, m := range book.members() {
			if got, ok := book.address(m.ID); !ok || got == "" {
				t.Errorf("%q of %q: %q", m.ID, b, got)
			}
		}
	})
}

// FuzzSeen: no file of what was seen of the others keeps a node from starting.
func FuzzSeen(f *testing.F) {
	for _, s := range []string{`{"time":"2026-01-01T00:00:00Z","revision":3,"members":{"n-1":{"run":{}}}}`, "", "{", "null", `{"members":{"":null}}`, `{"revision":-1}`} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "seen.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openSeen(path, quiet())
		if runs := s.runs(); len(runs) > len(s.last.Members) {
			t.Errorf("%d runs of %d members", len(runs), len(s.last.Members))
		}
	})
}

// FuzzHello: no greeting brings anything into the book that is not of a
// member, and none of it is of another member's making.
func FuzzHello(f *testing.F) {
	add := func(m *pb.HelloRequest) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(&pb.HelloRequest{
		Members: []*pb.Member{{Id: "n-b", Name: "b", Address: "b:1", AddressEpoch: 2}, {Id: "n-c", Name: "c", Address: "evil:1", AddressEpoch: 1<<64 - 1}},
		State:   &pb.NodeState{Id: "n-b", Trees: []*pb.TreeState{nil, {Name: "server"}}},
	})
	add(&pb.HelloRequest{Members: []*pb.Member{nil, {Id: "n-x", Address: "x:1"}, {Address: "y:1"}}})
	path := filepath.Join(f.TempDir(), "peers.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(pb.HelloRequest)
		if proto.Unmarshal(b, req) != nil {
			return
		}
		p := &peers{self: "n-a", book: openBook(path+".none", quiet()), now: time.Now, heard: map[cluster.NodeID]*heard{}, log: quiet(), strangers: func() bool { return false }}
		p.book.path = path
		known := []cluster.Member{{ID: "n-a", Address: "a:1", Epoch: 1}, {ID: "n-b", Address: "b:1", Epoch: 1}, {ID: "n-c", Address: "c:1", Epoch: 1}}
		p.book.learn(known...)
		p.heard["n-c"] = &heard{at: time.Now()}
		_ = p.hear("n-b", req.GetState(), req.GetMembers())
		for _, m := range p.book.members() {
			if m.ID != "n-a" && m.ID != "n-b" && m.ID != "n-c" {
				t.Errorf("the book holds %+v", m)
			}
		}
		for _, id := range []cluster.NodeID{"n-a", "n-c"} {
			if at, _ := p.book.address(id); at != known[0].Address && at != known[2].Address {
				t.Errorf("%s was moved to %q by n-b", id, at)
			}
		}
		for id := range p.heard {
			if id != "n-b" && id != "n-c" {
				t.Errorf("heard of %q from n-b", id)
			}
		}
	})
}

// FuzzJoinRequest: what is plausible of a stranger's words is short and plain.
func FuzzJoinRequest(f *testing.F) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	good, err := proto.Marshal(joinRequestOK(now))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(pb.JoinRequest)
		if proto.Unmarshal(b, req) != nil {
			return
		}
		s := &joinServer{log: forestOnly{fixedForest: fixedForest{"server"}}, now: func() time.Time { return now }, logger: quiet()}
		if s.plausible(req) != nil {
			return
		}
		if !idPattern.MatchString(req.GetNodeId()) || !namePattern.MatchString(req.GetName()) || len(req.GetAddress()) > 300 || len(req.GetStore()) > 64 {
			t.Errorf("plausible: %v", req)
		}
		_ = s.fits(req, "c-1")
	})
}

// writeRaw writes a small file: with its digest, where it is JSON at all.
func writeRaw(file string, b []byte) error {
	if json.Valid(b) {
		return writeJSON(file, json.RawMessage(b))
	}
	return os.WriteFile(file, b, 0o600)
}
