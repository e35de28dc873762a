// Package web answers load balancers and Prometheus: /healthz (the process
// runs), /readyz (this node's trees are current enough to serve from) and
// /metrics.
//
// It knows nothing of how a node works: it asks a Source for State at each
// request, so no figure is ever stale and nothing has to be kept in step.
// Package node implements Source and runs the Server, on loopback by default.
// Everything is safe for concurrent use.
package web
