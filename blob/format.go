package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// storeFormat is the layout that this version reads and writes; it stands in
// the file "format".
const storeFormat = "1"

// FormatError: a newer version has laid out the store. Its records would look
// like damage here, and damage is cut off.
type FormatError struct{ Dir, Format string }

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s has format %s, this gatesync knows %s: a newer version ran here; install it again; nothing was changed", e.Dir, e.Format, storeFormat)
}

// checkFormat comes before anything in the store is touched.
func (s *Store) checkFormat() error {
	path := filepath.Join(s.dir, "format")
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		if f := strings.TrimSpace(string(b)); f != storeFormat {
			return &FormatError{Dir: s.dir, Format: f}
		}
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(storeFormat + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(s.dir)
}
