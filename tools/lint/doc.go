// Lint holds gatesync's house rules by machine, where no general linter does:
//
//   - imports point strictly down the levels of docs/design.md (layers.go);
//   - every package has a doc.go, no file is longer than 500 lines, nothing
//     ends the process or hides in init outside package main (files.go);
//   - every test that docs/guarantees.md names exists, and every test of a
//     promise is named there (guarantees.go).
//
// It prints one line for each breach and exits 1 where there is one. It reads
// the source tree and runs `go list`; it writes nothing.
//
//	go -C tools run ./lint ..
package main
