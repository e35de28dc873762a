package target

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/gatesync/gatesync/blob"
	"github.com/gatesync/gatesync/syncer"
)

// KeptItem is content that a push has displaced at a target.
type KeptItem struct {
	Tree string
	syncer.Conflict
}

// IsTarget tells whether a data directory is a target's.
func IsTarget(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, "receive.lock"))
	return err == nil
}

// keeping is a target's data directory while nobody else uses it: no push may
// be under way.
type keeping struct {
	dataDir string
	lock    io.Closer
}

func openKeeping(dataDir string) (*keeping, error) {
	lock, err := lockDir(dataDir)
	if err != nil {
		return nil, err
	}
	return &keeping{dataDir, lock}, nil
}

func (k *keeping) records(tree string) string {
	return filepath.Join(k.dataDir, "trees", tree, "records")
}

func (k *keeping) list() (list []KeptItem, err error) {
	dirs, err := os.ReadDir(filepath.Join(k.dataDir, "trees"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, d := range dirs {
		if _, err := os.Lstat(k.records(d.Name())); errors.Is(err, os.ErrNotExist) {
			continue
		}
		conflicts, err := syncer.ConflictsIn(k.records(d.Name()))
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", d.Name(), err)
		}
		for _, c := range conflicts {
			list = append(list, KeptItem{d.Name(), c})
		}
	}
	return list, nil
}

// item finds what is kept under an id.
func (k *keeping) item(id string) (KeptItem, error) {
	list, err := k.list()
	if err != nil {
		return KeptItem{}, err
	}
	i := slices.IndexFunc(list, func(x KeptItem) bool { return x.ID == id })
	if i < 0 {
		return KeptItem{}, fmt.Errorf("%q: %w", id, syncer.ErrNoConflict)
	}
	return list[i], nil
}

// Kept lists what a target keeps aside. No push may be under way.
func Kept(dataDir string) (list []KeptItem, err error) {
	k, err := openKeeping(dataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.lock.Close()) }()
	return k.list()
}

// KeptContent writes what is kept under an id. No push may be under way.
func KeptContent(dataDir, id string, w io.Writer) (err error) {
	k, err := openKeeping(dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.lock.Close()) }()
	item, err := k.item(id)
	if err != nil {
		return err
	}
	if !item.Lost.HasContent() {
		return fmt.Errorf("%q kept a %s aside, which has no content", id, item.Lost)
	}
	blobs, err := blob.Open(filepath.Join(dataDir, "blobs"), blob.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	r, err := blobs.Open(item.Lost.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

// DropKept forgets what is kept under an id; its content goes with the next push.
func DropKept(dataDir, id string) (err error) {
	k, err := openKeeping(dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.lock.Close()) }()
	item, err := k.item(id)
	if err != nil {
		return err
	}
	return syncer.DropConflictIn(k.records(item.Tree), id)
}
