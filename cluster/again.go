package cluster

// JoinAgain is the remedy for a node that cannot go on as itself and whose data
// directory is its own: every error that ends in it says the same.
const JoinAgain = "`gatesync join HOST:PORT --token T --again` on its data directory makes it a new member that keeps trees and content"

// ReplaceSelf is JoinAgain where the cluster still counts on the former self.
const ReplaceSelf = "`gatesync remove` this node on another member, then " + JoinAgain
