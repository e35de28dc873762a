package raftstore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Peeked is what the directory of a log says without being opened.
type Peeked struct {
	Format      uint32 // the active one, as far as this node has heard
	Authorities Authorities
	// Removed are the members that were removed, as far as this node has heard.
	Removed map[string]bool
}

// Peek reads a directory that no Store has open, and changes nothing in it. It
// returns a *NewerError where the log is of a format that this version does not
// know: a newer version ran here. Entries count whether they are committed or
// not. A damaged log is a *DamagedError; a damaged snapshot counts for nothing.
func Peek(dir string) (Peeked, error) {
	p := peeking{state: newState()}
	p.snapshots(filepath.Join(dir, "snapshots"))
	if err := p.log(dir); err != nil {
		return Peeked{}, err
	}
	if p.format > Newest {
		return Peeked{}, &NewerError{What: "the log in " + dir, Format: p.format}
	}
	return Peeked{Format: p.format, Authorities: p.authorities(), Removed: p.removed}, nil
}

type peeking struct{ state }

// snapshots reads the header of the newest snapshot.
func (p *peeking) snapshots(dir string) {
	entries, err := os.ReadDir(dir) // by name: term, index, time
	if err != nil {
		return
	}
	for _, e := range entries {
		if h := snapshotHeader(filepath.Join(dir, e.Name(), "state.bin")); h != nil && !strings.HasSuffix(e.Name(), ".tmp") {
			p.format = max(p.format, h.GetFormat())
			p.identity, p.also = h.GetCluster(), h.GetAlsoTrusted()
			for _, id := range h.GetRemoved() {
				p.removed[id] = true
			}
		}
	}
}

// snapshotHeader returns nil for what is no snapshot.
func snapshotHeader(file string) *pb.SnapshotHeader {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	const before = manifest.DigestSize // of what stands beside it, see snapshots
	if _, err := f.Seek(before, io.SeekStart); err != nil || checkStream(f) != nil {
		return nil
	}
	if _, err := f.Seek(before+8, io.SeekStart); err != nil { // the index, see fsmSnapshot
		return nil
	}
	r := newRecordReader(f)
	first, err := r.next()
	if err != nil {
		return nil
	}
	return first.GetHeader()
}

// log reads what the entries say about the format and the CAs.
func (p *peeking) log(dir string) (err error) {
	if !Exists(dir) {
		return nil
	}
	disk, err := openReadOnly(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	first, last := disk.ends()
	var entry raft.Log
	for i := first; i <= last && i > 0; i++ {
		if err := disk.GetLog(i, &entry); err != nil {
			return promised(err)
		}
		if entry.Type == raft.LogCommand {
			p.entry(entry.Data)
		}
	}
	return nil
}

// entry takes what concerns us; most entries do not, and are not decoded.
func (p *peeking) entry(data []byte) {
	if !concerns(data) {
		return
	}
	cmd := new(pb.Command)
	if proto.Unmarshal(data, cmd) != nil {
		return
	}
	// Not what SetFormat asks for, which the machine may have refused: behind
	// one that was accepted, the leader writes a command in the new format.
	p.format = max(p.format, cmd.GetFormat())
	switch do := cmd.GetDo().(type) {
	case *pb.Command_RemoveMember:
		p.removed[do.RemoveMember.GetId()] = true // for good: an id never comes back
	case *pb.Command_InitCluster:
		p.initCluster(do.InitCluster)
	case *pb.Command_PutAuthority:
		p.putAuthority(do.PutAuthority)
	case *pb.Command_UseAuthority:
		p.useAuthority(do.UseAuthority)
	case *pb.Command_DropAuthority:
		p.dropAuthority(do.DropAuthority)
	}
}

// concerns looks for the fields of Command that entry knows, and for a format.
func concerns(data []byte) bool {
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		switch num {
		case 12, 16, 41, 42, 43: // RemoveMember, InitCluster and those of authorities
			return true
		case 1:
			if v, n := protowire.ConsumeVarint(data); kind == protowire.VarintType && n > 0 && v > Newest {
				return true
			}
		}
		if n = protowire.ConsumeFieldValue(num, kind, data); n < 0 {
			return false
		}
		data = data[n:]
	}
	return false
}
