// Package integration runs gatesync as its users do: the real binary, as real
// processes, over real sockets and files, really killed.
//
// Each scenario stands in a file of its own and is named by the promise it
// holds (TestPromise_NoTornFile_SlowBigFile). None of them believes a word
// that gatesync says about a tree: they read every byte themselves and compare
// with what was written (tree_test.go). `gatesync status` and `wait` only save
// time.
//
// main_test.go builds the binary once; cluster_test.go and node_test.go boot
// nodes and stop every process that they started. GATESYNC_LONG=1 gives the
// scenarios their full lengths, GATESYNC_BIN names a binary to use instead,
// GATESYNC_KEEP=1 leaves the directories of failed tests behind.
//
// Real faults need root and the Debian packages that .ci/run names; what is
// missing skips by name. host_test.go gives nodes hosts of their own (network
// namespaces) and partitions them, mount_test.go small disks that can be
// filled, frozen and made read-only, clock_test.go a clock that can be stepped.
// load_test.go writes and reads on every node meanwhile and knows what has to
// come of it. soak_test.go does all of it at random: `make soak-procs`;
// GATESYNC_SEED plays one again.
//
// The benchmarks (`make bench`) print the figures of README beside those of
// the peers that this machine has.
package integration
