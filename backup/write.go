package backup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/records"
)

// Format is the newest format that Write writes and Read reads.
const Format = 1

// run is how many bytes one record holds at most, but for its frame.
const run = 64 << 10

// Blobs is where content comes from.
type Blobs interface {
	Has(manifest.Digest) bool
	Open(manifest.Digest) (*blob.Reader, error)
}

// Summary says what is in a backup.
type Summary struct {
	Cluster     string `json:"cluster"`
	Revision    uint64 `json:"revision"`
	Incarnation uint64 `json:"incarnation"`
	Node        string `json:"node"` // that wrote it
	Version     string `json:"version"`
	TimeNS      int64  `json:"time_ns"`
	Blobs       uint64 `json:"blobs"`
	Bytes       uint64 `json:"bytes"`   // of them
	Lacking     int    `json:"lacking"` // blobs of the history that the writing node lacked
}

// LackError: content of a present path is not there.
type LackError struct {
	Tree, Path string // the first
	Count      int
}

func (e *LackError) Error() string {
	return fmt.Sprintf("the content of %d paths is not here (the first: %s of tree %s)", e.Count, e.Path, e.Tree)
}

// Write writes a state and its content. By fills the header's Node, Version
// and time.
func Write(ctx context.Context, out io.Writer, by *pb.BackupHeader, frozen *raftstore.Frozen, blobs Blobs) (s Summary, err error) {
	m := frozen.Machine()
	present, past, err := wanted(m, blobs)
	if err != nil {
		return s, err
	}
	id, _, _ := m.Cluster()
	h := &pb.BackupHeader{
		Format: Format, ClusterId: id, Revision: uint64(frozen.Revision()), Incarnation: uint64(m.Incarnation()),
		TimeNs: by.GetTimeNs(), Node: by.GetNode(), Version: by.GetVersion(),
	}
	w := writer{records.NewWriter(out, 1<<18)}
	w.put(&pb.BackupRecord{Of: &pb.BackupRecord_Header{Header: h}})
	snapshot := bufio.NewWriterSize(writeFunc(func(b []byte) error {
		return w.put(&pb.BackupRecord{Of: &pb.BackupRecord_Snapshot{Snapshot: bytes.Clone(b)}})
	}), run)
	if _, err := frozen.WriteTo(snapshot); err != nil {
		return s, err
	}
	if err := snapshot.Flush(); err != nil {
		return s, err
	}
	t := &pb.BackupTrailer{}
	for _, ref := range slices.Concat(present, past) {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		if !blobs.Has(ref.Digest) { // of the history: a present path's would have been found above
			t.Lacking = append(t.Lacking, &pb.BlobInfo{Digest: ref.Digest[:], Size: ref.Size})
			continue
		}
		if err := w.blob(ref, blobs); err != nil {
			return s, fmt.Errorf("content %s: %w", ref.Digest.Short(), err)
		}
		t.Blobs++
		t.Bytes += uint64(ref.Size)
	}
	n, digest := w.Sum()
	t.Records, t.Digest = n, digest[:]
	w.put(&pb.BackupRecord{Of: &pb.BackupRecord_Trailer{Trailer: t}})
	_, err = w.Finish()
	return summary(h, t), err
}

func summary(h *pb.BackupHeader, t *pb.BackupTrailer) Summary {
	return Summary{
		Cluster: h.GetClusterId(), Revision: h.GetRevision(), Incarnation: incarnationOf(h).Number(), Node: h.GetNode(), Version: h.GetVersion(),
		TimeNS: h.GetTimeNs(), Blobs: t.GetBlobs(), Bytes: t.GetBytes(), Lacking: len(t.GetLacking()),
	}
}

// wanted lists the content of the present paths, which must be here, and then
// that of the retained history.
func wanted(m *raftstore.Machine, blobs Blobs) (present, past []manifest.BlobRef, err error) {
	seen := map[manifest.Digest]bool{}
	take := func(to *[]manifest.BlobRef, e manifest.Entry) {
		if e.HasContent() && !seen[e.Digest] {
			seen[e.Digest] = true
			*to = append(*to, e.Blob())
		}
	}
	var lack LackError
	for _, info := range m.Trees() {
		view, _ := m.View(info.Name)
		view.Manifest.All(func(p manifest.Path, n manifest.Node) bool {
			take(&present, n.Entry)
			if n.Entry.HasContent() && !blobs.Has(n.Entry.Digest) {
				if lack.Count++; lack.Count == 1 {
					lack.Tree, lack.Path = info.Name, string(p)
				}
			}
			return true
		})
	}
	if lack.Count > 0 {
		return nil, nil, &lack
	}
	for _, c := range m.History("", 0, math.MaxInt) {
		for _, ch := range c.Changes {
			take(&past, ch.Old.Entry)
			take(&past, ch.New)
		}
	}
	return present, past, nil
}

// writer writes a backup's records. The first error sticks.
type writer struct{ *records.Writer }

func (w writer) put(r *pb.BackupRecord) error { return w.Put(r) }

func (w writer) blob(ref manifest.BlobRef, blobs Blobs) (err error) {
	r, err := blobs.Open(ref.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := w.put(&pb.BackupRecord{Of: &pb.BackupRecord_Blob{Blob: &pb.BlobInfo{Digest: ref.Digest[:], Size: ref.Size}}}); err != nil {
		return err
	}
	buf := make([]byte, run)
	for {
		n, rerr := r.Read(buf)
		if n > 0 {
			if err := w.put(&pb.BackupRecord{Of: &pb.BackupRecord_Data{Data: buf[:n]}}); err != nil {
				return err
			}
		}
		if errors.Is(rerr, io.EOF) {
			return nil // the reader has checked the digest
		}
		if rerr != nil {
			return rerr
		}
	}
}

// writeFunc is a function as an io.Writer.
type writeFunc func([]byte) error

func (f writeFunc) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), run)
		if err := f(rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}
