package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/config"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
	"github.com/gatesync/gatesync/vfs"
)

// JoinOptions say how a node joins.
type JoinOptions struct {
	Via   string // host:port of any member
	Token string
	Adopt bool // spread what stands only in this node's trees
	// Again: the data directory holds a node that cannot go on as itself. It
	// comes back as a new one, with its settings, trees and content.
	Again bool
	// Follower: it takes no part in Raft, whatever the cluster lacks.
	Follower bool
	Version  string
	Now      func() time.Time // nil: time.Now
}

// joining is kept until the join is complete: if the answer is lost, the same
// node asks again, and the token is not used twice.
type joining struct {
	Node cluster.NodeID `json:"node"`
	Key  []byte         `json:"key_pem"`
}

// Join makes a new node in cfg.DataDir a member of an existing cluster.
func Join(ctx context.Context, cfg config.Config, o JoinOptions) (made Made, err error) {
	d := dataDir(cfg.DataDir)
	tok, err := transport.ParseToken(o.Token)
	if err != nil {
		return made, err
	}
	lock, err := d.claim(cfg, o.Again)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	places, err := checkApart(cfg)
	if err != nil {
		return made, err
	}
	missing, clusters, err := checkRoots(cfg)
	if err != nil {
		return made, err
	}
	if !o.Again { // which comes back, be its share there or not
		if err := prepareShare(cfg, places); err != nil {
			return made, err
		}
	}
	j, err := d.beginJoin()
	if err != nil {
		return made, err
	}
	addr, guessed, err := ownAddress(cfg, "")
	if err != nil {
		return made, err
	}
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	req, err := joinRequest(cfg, tok, j, addr, clusters, o)
	if err != nil {
		return made, err
	}
	res, err := askToJoin(ctx, o.Via, tok, req)
	if errors.Is(err, cluster.ErrNotMember) {
		err = fmt.Errorf("this join was begun earlier as %s, and that node was removed meanwhile. That beginning is forgotten: run the command again, with a new token", j.Node)
		return made, errors.Join(err, d.endJoin())
	}
	if err != nil {
		return made, err
	}
	made = Made{Cluster: res.GetClusterId(), Node: j.Node, Address: addr, Guessed: guessed, Created: missing, Follower: res.GetFollower()}
	if o.Again {
		if err := d.retire(now()); err != nil {
			return made, err
		}
	}
	return made, d.completeJoin(cfg, res, j, made, o)
}

// beginJoin takes up an interrupted join or begins a new one. A join that has
// made the node that stands here was not interrupted: its note has outlived it.
func (d dataDir) beginJoin() (joining, error) {
	var j joining
	err := readJSON(d.joining(), &j)
	if err == nil && len(j.Key) > 0 && !d.was(j.Node) {
		// An older version made up the id: nobody would admit it again.
		if id, err := idOfKey(j.Key); err == nil && id == j.Node {
			return j, nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errFileDamaged) {
		return j, err
	}
	key, err := transport.NewKey()
	if err != nil {
		return j, err
	}
	id, err := idOfKey(key)
	if err != nil {
		return j, err
	}
	j = joining{Node: id, Key: key}
	return j, writeJSON(d.joining(), j)
}

func idOfKey(keyPEM []byte) (cluster.NodeID, error) {
	csr, err := transport.NewCSR(keyPEM)
	if err != nil {
		return "", err
	}
	return transport.IDOfKey(csr)
}

func joinRequest(cfg config.Config, tok transport.Token, j joining, addr string, clusters []string, o JoinOptions) (*pb.JoinRequest, error) {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	store, err := storeID(cfg)
	if err != nil {
		return nil, err
	}
	req := &pb.JoinRequest{
		TokenId: tok.ID, Secret: tok.Secret, NodeId: string(j.Node), Name: cfg.Name, Address: addr, Store: store,
		ClockNs: now().UnixNano(), Version: o.Version, Format: raftstore.Newest, RootClusters: clusters, Follower: o.Follower,
	}
	for _, t := range cfg.Trees {
		req.Trees = append(req.Trees, t.Name)
	}
	if cfg.TLS.Own() {
		id, err := transport.LoadIdentity(identityFiles(cfg))
		if err != nil {
			return nil, fmt.Errorf("certificates of your own PKI: %w", err)
		}
		if !id.Trusts(tok.Fingerprint) {
			return nil, fmt.Errorf("certificates of your own PKI: %s does not hold the CA of this cluster (SHA-256 %.16s…): bring certificates of the PKI that its members use", cfg.TLS.CA, tok.Fingerprint)
		}
		return req, nil
	}
	req.CsrDer, err = transport.NewCSR(j.Key)
	return req, err
}

func askToJoin(ctx context.Context, via string, tok transport.Token, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, joinWithin+5*time.Second)
	defer cancel()
	conn, err := transport.DialJoin(ctx, via, tok)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	defer conn.Close()
	res, err := pb.NewJoinClient(conn).Join(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("%s did not admit this node: %w", via, err)
	}
	return res, nil
}

// oldMark follows the name of what was a former self's.
const oldMark = ".old-"

// retire puts a former self aside: first who it was, so that nothing starts as
// it any more, then its part of the log.
func (d dataDir) retire(now time.Time) error {
	mark := oldMark + now.UTC().Format("20060102-150405")
	for _, path := range []string{d.nodeFile(), d.raft()} {
		if err := moveAside(path, path+mark); err != nil {
			return fmt.Errorf("put the former node aside: %w", err)
		}
	}
	return nil
}

// completeJoin writes what the cluster gave; node.json last.
func (d dataDir) completeJoin(cfg config.Config, res *pb.JoinResponse, j joining, made Made, o JoinOptions) error {
	if !cfg.TLS.Own() {
		if err := transport.WriteIdentity(identityFiles(cfg), res.GetCaPem(), res.GetCertPem(), j.Key); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(d.raft()); err != nil { // of an interrupted init
		return err
	}
	if err := os.MkdirAll(d.raft(), 0o700); err != nil {
		return err
	}
	openBook(d.peers(), slog.New(slog.DiscardHandler)).learn(fromMessages(res.GetMembers())...)
	file := nodeFile{Node: j.Node, Name: cfg.Name, Cluster: res.GetClusterId(), Address: made.Address, Epoch: 1, Joiner: true, Adopt: o.Adopt, Incarnation: cluster.Incarnation(res.GetIncarnation()), Follower: res.GetFollower()}
	for _, t := range res.GetTrees() {
		file.Trees = append(file.Trees, treeFile{Name: t.GetName(), ID: t.GetId(), Generation: t.GetGeneration()})
	}
	if o.Again { // its settings stand there already, perhaps edited
		if err := makeRoots(made.Created); err != nil {
			return err
		}
		if err := d.writeNode(file); err != nil {
			return err
		}
	} else if err := finish(d, cfg, made.Created, file); err != nil {
		return err
	}
	return d.endJoin()
}

// endJoin removes the note of a join that is complete, durably: it comes after
// node.json, so that one of the two is there at any moment.
func (d dataDir) endJoin() error {
	if err := os.Remove(d.joining()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return vfs.SyncDir(string(d))
}

// was tells whether this directory has been a node, now or before it came again
// as another one.
func (d dataDir) was(id cluster.NodeID) bool {
	former, _ := vfs.Like(filepath.Dir(d.nodeFile()), filepath.Base(d.nodeFile())+oldMark+"*")
	for _, path := range append(former, d.nodeFile()) {
		var f nodeFile
		if readJSON(path, &f) == nil && f.Node == id {
			return true
		}
	}
	return false
}
