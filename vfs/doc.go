// Package vfs is the only way into a tree on disk: file operations that are
// rooted in one directory and cannot leave it, with the Linux extras that the
// promises rest on. Linux only.
//
// # What it promises
//
//   - No operation follows a symbolic link in any component, so that none ends
//     outside the root, whatever stands in the tree or changes under the call
//     (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS; where the kernel
//     or a sandbox refuses that, a walk with O_NOFOLLOW element by element).
//     Every path is validated again, even if its type says that it was.
//   - Nothing blocks on a FIFO or touches a device: only what lstat calls a
//     regular file is opened, and that with O_NONBLOCK.
//   - Operations go by the directory that was opened, not by the path that it
//     was opened under. Check tells when the two have parted (unmounted,
//     replaced), and is to be asked before absence is believed.
//   - No descriptor of a directory is kept between two calls: a kept one may
//     have been renamed elsewhere. Finding the parent costs one openat2
//     (some microseconds), whatever its depth.
//
// # Staging
//
// A Root owns a staging directory (mode 0700) on the filesystem of the tree:
// content is written there, flushed, and then moved in by Exchange or Place;
// what is removed moves out by TakeOut. The names in it are the caller's. What
// an earlier run left is listed by ListStaged and never removed by itself: it
// may be the only copy of an edit. Staging lies beside the root where that
// works (hot deployers do not look there), else in .gatesync/staging.
//
// # Leases
//
// File.Lease is how one learns that nobody writes: the kernel refuses a read
// lease while the file is open for writing anywhere on this machine. When
// somebody opens it later, the kernel holds him up until the lease is gone; a
// Root owns a goroutine that lets go at once, so that a gateway never waits
// for us, and the lease then says that it is no longer Intact.
//
// # Who calls it
//
// syncer: scan and look read, settle leases, materialize stages and moves, and
// record flushes. Everything here may be called from many goroutines, and no
// lock is held over a call into the filesystem: an operation that hangs on a
// dead mount hangs alone, Close included.
//
// Package errorfs beside this one wraps any FS and fails operations by name.
package vfs
