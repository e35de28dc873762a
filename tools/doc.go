// Package tools holds what only developers of gatesync run: the house rules as
// a program (lint), the summary of a test run (testsum), and in go.mod the
// pinned versions of staticcheck, govulncheck and the protobuf plugins.
//
// It is a module of its own, so that none of it can reach the product.
package tools
