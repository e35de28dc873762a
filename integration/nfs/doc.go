// Package nfs runs gatesync on a real NFS server and real NFS mounts.
//
// Mounts, a file server and its faults need a kernel, and not the one of whoever
// runs the tests: the kernel here is User Mode Linux, an ordinary process that
// boots in four seconds. In it are the kernel's own NFS server (nfsd) on an ext4 of
// its own, and three hosts, network namespaces with an address, a name and
// mounts of their own. Nothing of the machine outside is touched, and root is
// not needed.
//
// # Running
//
//	make test-nfs                                   # all; fails where no guest can be booted
//	make test-nfs TESTFLAGS='-run Smoke/v3'         # one; `go test` works as anywhere, too
//	make bench-nfs                                  # the figures of a shared mount
//
// Needed are the Debian packages user-mode-linux, gcc and libc6-dev. What is in
// the guest comes with apt-get from the machine's own mirrors, once, into
// ~/.cache/gatesync-nfs: 130 packages, 45 MB. Without all that, the tests skip by
// name; with GATESYNC_NFS_MUST=1 (make test-nfs) they fail.
//
// # How it works
//
// TestMain (main_test.go) is two programs. On the host it compiles gatesync and
// the tests anew, static and without the race detector, boots a guest for each
// test function, one for each processor at a time, and passes on what the tests
// say in the guest; to `go test` it looks as if they had run here, by name, with
// subtests, logs and -json. In the guest it is an ordinary test program.
// machine_test.go makes the guest's root, uml/init is its first process.
//
// The guest's clock is its own (uml/clock.c): it counts the processor time that the
// guest has had, at half its speed, and skips forward to the next timer while there
// is nothing to do. So nobody waits for leases, caches and pauses to end, and a
// machine that is busy with something else cannot make the guest miss a deadline.
// All durations that a test names, measures or logs are the guest's: those of a
// machine twice as fast with nothing else to do. GATESYNC_NFS_SLOWER=1 makes it half as
// fast as that: every test has to pass there, too.
//
// So: one test function is one boot. Scenarios that leave the bed in order
// are subtests of one function; one that wrecks it has a function of its own.
//
// # Writing a scenario
//
//	func TestPromise_NoSurpriseDelete_Something(t *testing.T) {
//		b := newBed(t) // a server and b.hosts[0..2]; skips where there is no guest
//		for _, f := range flavours() { // NFS 4.2 and 3, hard and soft
//			t.Run(f.name, func(t *testing.T) {
//				b.in(t) // a failure is this subtest's; what it mounts and starts ends with it
//				name := b.server.dir(f.name) // a directory of the share
//				m1, m2 := b.hosts[0].mount(name, f), b.hosts[1].mount(name, f)
//				c := b.cluster([]string{m1.path, m2.path, ""}) // "": a local tree
//				b.server.stop()
//				…
//				b.server.start()
//				c.waitEqual(30 * time.Second)
//			})
//		}
//	}
//
// What there is to do:
//
//   - server_test.go: stop, start, export (writable, readOnly), unexport, replace
//     (stale handles), fill, cutPower, move (another address).
//   - host_test.go: mount (with any further options), unmount, detach (lazily),
//     again (also at another path), rpcs; pull and plug a cable, netem.
//   - node_test.go: cluster; start, kill, term, signal (SIGSTOP); ask, status, says.
//   - tree_test.go: write, stands, passes, waitEqual.
//   - load_test.go: gateways that write and read meanwhile, and what must come of it.
//   - watch_test.go: whether status answers in time all the while; goroutines.
//   - owntree_test.go: mountsGo, every fault in turn.
//   - bed_test.go: addHost; within (what may hang), eventually.
//
// The hosts share one view of what is mounted where, so the test itself is the
// gateway of each host: it reads and writes in m.path as that host.
//
// # What to know
//
//   - One processor, a fifth as fast as one is used to by its own clock. Limits are
//     generous, and what takes up to four times as long passes (slack). What polls takes it from what it waits for: use eventually.
//   - Whoever waits in a hard mount waits in the kernel; the test process, too. Use
//     within for what may hang. mount's clean-up ends such waits with an error.
//   - After start, stop or cutPower, NFSv4 has a period of grace of ten seconds.
//   - A copy of a directory in its old place (replace) is ESTALE over v4, and
//     over v3 looks as if its files were deleted.
//   - Caches: a name that was looked up before it existed stays absent up to 30 s, a
//     size is old up to 7 s. Open and read.
//   - A test function has twenty minutes of the host's (a benchmark, and with GATESYNC_LONG, thirty), then the guest is
//     killed. While one runs, its words are in $TMPDIR/gatesync-nfs-boot-*/output, the
//     kernel's in kernel and console beside it.
package nfs
