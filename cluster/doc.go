// Package cluster says who we are: node identities, members, roles and the
// errors of membership that several layers speak of. Values only.
package cluster
