// Testsum reads the output of one or several `go test -json` runs and says
// what a person wants to know: a line for each package as it ends, everything
// that failing tests printed, the names of skipped tests, and last
//
//	N passed, N failed, N skipped
//
// It exits 1 where something failed or did not build, and with -noskip also
// where a test was skipped: a skipped promise is no promise.
//
//	go test -json ./... | go -C tools run ./testsum -noskip
package main
