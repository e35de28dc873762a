package target

import (
	"fmt"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// Codes of a RefusedError.
const (
	CodeVersion  = "version"   // of the protocol
	CodeToken    = "token"     // it is not this target's
	CodeBusy     = "busy"      // another push is under way
	CodeTree     = "tree"      // no such tree
	CodeRoot     = "root"      // the root is not there, or not a target's
	CodeRootBare = "root-bare" // the root has lost its marker
	CodeStale    = "stale"     // a newer pusher, or a newer revision, was there
	CodeTwice    = "twice"     // it is another target of the same cluster, too
	CodeRoom     = "room"      // no space
	CodeFailed   = "failed"
)

// RefusedError is what the other end says about why it ends the session.
type RefusedError struct{ Code, Message string }

func (e *RefusedError) Error() string { return e.Message }

func refused(code, format string, args ...any) *RefusedError {
	return &RefusedError{Code: code, Message: fmt.Sprintf(format, args...)}
}

// refusal reads a refusal out of a frame, nil if it is none.
func refusal(kind byte, payload []byte) error {
	if kind != frameRefused {
		return nil
	}
	var m pb.PushRefused
	if err := parse(payload, &m); err != nil {
		return err
	}
	return &RefusedError{Code: m.GetCode(), Message: printable(m.GetMessage())}
}

// printable keeps a stranger's words from playing with a terminal.
func printable(s string) string {
	out := []rune(s)
	if len(out) > 2000 {
		out = out[:2000]
	}
	for i, r := range out {
		if r < ' ' && r != '\n' || r == 0x7f {
			out[i] = '?'
		}
	}
	return string(out)
}
