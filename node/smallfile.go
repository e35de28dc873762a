package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/vfs"
)

// errFileDamaged: a small file does not hold what was written to it.
var errFileDamaged = errors.New("the file is damaged")

// envelope is a small file: what it says, and the digest of that. An address
// with one flipped digit would be believed, and told to others.
type envelope struct {
	Digest  string          `json:"digest"`
	Content json.RawMessage `json:"content"`
}

// readJSON reads what writeJSON wrote; errFileDamaged, with the file's name, for
// anything else.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var e envelope
	var plain bytes.Buffer
	if err = json.Unmarshal(b, &e); err == nil {
		err = json.Compact(&plain, e.Content)
	}
	if err == nil && manifest.DigestOf(plain.Bytes()).String() != e.Digest {
		err = errors.New("its content does not match its digest")
	}
	if err == nil {
		err = json.Unmarshal(e.Content, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", path, errFileDamaged, err)
	}
	return nil
}

// writeJSON replaces a small file so that a crash leaves the old or the new one.
func writeJSON(path string, v any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	content, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(envelope{Digest: manifest.DigestOf(content).String(), Content: content}, "", "  ")
	if err != nil {
		return err
	}
	return vfs.ReplaceFile(path, append(b, '\n'), 0o600)
}
