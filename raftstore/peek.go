package raftstore

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

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
// know: a newer version ran here. Entries behind the newest snapshot count
// whether they are committed or not. A damaged log is a *DamagedError; a damaged
// snapshot counts for nothing.
func Peek(dir string) (Peeked, error) {
	p := peeking{state: newState()}
	through, err := p.snapshot(dir)
	if err != nil {
		return Peeked{}, fmt.Errorf("read the snapshots in %s: %w", dir, err)
	}
	if err := p.log(dir, through); err != nil {
		return Peeked{}, err
	}
	if p.format > Newest {
		return Peeked{}, &NewerError{What: "the log in " + dir, Format: p.format}
	}
	return Peeked{Format: p.format, Authorities: p.authorities(), Removed: p.removed}, nil
}

type peeking struct{ state }

// snapshot reads the header of the newest snapshot that is whole, and tells
// through which entry it goes.
func (p *peeking) snapshot(dir string) (through uint64, err error) {
	all, err := snapshotsIn(dir)
	if err != nil || all == nil {
		return 0, err
	}
	names, err := all.names()
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		m, in, err := all.openSurely(name)
		if errors.Is(err, ErrSnapshot) {
			continue
		}
		if err != nil {
			return 0, err
		}
		h, err := snapshotHeader(in)
		if err = errors.Join(err, in.Close()); err != nil {
			return 0, err
		}
		p.format = h.GetFormat()
		p.identity, p.also = h.GetCluster(), h.GetAlsoTrusted()
		for _, id := range h.GetRemoved() {
			p.removed[id] = true
		}
		return m.Index, nil
	}
	return 0, nil
}

func snapshotHeader(in io.Reader) (*pb.SnapshotHeader, error) {
	if _, err := io.CopyN(io.Discard, in, 8); err != nil { // the index, see fsmSnapshot
		return nil, err
	}
	first, err := newSnapshotReader(in).next()
	return first.GetHeader(), err
}

// log reads what the entries behind the snapshot say about the format and the
// CAs. Those before it are in the snapshot, and would be taken twice.
func (p *peeking) log(dir string, through uint64) (err error) {
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
	for i := max(first, through+1); i <= last; i++ {
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
