// Package standing tells what stands in a tree, and how two trees differ, in
// words for people. The tests with real processes and those on real NFS read
// trees in ways of their own and compare them here.
package standing
