// Package errorfs wraps a vfs.FS and fails operations by name, so that a test
// says which step failed: "what if the disk is full at the third WFile.Write",
// "what if the process dies before any one of its operations".
//
// Before each operation, those of files and leases included, an Injector is
// asked. Only tests import this package.
package errorfs
