package records

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

func data(s string) *pb.BackupRecord {
	return &pb.BackupRecord{Of: &pb.BackupRecord_Data{Data: []byte(s)}}
}

// stream is two records and the last one, which says what they were.
func stream(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, 16)
	for _, s := range []string{"one", "two"} {
		if err := w.Put(data(s)); err != nil {
			t.Fatal(err)
		}
	}
	n, digest := w.Sum()
	if err := w.Put(&pb.BackupRecord{Of: &pb.BackupRecord_Trailer{Trailer: &pb.BackupTrailer{Records: n, Digest: digest[:]}}}); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Finish(); err != nil || n != int64(out.Len()) {
		t.Fatalf("%d of %d bytes, %v", n, out.Len(), err)
	}
	return out.Bytes()
}

// whole reads a stream to its end.
func whole(b []byte, most uint64) (texts []string, err error) {
	r := NewReader(bytes.NewReader(b), 16, most)
	for {
		rec := new(pb.BackupRecord)
		if err := r.Next(rec); err != nil {
			return texts, err
		}
		if l := rec.GetTrailer(); l != nil {
			if !r.AtEnd() {
				return texts, errors.New("something follows")
			}
			return texts, r.Check(l.GetRecords(), l.GetDigest())
		}
		texts = append(texts, string(rec.GetData()))
	}
}

func TestWhatWasWrittenIsRead(t *testing.T) {
	b := stream(t)
	if texts, err := whole(b, 1<<10); err != nil || strings.Join(texts, " ") != "one two" {
		t.Errorf("%q, %v", texts, err)
	}
	if _, err := whole(append(b, 0), 1<<10); err == nil {
		t.Error("something behind the end was not seen")
	}
}

// Wherever one byte is another, or the rest is missing, it is seen.
func TestDamageIsSeen(t *testing.T) {
	b := stream(t)
	for i := range b {
		if _, err := whole(b[:i], 1<<10); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("torn after %d bytes: %v", i, err)
		}
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := whole(bad, 1<<10); err == nil {
			t.Errorf("another byte %d was not seen", i)
		}
	}
	if _, err := whole(b, 4); err == nil || !strings.Contains(err.Error(), "the limit is 4") {
		t.Errorf("a record beyond the limit: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("no room") }

func TestTheFirstErrorSticks(t *testing.T) {
	w := NewWriter(failing{}, 16)
	_ = w.Put(data(strings.Repeat("x", 100)))
	if w.Err() == nil || w.Put(data("y")) != w.Err() {
		t.Errorf("the error is %v", w.Err())
	}
	if n, _ := w.Sum(); n != 1 {
		t.Errorf("%d records", n)
	}
	if _, err := w.Finish(); err == nil {
		t.Error("it says that all is written")
	}
}
