package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sort"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/proto"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/syncer"
)

// Held lists what guards hold back.
func (s *localService) Held(ctx context.Context, _ *pb.HeldRequest) (*pb.HeldResponse, error) {
	res := &pb.HeldResponse{}
	for _, t := range s.trees.all() {
		st, err := t.syncr.Status(ctx)
		if err != nil {
			return nil, err
		}
		if _, noted := st.Loop.Notes[""]; st.Loop.RootLost != "" && !noted {
			res.Items = append(res.Items, &pb.HeldItem{Tree: t.cfg.Name, Guard: string(syncer.GuardRoot), Why: st.Loop.RootLost})
		}
		for _, p := range sortedPaths(st.Loop.Notes) {
			n := st.Loop.Notes[p]
			item := &pb.HeldItem{Tree: t.cfg.Name, Path: []byte(p), Guard: string(n.Guard), Why: n.Why, TimeNs: n.Time}
			if p != "" {
				item.Change = heldChange(n)
			}
			res.Items = append(res.Items, item)
		}
	}
	return res, nil
}

// heldChange is what approving a note would do to the cluster's tree.
func heldChange(n syncer.Note) string {
	switch n.Guard {
	case syncer.GuardUnfit, syncer.GuardUnread, syncer.GuardUnreadLost:
		return "" // what stands there is no entry, or not known
	}
	switch {
	case n.Entry.Absent():
		return "delete"
	case n.Base == 0:
		return "add"
	}
	return "change"
}

func sortedPaths(notes map[manifest.Path]syncer.Note) []manifest.Path {
	out := make([]manifest.Path, 0, len(notes))
	for p := range notes {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return manifest.Compare(out[i], out[j]) < 0 })
	return out
}

// Resolve is an operator's word on what is held.
func (s *localService) Resolve(ctx context.Context, req *pb.ResolveRequest) (*pb.ResolveResponse, error) {
	verb, ok := map[string]syncer.Verb{"approve": syncer.Approve, "restore": syncer.Restore, "retry": syncer.Retry}[req.GetAction()]
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "unknown word %q", req.GetAction())
	}
	var paths []manifest.Path
	for _, b := range req.GetPaths() {
		p, err := manifest.ParsePath(string(b))
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		paths = append(paths, p)
	}
	var names []string
	if req.GetTree() != "" {
		names = []string{req.GetTree()}
	}
	trees, err := s.trees.some(names)
	if err != nil {
		return nil, err
	}
	res := &pb.ResolveResponse{}
	for _, t := range trees {
		st, err := t.syncr.Status(ctx)
		if err != nil {
			return nil, err
		}
		here := concerned(st.Loop, paths)
		if verb == syncer.Approve {
			here = append(heldParents(st.Loop, here), here...)
		}
		if len(paths) == 0 {
			t.syncr.Rule(verb)
		} else if len(here) > 0 {
			t.syncr.Rule(verb, here...)
		}
		res.Resolved += uint64(len(here))
	}
	if res.Resolved == 0 && len(paths) > 0 {
		return nil, status.Error(codes.NotFound, "nothing is held at these paths: see `gatesync held`")
	}
	return res, nil
}

// concerned lists the held paths that are, or lie below, one of those asked
// for; none asked for: all.
func concerned(st syncer.LoopStatus, asked []manifest.Path) []manifest.Path {
	var out []manifest.Path
	for _, p := range sortedPaths(st.Notes) {
		hit := len(asked) == 0
		for _, a := range asked {
			hit = hit || p == a || p.Under(a)
		}
		if hit && p != "" {
			out = append(out, p)
		}
	}
	return out
}

// heldParents lists held directories above approved paths: without them the
// cluster has no place for what was approved.
func heldParents(st syncer.LoopStatus, approved []manifest.Path) []manifest.Path {
	seen := map[manifest.Path]bool{}
	for _, p := range approved {
		seen[p] = true
	}
	var out []manifest.Path
	for _, p := range approved {
		for dir := p.Dir(); dir != ""; dir = dir.Dir() {
			if n, held := st.Notes[dir]; held && n.Entry.IsDir() && !seen[dir] {
				seen[dir] = true
				out = append(out, dir)
			}
		}
	}
	return out
}

// Conflicts lists, restores or drops what lost a conflict.
func (s *localService) Conflicts(ctx context.Context, req *pb.ConflictsRequest) (*pb.ConflictsResponse, error) {
	res := &pb.ConflictsResponse{}
	wanted := map[string]bool{}
	for _, id := range req.GetIds() {
		wanted[id] = true
	}
	list := req.GetAction() == "list"
	for _, t := range s.trees.all() {
		all, err := t.syncr.Conflicts()
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if !list && !req.GetAll() && !wanted[c.ID] {
				continue
			}
			if err := resolveConflict(ctx, t, req.GetAction(), c.ID); err != nil {
				return nil, err
			}
			delete(wanted, c.ID)
			res.Conflicts = append(res.Conflicts, &pb.Conflict{
				Id: c.ID, Tree: t.cfg.Name, Path: []byte(c.Path), Lost: proto.FromEntry(c.Lost),
				Winner: uint64(c.Winner), TimeNs: c.Time, Why: c.Why,
			})
		}
	}
	for id := range wanted {
		return res, status.Errorf(codes.NotFound, "%q: %v", id, syncer.ErrNoConflict)
	}
	return res, nil
}

func resolveConflict(ctx context.Context, t *tree, action, id string) error {
	switch action {
	case "list":
		return nil
	case "restore":
		return t.syncr.RestoreConflict(ctx, id)
	case "drop":
		return t.syncr.DropConflict(id)
	}
	return status.Errorf(codes.InvalidArgument, "unknown word %q", action)
}

// Content streams a blob, or what a conflict kept aside.
func (s *localService) Content(req *pb.ContentRequest, stream grpc.ServerStreamingServer[pb.ContentChunk]) error {
	r, err := s.openContent(req)
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if serr := stream.Send(&pb.ContentChunk{Data: bytes.Clone(buf[:n])}); serr != nil {
				return serr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *localService) openContent(req *pb.ContentRequest) (io.ReadCloser, error) {
	if req.GetConflict() == "" {
		d, err := manifest.DigestFromBytes(req.GetDigest())
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		return s.blobs.Open(d)
	}
	for _, t := range s.trees.all() {
		r, err := t.syncr.ConflictContent(req.GetConflict())
		if !errors.Is(err, syncer.ErrNoConflict) {
			return r, err
		}
	}
	return nil, status.Errorf(codes.NotFound, "%q: %v", req.GetConflict(), syncer.ErrNoConflict)
}
