package manifest

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// MaxSize bounds a file's content, in bytes: a size beyond it is nonsense, and
// sums of sizes cannot overflow.
const MaxSize = 1 << 40

// CheckLink tells why a symlink at p must not point to target; nil if it may:
// a link of a tree stays inside the tree, whoever follows it. ".." counts only
// at the start of a target: behind a name it would climb from wherever that
// name leads.
func CheckLink(p Path, target string) error {
	if target == "" {
		return errors.New("is a symlink without a target")
	}
	if path.IsAbs(target) {
		return errors.New("is a symlink with an absolute target")
	}
	up, names := 0, 0
	for _, name := range strings.Split(target, "/") {
		switch name {
		case "", ".":
		case "..":
			if names > 0 {
				return errors.New(`is a symlink whose target climbs behind a name ("x/..")`)
			}
			up++
		default:
			names++
		}
	}
	if up > p.Depth()-1 {
		return errors.New("is a symlink that leads out of the tree")
	}
	if names == 0 {
		return nil
	}
	if _, err := ParsePath(path.Join(string(p.Dir()), target)); err != nil {
		return errors.New("is a symlink to what no tree can hold")
	}
	return nil
}

// ValidateAt tells what makes e an entry that cannot stand at p: whatever
// comes from a peer, a log or a snapshot passes here before a disk sees it.
func (e Entry) ValidateAt(p Path) error {
	if _, err := ParsePath(string(p)); err != nil {
		return err
	}
	if err := e.Validate(); err != nil {
		return fmt.Errorf("path %q: %w", string(p), err)
	}
	if e.Kind == Symlink {
		if err := CheckLink(p, e.Target); err != nil {
			return fmt.Errorf("path %q: %w", string(p), err)
		}
	}
	return nil
}
