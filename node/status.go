package node

import "time"

// Status is what `status --json` prints: an interface to other programs.
// Fields are only ever added.
type Status struct {
	Node    NodeStatus `json:"node"`
	Cluster string     `json:"cluster"`
	// Incarnation counts the cluster's lives: recover and restore-cluster begin
	// the next one.
	Incarnation uint64 `json:"incarnation"`
	// DoubtedLife is what somebody says now, that the cluster was recovered
	// without this node, and why it is not believed.
	DoubtedLife string          `json:"doubted_life,omitempty"`
	Leader      string          `json:"leader"` // id; "" when none is known
	Quorum      bool            `json:"quorum"`
	Revision    uint64          `json:"revision"` // committed, as known here
	CaughtUp    bool            `json:"caught_up"`
	Members     []MemberStatus  `json:"members"`
	Trees       []TreeStatus    `json:"trees"`
	Blobs       BlobStatus      `json:"blobs"`
	Data        DataStatus      `json:"data"`
	Carriers    []CarrierStatus `json:"carriers"`
	HTTP        string          `json:"http,omitempty"`
	// Voters counts them; Tolerance is how many more of them may fail before
	// nothing can be committed, negative where that is so already.
	Voters      int          `json:"voters"`
	VotersAlive int          `json:"voters_alive"`
	Tolerance   int          `json:"tolerance"`
	Format      FormatStatus `json:"format"`
	CA          CAStatus     `json:"ca"`
	// Upstream is who feeds this follower, and Path the way down to it from a
	// member of Raft; Feeds is how many followers this node feeds.
	Upstream string   `json:"upstream,omitempty"`
	Path     []string `json:"path,omitempty"`
	Feeds    int      `json:"feeds,omitempty"`
	// Targets are the receivers that the cluster keeps current.
	Targets []TargetStatus `json:"targets"`
}

// NodeStatus is the node that answers.
type NodeStatus struct {
	ID                 string    `json:"id"`
	Name               string    `json:"name"`
	Role               string    `json:"role"` // voter, witness, nonvoter, follower, removed
	Raft               string    `json:"raft"` // leader, follower, candidate, shutdown
	Address            string    `json:"address"`
	Version            string    `json:"version"`
	Started            time.Time `json:"started"`
	CertificateBegins  time.Time `json:"certificate_begins"`
	CertificateExpires time.Time `json:"certificate_expires"`
	CertificateDays    int       `json:"certificate_days_left"`
	CertificateSoon    bool      `json:"certificate_ends_soon"` // it should have been renewed by now
}

// FormatStatus is about the format of the log.
type FormatStatus struct {
	Active uint32 `json:"active"` // what the cluster uses
	Newest uint32 `json:"newest"` // what this node understands
	// Waits names the members whose versions do not understand Newest yet.
	Waits []string `json:"waits,omitempty"`
}

// CAStatus is about the CA that signs the nodes' certificates.
type CAStatus struct {
	Fingerprint string    `json:"fingerprint"` // SHA-256; with an own PKI of the CA that this node's certificate leads to
	Expires     time.Time `json:"expires"`
	Own         bool      `json:"own_pki"`
	Replacing   *CAChange `json:"replacing,omitempty"`
}

// CAChange is how far the replacement of the CA has come.
type CAChange struct {
	From  string   `json:"from"` // fingerprints
	To    string   `json:"to"`
	Step  string   `json:"step"`            // trust: members take over the new CA; renew: they get certificates of it
	Waits []string `json:"waits,omitempty"` // members that are alive and not ready
	Dead  []string `json:"dead,omitempty"`  // members that are down and not ready
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
	Format   uint32     `json:"format,omitempty"` // newest format of the log that it understands
	LastSeen *time.Time `json:"last_seen,omitempty"`
	Error    string     `json:"error,omitempty"` // why it cannot be reached
	Proxy    string     `json:"proxy,omitempty"` // HTTP proxy through which the daemon reaches it
	Votes    bool       `json:"votes"`           // a voter or a witness
	// Chosen is the role that an operator gave it (promote, demote): voter or
	// nonvoter. Without one the cluster decides.
	Chosen string `json:"chosen,omitempty"`
	// Content is the revision up to which it holds all content, of every tree
	// and of the retained history; Missing is how many blobs it lacks.
	Content   uint64     `json:"content"`
	Missing   uint64     `json:"missing,omitempty"`
	Nowhere   []string   `json:"nowhere,omitempty"`    // what it lacks and nobody who answers has: the first of it, and what it stands for
	DeadSince *time.Time `json:"dead_since,omitempty"` // as far as the answering node knows
}

// TreeStatus is one tree on this node.
type TreeStatus struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Preset  string `json:"preset"`
	Storage string `json:"storage"` // local; direct: other nodes have the same directory; unknown while that is found out
	// Of a directory that other nodes have too: its id, who materializes there
	// (a name) and since which epoch.
	Mount        string `json:"mount,omitempty"`
	Steward      string `json:"steward,omitempty"`
	StewardEpoch uint64 `json:"steward_epoch,omitempty"`
	// StorageWhy says what is waited for, or wrong, while Storage is not known.
	StorageWhy string `json:"storage_why,omitempty"`
	Applied    uint64 `json:"applied"`
	RootDigest string `json:"root_digest"` // of what the disk is known to agree with
	Entries    int    `json:"entries"`     // files, directories and symlinks
	Files      int    `json:"files"`
	Bytes      int64  `json:"bytes"`
	Held       int    `json:"held"`
	Conflicts  int    `json:"conflicts"`
	Rejected   int    `json:"rejected"`
	Busy       int    `json:"busy"`
	Failing    int    `json:"failing"` // committed changes that cannot be brought to this disk (100: at least)
	Pending    int    `json:"pending"` // paths that are being worked on
	Unsent     int    `json:"unsent"`  // local edits that could not be committed so far
	UnsentWhy  string `json:"unsent_why,omitempty"`
	// Troubles are paths that do not go on, the first few of them, and why.
	Troubles []TroubleStatus `json:"troubles,omitempty"`
	// Write and Edits are the settings' words. Edited counts the edits that stand
	// where none are taken, EditedPaths are the first of them; Repaired counts those
	// that were put back since the start.
	Write       string          `json:"write"`           // any, never
	Edits       string          `json:"edits,omitempty"` // repair, report
	Edited      int             `json:"edited"`
	EditedPaths []TroubleStatus `json:"edited_paths,omitempty"`
	Repaired    uint64          `json:"repaired,omitempty"`
	Watched     int             `json:"watched"` // directories whose events are told
	// Overflows counts how often file events were lost since the start; each
	// time a scan found what they would have told.
	Overflows  uint64  `json:"overflows"`
	LagSeconds float64 `json:"lag_seconds"`
	Root       string  `json:"root,omitempty"` // why the root cannot be used
	// Notices are facts about how the tree is watched that cost speed, never
	// correctness: inotify limits, no leases.
	Notices []string `json:"notices,omitempty"`
}

// TroubleStatus is a path that does not go on.
type TroubleStatus struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// DataStatus is the disk of the data directory.
type DataStatus struct {
	Path    string `json:"path"`
	Free    int64  `json:"free_bytes"`
	Reserve int64  `json:"reserve_bytes"` // kept free: below it no content is taken
	Trouble string `json:"trouble,omitempty"`
	Silent  bool   `json:"silent"` // this node takes no part until the disk answers
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

// DeltaStatus counts the content that travelled as what differs from another
// version, and what travelled for it.
type DeltaStatus struct {
	SentBytes     uint64 `json:"sent_bytes"`
	SentWire      uint64 `json:"sent_wire_bytes"`
	ReceivedBytes uint64 `json:"received_bytes"`
	ReceivedWire  uint64 `json:"received_wire_bytes"`
	Useless       uint64 `json:"useless"` // blobs that had to come whole after all
}

// CarrierStatus counts what one carrier has moved since the daemon started.
type CarrierStatus struct {
	Name          string `json:"name"`
	SentBytes     uint64 `json:"sent_bytes"` // of content, here and below
	ReceivedBytes uint64 `json:"received_bytes"`
	// What travelled for it, and what of both were deltas.
	SentWire     uint64       `json:"sent_wire_bytes"`
	ReceivedWire uint64       `json:"received_wire_bytes"`
	Deltas       *DeltaStatus `json:"deltas,omitempty"`
	// Well: it carries. The others are of the share: Path is its directory, Why
	// says why it cannot be used, Since when this state began, Members who sees
	// the same directory, HeldBytes what this node has lying there, Doubts which
	// members could not read from it lately, and why.
	Well      bool              `json:"well"`
	Path      string            `json:"path,omitempty"`
	Why       string            `json:"why,omitempty"`
	Since     *time.Time        `json:"since,omitempty"`
	Members   []string          `json:"members,omitempty"`
	HeldBytes int64             `json:"held_bytes,omitempty"`
	Doubts    map[string]string `json:"doubts,omitempty"`
}

// TargetStatus is one receiver that the cluster keeps current, as its pusher
// last told.
type TargetStatus struct {
	Name     string   `json:"name"`
	Address  string   `json:"address"`
	Trees    []string `json:"trees,omitempty"` // none: all that both ends have
	Delete   string   `json:"delete"`
	Limit    int64    `json:"limit_bytes,omitempty"` // a second
	Pusher   string   `json:"pusher,omitempty"`      // the name of the member that pushes
	PusherID string   `json:"pusher_id,omitempty"`
	Epoch    uint64   `json:"epoch"` // of the pusher
	// State is waiting, pushing, current, partly, refused or unreachable; unknown
	// while the pusher does not answer.
	State    string     `json:"state"`
	Revision uint64     `json:"revision"` // that it surely has; 0: not known
	Held     uint64     `json:"held,omitempty"`
	Error    string     `json:"error,omitempty"` // of the last attempt, where it failed
	Since    *time.Time `json:"since,omitempty"` // when State began
}
