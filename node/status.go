package node

import "time"

// Status is what `status --json` prints: an interface to other programs.
// Fields are only ever added.
type Status struct {
	Node     NodeStatus      `json:"node"`
	Cluster  string          `json:"cluster"`
	Leader   string          `json:"leader"` // id; "" when none is known
	Quorum   bool            `json:"quorum"`
	Revision uint64          `json:"revision"` // committed, as known here
	CaughtUp bool            `json:"caught_up"`
	Members  []MemberStatus  `json:"members"`
	Trees    []TreeStatus    `json:"trees"`
	Blobs    BlobStatus      `json:"blobs"`
	Carriers []CarrierStatus `json:"carriers"`
	HTTP     string          `json:"http,omitempty"`
}

// NodeStatus is the node that answers.
type NodeStatus struct {
	ID                 string    `json:"id"`
	Name               string    `json:"name"`
	Role               string    `json:"role"` // voter, nonvoter, removed
	Raft               string    `json:"raft"` // leader, follower, candidate, shutdown
	Address            string    `json:"address"`
	Version            string    `json:"version"`
	Started            time.Time `json:"started"`
	CertificateExpires time.Time `json:"certificate_expires"`
}

// MemberStatus is one member as this node sees it.
type MemberStatus struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Role     string     `json:"role"`
	Address  string     `json:"address"`
	Alive    bool       `json:"alive"`
	Applied  uint64     `json:"applied"` // by all its trees, as it last said
	Version  string     `json:"version,omitempty"`
	LastSeen *time.Time `json:"last_seen,omitempty"`
	Error    string     `json:"error,omitempty"` // why it cannot be reached
}

// TreeStatus is one tree on this node.
type TreeStatus struct {
	Name       string  `json:"name"`
	Path       string  `json:"path"`
	Preset     string  `json:"preset"`
	Storage    string  `json:"storage"` // local
	Applied    uint64  `json:"applied"`
	RootDigest string  `json:"root_digest"` // of what the disk is known to agree with
	Entries    int     `json:"entries"`     // files, directories and symlinks
	Files      int     `json:"files"`
	Bytes      int64   `json:"bytes"`
	Held       int     `json:"held"`
	Conflicts  int     `json:"conflicts"`
	Rejected   int     `json:"rejected"`
	Busy       int     `json:"busy"`
	Pending    int     `json:"pending"` // paths that are being worked on
	LagSeconds float64 `json:"lag_seconds"`
	Root       string  `json:"root,omitempty"` // why the root cannot be used
	// Notices are facts about how the tree is watched that cost speed, never
	// correctness: inotify limits, no leases.
	Notices []string `json:"notices,omitempty"`
}

// BlobStatus is the blob store.
type BlobStatus struct {
	Count     int   `json:"count"`
	Bytes     int64 `json:"bytes"`
	DiskBytes int64 `json:"disk_bytes"`
	// Corrupt counts the blobs that were found damaged since the daemon started,
	// Mended those that were missing after damage and were brought back.
	Corrupt uint64 `json:"corrupt"`
	Mended  uint64 `json:"mended"`
	// Lost is content that was damaged here and that nobody else has.
	Lost []LostBlob `json:"lost,omitempty"`
}

// LostBlob is content that cannot be had again, and what it stands for.
type LostBlob struct {
	Digest string   `json:"digest"`
	Size   int64    `json:"size"`
	Where  []string `json:"where"`
}

// CarrierStatus counts what one carrier has moved since the daemon started.
type CarrierStatus struct {
	Name          string `json:"name"`
	SentBytes     uint64 `json:"sent_bytes"`
	ReceivedBytes uint64 `json:"received_bytes"`
}
