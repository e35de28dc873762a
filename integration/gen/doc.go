// Package gen makes gateway trees that look like real ones: APIs, sequences
// and endpoints as WSO2's Synapse reads them, nginx and Envoy configuration,
// and deployable zips (.car, .war).
//
// It is deterministic: the same Params give the same bytes on every machine,
// so that a test can compute what must stand everywhere without reading any
// tree. Files are handed out one at a time; only one is in memory. Nothing in
// it touches a disk but WriteTo.
//
// The tests and benchmarks of package integration use it, and `gatesync demo`.
package gen
