// Package tunnel is an HTTP proxy for tests: one that knows CONNECT alone, as
// that of a company whose hosts reach one another through nothing else. The
// tests of transport and those with real processes both stand behind it.
package tunnel
