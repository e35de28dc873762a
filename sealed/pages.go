package sealed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// bbolt's file format, as far as it is needed to tell a sound file from a
// damaged one. A file is pages of one size. Pages 0 and 1 are the meta pages;
// the newer one names the root of a tree of branch and leaf pages, whose
// leaves hold the buckets, each with the root of a tree of its own (or with
// its only leaf inside of its value).
const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = math.MaxUint64

	pageHeader  = 16 // id 8, flags 2, count 2, overflow 4
	element     = 16
	bucketHead  = 16 // root 8, sequence 8
	metaSize    = 64
	branchPage  = 1
	leafPage    = 2
	bucketFlag  = 1
	maxPageSize = 1 << 16
)

// The machine's own byte order: bbolt maps its structures onto the file.
var order = binary.NativeEndian

type meta struct {
	pageSize, root, freelist, pages, tx uint64
}

func readMeta(r io.ReaderAt, offset int64) (m meta, err error) {
	b := make([]byte, pageHeader+metaSize)
	if _, err := r.ReadAt(b, offset); err != nil {
		return m, fmt.Errorf("a meta page cannot be read: %w", err)
	}
	b = b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:56]) // never fails
	if order.Uint32(b) != metaMagic || order.Uint32(b[4:]) != metaVersion || order.Uint64(b[56:]) != sum.Sum64() {
		return m, errors.New("a meta page is not as it was written")
	}
	m = meta{
		pageSize: uint64(order.Uint32(b[8:])), root: order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]), pages: order.Uint64(b[40:]), tx: order.Uint64(b[48:]),
	}
	if m.pageSize < 512 || m.pageSize > maxPageSize || m.pageSize&(m.pageSize-1) != 0 {
		return m, fmt.Errorf("pages of %d bytes", m.pageSize)
	}
	return m, nil
}

// readMetas returns the newer of the two meta pages.
func readMetas(r io.ReaderAt, size int64) (meta, error) {
	a, err := readMeta(r, 0)
	if err != nil {
		return a, err
	}
	b, err := readMeta(r, int64(a.pageSize))
	if err != nil {
		return a, err
	}
	if a.pageSize != b.pageSize || a.tx != b.tx+1 && b.tx != a.tx+1 {
		return a, errors.New("its meta pages are not of one file")
	}
	if b.tx > a.tx {
		a = b
	}
	if a.pages > uint64(size)/a.pageSize {
		return a, fmt.Errorf("it was cut off: %d bytes are left of %d pages of %d bytes", size, a.pages, a.pageSize)
	}
	if a.freelist != noFreelist {
		return a, errors.New("it is not one of ours, or was never finished")
	}
	return a, nil
}

// walker reads every page that a file refers to.
type walker struct {
	r    io.ReaderAt
	meta meta
	seen map[uint64]bool
	// found is called for each value; what it gets is valid until it returns.
	found func(bucket, key, stored []byte) error
}

func (w *walker) walk() error {
	return w.page(nil, w.meta.root, nil, nil)
}

// page walks a page and what lies below it. bucket is nil for the tree of the
// buckets. All keys are at least low and, unless high is nil, below high.
func (w *walker) page(bucket []byte, id uint64, low, high []byte) error {
	b, err := w.read(id)
	if err != nil {
		return err
	}
	return w.content(bucket, b, id, low, high)
}

// read reads a page with its overflow.
func (w *walker) read(id uint64) ([]byte, error) {
	if id < 2 || id >= w.meta.pages {
		return nil, fmt.Errorf("page %d is referred to, and there are %d", id, w.meta.pages)
	}
	head := make([]byte, pageHeader)
	offset := int64(id * w.meta.pageSize)
	if _, err := w.r.ReadAt(head, offset); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	more := uint64(order.Uint32(head[12:]))
	if order.Uint64(head) != id || more >= w.meta.pages-id {
		return nil, fmt.Errorf("page %d has a header that is not its own", id)
	}
	for n := id; n <= id+more; n++ {
		if w.seen[n] {
			return nil, fmt.Errorf("page %d is used twice", n)
		}
		w.seen[n] = true
	}
	b := make([]byte, (more+1)*w.meta.pageSize)
	if _, err := w.r.ReadAt(b, offset); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return b, nil
}

func (w *walker) content(bucket, b []byte, id uint64, low, high []byte) error {
	flags, count := order.Uint16(b[8:]), int(order.Uint16(b[10:]))
	if flags != leafPage && flags != branchPage || flags == branchPage && count == 0 {
		return fmt.Errorf("page %d is of an unknown kind", id)
	}
	items, err := elements(b, count, flags == branchPage)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for i, it := range items {
		if i > 0 && bytes.Compare(items[i-1].key, it.key) >= 0 || bytes.Compare(it.key, low) < 0 || high != nil && bytes.Compare(it.key, high) >= 0 {
			return fmt.Errorf("page %d: its keys are out of order", id)
		}
	}
	for i, it := range items {
		var err error
		switch {
		case flags == branchPage && i+1 < len(items):
			err = w.page(bucket, it.child, it.key, items[i+1].key)
		case flags == branchPage:
			err = w.page(bucket, it.child, it.key, high)
		case bucket == nil && it.flags == bucketFlag:
			err = w.bucket(it)
		case bucket != nil && it.flags == 0:
			err = w.found(bucket, it.key, it.value)
		default:
			err = fmt.Errorf("page %d: %q is out of place", id, it.key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket walks a bucket, which may lie inside of its own value.
func (w *walker) bucket(it item) error {
	if len(it.value) < bucketHead {
		return fmt.Errorf("bucket %q is cut short", it.key)
	}
	root := order.Uint64(it.value)
	if root != 0 {
		return w.page(it.key, root, nil, nil)
	}
	inline := it.value[bucketHead:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != leafPage {
		return fmt.Errorf("bucket %q is cut short", it.key)
	}
	return w.content(it.key, inline, 0, nil, nil)
}

// item is an element of a branch or of a leaf.
type item struct {
	flags      uint32
	key, value []byte
	child      uint64
	start      int // where in the page the key begins
}

// elements reads the elements of a page without believing it.
func elements(b []byte, count int, branch bool) ([]item, error) {
	if pageHeader+count*element > len(b) {
		return nil, errors.New("it has more elements than fit")
	}
	read := leafElement
	if branch {
		read = branchElement
	}
	items := make([]item, count)
	// bbolt writes keys and values without a gap behind the elements: so none
	// can get lost by a count that is too small.
	next := pageHeader + count*element
	for i := range items {
		it, ok := read(b, i, count)
		if !ok {
			return nil, errors.New("an element lies outside of it")
		}
		if it.start != next {
			return nil, errors.New("an element is missing in it")
		}
		next += len(it.key) + len(it.value)
		items[i] = it
	}
	return items, nil
}

// leafElement reads the i-th of count elements; ok is false where it does not
// lie inside of the page.
func leafElement(b []byte, i, count int) (it item, ok bool) {
	at := pageHeader + i*element
	if at+element > len(b) {
		return it, false
	}
	e := b[at:]
	it.flags = order.Uint32(e)
	it.start = at + int(order.Uint32(e[4:]))
	it.key, it.value, ok = cutOut(b, at, count, order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:]))
	return it, ok
}

func branchElement(b []byte, i, count int) (it item, ok bool) {
	at := pageHeader + i*element
	e := b[at:]
	it.child = order.Uint64(e[8:])
	it.start = at + int(order.Uint32(e))
	it.key, _, ok = cutOut(b, at, count, order.Uint32(e), order.Uint32(e[4:]), 0)
	return it, ok
}

// cutOut cuts key and value out of a page: they stand behind the elements, pos
// bytes behind their own.
func cutOut(b []byte, at, count int, pos, ksize, vsize uint32) (key, value []byte, ok bool) {
	start := uint64(at) + uint64(pos)
	mid := start + uint64(ksize)
	end := mid + uint64(vsize)
	if start < uint64(pageHeader+count*element) || end > uint64(len(b)) {
		return nil, nil, false
	}
	return b[start:mid:mid], b[mid:end:end], true
}
