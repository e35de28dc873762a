package doctor

import (
	"fmt"
	"time"
)

// Facts are everything that the checks know. Their JSON is part of `doctor
// --json`.
type Facts struct {
	Now     time.Time `json:"now"`
	User    User      `json:"user"`
	Data    Data      `json:"data"`
	Limits  Limits    `json:"limits"`
	Cluster Cluster   `json:"cluster"`
	Trees   []Tree    `json:"trees"`
	Share   *Tree     `json:"share,omitempty"` // the directory that content travels over, looked at like a tree's
}

// Perm are permission bits.
type Perm uint32

// String writes them as chmod takes them.
func (p Perm) String() string { return fmt.Sprintf("%04o", uint32(p)) }

// MarshalText is for JSON.
func (p Perm) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// User is whom the doctor runs as; the daemon should be the same.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Data is the data directory.
type Data struct {
	Path       string   `json:"path"`
	Err        string   `json:"error,omitempty"` // why it could not be looked at
	Mode       Perm     `json:"mode"`
	UID        uint32   `json:"uid"`
	KeyMode    Perm     `json:"key_mode,omitempty"` // of the private key, 0: none there
	Mount      Mount    `json:"mount"`
	Free       int64    `json:"free_bytes"`
	FreeFiles  uint64   `json:"free_files"` // inodes; 0 with Files 0: the filesystem does not count
	Files      uint64   `json:"files"`
	Reserve    int64    `json:"reserve_bytes"`
	Damaged    []string `json:"damaged,omitempty"` // parts that cannot be read, and why
	DaemonPID  int      `json:"daemon_pid,omitempty"`
	DaemonHung bool     `json:"daemon_hung,omitempty"` // it has the lock and does not answer
	DaemonUID  uint32   `json:"daemon_uid"`            // where DaemonPID is not 0
}

// Limits are what the kernel gives; of the daemon's process where it runs.
type Limits struct {
	Watches   int64  `json:"inotify_max_user_watches"` // 0: unknown
	Instances int64  `json:"inotify_max_user_instances"`
	Queued    int64  `json:"inotify_max_queued_events"`
	OpenFiles int64  `json:"open_files"`
	OpenHard  int64  `json:"open_files_hard"`
	Of        string `json:"of"` // whose open files: "daemon" or "shell"
}

// Cluster is what this node knows of the others, and what came of asking them.
type Cluster struct {
	Err        string     `json:"error,omitempty"` // why nothing is known
	Running    bool       `json:"running"`         // this node's daemon answers
	Node       string     `json:"node"`
	Name       string     `json:"name"`
	Leader     string     `json:"leader,omitempty"`
	Quorum     bool       `json:"quorum"`
	CertBegins time.Time  `json:"certificate_begins"`
	CertEnds   time.Time  `json:"certificate_ends"`
	CAEnds     time.Time  `json:"ca_ends"`
	OwnPKI     bool       `json:"own_pki"`
	Voter      bool       `json:"voter"`   // this node
	Members    []Member   `json:"members"` // without this node
	LogTrees   []SeenTree `json:"log_trees,omitempty"`
	Share      *SeenShare `json:"seen_share,omitempty"`
}

// SeenShare is what the daemon says about the share.
type SeenShare struct {
	Well    bool     `json:"well"`
	Why     string   `json:"why,omitempty"`
	Members []string `json:"members,omitempty"` // who sees the same directory
}

// SeenTree is what the log or the daemon says about one tree of this node.
type SeenTree struct {
	Name    string `json:"name"`
	Storage string `json:"storage"`        // local, direct, as the daemon has found out; "": unknown
	Root    string `json:"root,omitempty"` // why the root cannot be used
	Why     string `json:"why,omitempty"`  // why Storage is not known yet
	Steward string `json:"steward,omitempty"`
}

// Member is another member.
type Member struct {
	Name     string        `json:"name"`
	Address  string        `json:"address"`
	Voter    bool          `json:"voter"`
	Proxy    string        `json:"proxy,omitempty"` // HTTP proxy on the way there, as doctor's own environment says
	Err      string        `json:"error,omitempty"` // why no connection came about; with the remedy
	Disowns  bool          `json:"disowns"`         // it says that this node is no member
	Took     time.Duration `json:"took_ns"`         // until both sides had accepted each other
	Clock    time.Duration `json:"clock_ahead_ns"`  // its clock minus ours
	ClockErr time.Duration `json:"clock_error_ns"`  // the difference is known up to this
	HasClock bool          `json:"clock_known"`
	CertEnds time.Time     `json:"certificate_ends"`
	Sights   []Sight       `json:"sights,omitempty"`
}

// Sight is whether a member sees, through its own tree, what this node has
// just put beside its tree.
type Sight struct {
	Tree string `json:"tree"`
	Has  bool   `json:"has"`  // it has such a tree
	Sees bool   `json:"sees"` // the same directory
	Err  string `json:"error,omitempty"`
}

// Mount is a mounted filesystem.
type Mount struct {
	Point   string            `json:"point"`
	Type    string            `json:"type"` // ext4, nfs4, …
	Source  string            `json:"source"`
	Options map[string]string `json:"options"`
	Stats   *MountStats       `json:"stats,omitempty"` // of NFS
}

// MountStats are an NFS mount's own counters, since it was mounted.
type MountStats struct {
	Age         time.Duration `json:"age_ns"`
	Calls       uint64        `json:"calls"`
	Resent      uint64        `json:"resent"`
	Timeouts    uint64        `json:"timeouts"` // major ones
	Connections uint64        `json:"connections"`
	Wait        time.Duration `json:"mean_wait_ns"` // of a call, mean
}

// Network tells whether others may change the filesystem, or take it away.
func (m Mount) Network() bool {
	switch m.Type {
	case "nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "glusterfs", "lustre", "gfs2", "ocfs2", "9p", "afs", "fuse.s3fs", "virtiofs", "gpfs":
		return true
	}
	return false
}

// NFS tells whether it is one.
func (m Mount) NFS() bool { return m.Type == "nfs" || m.Type == "nfs4" }

// Tree is the directory of a tree.
type Tree struct {
	Name     string   `json:"name"`
	Path     string   `json:"path"`
	Storage  string   `json:"storage,omitempty"` // as the settings say
	Hung     string   `json:"hung,omitempty"`    // the step that did not answer in time
	Err      string   `json:"error,omitempty"`   // why it could not be looked at
	Real     string   `json:"real,omitempty"`    // Path without symlinks
	Mode     Perm     `json:"mode"`
	UID      uint32   `json:"uid"`
	GID      uint32   `json:"gid"`
	Mount    Mount    `json:"mount"`
	Inner    []Mount  `json:"inner_mounts,omitempty"` // mounted below it
	Within   []string `json:"within,omitempty"`       // other trees and the data directory, nested with it
	Dirs     int      `json:"dirs"`
	DirsPart bool     `json:"dirs_partly"` // counted until the time was over
	Marker   Marker   `json:"marker"`
	Beside   bool     `json:"staging_beside"` // staging can lie beside the root
	Trial    *Trial   `json:"trial,omitempty"`
}

// Marker is the root's marker compared with what this node expects.
type Marker struct {
	There bool   `json:"there"`
	Ours  bool   `json:"ours"`
	Why   string `json:"why,omitempty"` // not ours, or not readable
}

// Step is one operation that was tried.
type Step struct {
	Op   string        `json:"op"`
	Err  string        `json:"error,omitempty"`
	Took time.Duration `json:"took_ns"`
}

// Trial is what came of trying things out under .gatesync in a tree.
type Trial struct {
	Steps    []Step        `json:"steps"`
	Owner    uint32        `json:"owner"` // of a file that was made
	Exchange bool          `json:"exchange"`
	Leases   bool          `json:"leases"`
	Locks    bool          `json:"locks"`
	Chown    bool          `json:"chown"`          // tried as root only
	Clock    time.Duration `json:"clock_ahead_ns"` // the filesystem's clock minus ours, as mtimes show it
	ClockErr time.Duration `json:"clock_error_ns"`
	HasClock bool          `json:"clock_known"`
	Left     string        `json:"left,omitempty"` // what could not be removed
}

// Failed returns the step that failed, if one did.
func (t Trial) Failed(ops ...string) (Step, bool) {
	for _, s := range t.Steps {
		for _, op := range ops {
			if s.Op == op && s.Err != "" {
				return s, true
			}
		}
	}
	return Step{}, false
}
