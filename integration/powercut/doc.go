// Package powercut gives a test a disk whose power can be cut: an ext4 in a
// file, mounted over a loop device. What was flushed is in the file; what was
// not is in the kernel's memory alone. A copy of the file is therefore what a
// cut in that moment would leave behind, journal and all.
//
// It is mounted so that the cut is as bad as POSIX allows: the data of files
// are written back in any order with their names, and a rename flushes nothing.
//
// It needs root, and skips the test loudly otherwise.
package powercut
