// Package proto holds the schemas of everything that crosses a wire or is
// written to the log: gatesync/v1. The generated code is checked in beside the
// schemas; `make proto` makes it anew and `make check` fails when it is stale.
//
// Rules: fields are only ever added; numbers are never reused; paths, names
// and symlink targets are bytes (they need not be UTF-8); every message that
// is stored carries a format version.
package proto
