// Package config holds a node's settings: their defaults, where they come
// from and what makes them valid.
//
// The order is: defaults, then gatesync.yaml in the data directory, then
// GATESYNC_* variables, then what flags set for one run. Keys that nobody
// knows are refused with the line they stand on and the nearest known key, so
// that a typo never silently means the default.
//
// Commands call Load and Write; everybody else is handed the values. A Config
// is plain data and not changed after Load.
package config
