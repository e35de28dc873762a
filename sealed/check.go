package sealed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// check reads a whole file and tells what is wrong with it.
func check(file string, buckets []string) error {
	return inspect(file, func(r io.ReaderAt, size int64) error { return checkContent(r, size, buckets) })
}

// Inspect reads a bbolt file that somebody else writes (its free list is not
// synced) and calls found for each stored value, in the order of the keys of
// each bucket. A *DamagedError where the file's structure is not sound, or found
// does not like a value; ErrInUse where another process writes it. What found
// gets is valid until it returns.
func Inspect(file string, found func(bucket, key, stored []byte) error) error {
	return inspect(file, func(r io.ReaderAt, size int64) error {
		m, err := readMetas(r, size)
		if err != nil {
			return err
		}
		w := walker{r: r, meta: m, seen: map[uint64]bool{}, found: found}
		return w.walk()
	})
}

func inspect(file string, content func(r io.ReaderAt, size int64) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	// Whoever writes it now has it locked; what we read would be torn.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s: %w", file, ErrInUse)
		}
		return fmt.Errorf("lock %s: %w", file, err)
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := content(insistent{f}, fi.Size()); err != nil {
		return &DamagedError{File: file, Err: err}
	}
	return nil
}

// insistent asks a disk that stumbles again: what it refuses every time is lost.
type insistent struct{ io.ReaderAt }

// ReadAt implements io.ReaderAt.
func (r insistent) ReadAt(b []byte, offset int64) (n int, err error) {
	const tries = 3
	for range tries {
		if n, err = r.ReaderAt.ReadAt(b, offset); !errors.Is(err, unix.EIO) {
			break
		}
	}
	return n, err
}

// checkContent compares every value with its checksum, and all of them with
// the seal.
func checkContent(r io.ReaderAt, size int64, buckets []string) error {
	m, err := readMetas(r, size)
	if err != nil {
		return err
	}
	var have, want seal
	sealedAt := 0
	w := walker{r: r, meta: m, seen: map[uint64]bool{}}
	w.found = func(bucket, key, stored []byte) error {
		if string(bucket) == string(sealBucket) {
			sealedAt++
			want, err = decodeSeal(stored)
			return err
		}
		if !slices.Contains(buckets, string(bucket)) {
			return fmt.Errorf("it has a bucket %q", bucket)
		}
		_, sum, ok := unwrap(bucket, key, stored)
		if !ok {
			return fmt.Errorf("%q in %q is not what was written", key, bucket)
		}
		have.add(sum)
		return nil
	}
	if err := w.walk(); err != nil {
		return err
	}
	if sealedAt != 1 || have != want {
		return fmt.Errorf("it holds %d values, and not the %d that were written", have.count, want.count)
	}
	return nil
}

// Salvage calls fn for each value of a bucket that can still be read in a
// damaged file, in no order, perhaps more than once, and perhaps in an older
// state. What fn gets is its own.
func Salvage(file, bucket string, fn func(key, value []byte)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	pageSize := int64(os.Getpagesize())
	if m, err := readMeta(f, 0); err == nil {
		pageSize = int64(m.pageSize)
	}
	for offset := int64(0); offset < fi.Size(); offset += pageSize {
		if err := salvagePage(f, offset, fi.Size(), pageSize, []byte(bucket), fn); err != nil {
			return err
		}
	}
	return nil
}

// maxSalvage bounds what a damaged page may claim to be.
const maxSalvage = 64 << 20

func salvagePage(r io.ReaderAt, offset, size, pageSize int64, bucket []byte, fn func(key, value []byte)) error {
	head := make([]byte, pageHeader)
	if _, err := r.ReadAt(head, offset); errors.Is(err, io.EOF) || order.Uint16(head[8:]) != leafPage {
		return nil
	} else if err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	n := min((int64(order.Uint32(head[12:]))+1)*pageSize, size-offset, maxSalvage)
	b := make([]byte, n)
	if _, err := r.ReadAt(b, offset); err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	salvageLeaf(b, bucket, fn)
	return nil
}

func salvageLeaf(b, bucket []byte, fn func(key, value []byte)) {
	// One element that lies elsewhere must not hide the others.
	count := int(order.Uint16(b[10:]))
	for i := range count {
		it, ok := leafElement(b, i, count)
		if !ok {
			continue
		}
		if it.flags == bucketFlag && len(it.value) >= bucketHead+pageHeader && order.Uint64(it.value) == 0 {
			salvageLeaf(it.value[bucketHead:], bucket, fn)
			continue
		}
		if value, _, ok := unwrap(bucket, it.key, it.value); ok {
			fn(slices.Clone(it.key), slices.Clone(value))
		}
	}
}
