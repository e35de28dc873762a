package config

import (
	"cmp"
	"path/filepath"
	"time"
)

// fileName is the settings' name inside the data directory.
const fileName = "gatesync.yaml"

// Config is one node's settings. The yaml tags are the keys that people type.
type Config struct {
	// DataDir is where everything of this node lives. It is found by flag or
	// environment, never in the file that lies in it.
	DataDir string `yaml:"-"`

	Name      string   `yaml:"name"`
	Listen    string   `yaml:"listen"`
	Advertise string   `yaml:"advertise"`
	HTTP      string   `yaml:"http"`
	Seeds     []string `yaml:"seeds"`
	Trees     []Tree   `yaml:"trees"`
	// Share is a directory on a mount that other members see too: content
	// travels over it while it is well. "": everything is pushed.
	Share string `yaml:"share"`
	// SSH is the command, with its options, by which this node reaches targets
	// over ssh. It is never taken from the log: no other node says what runs here.
	SSH string `yaml:"ssh"`
	// Limit is how much content this node sends in a second, to all others
	// together. 0: as much as goes.
	Limit Rate `yaml:"limit"`
	// WritePolicy says whether this node's gateways may edit its trees: any, never; Edits
	// what becomes of an edit where they may not: repair, report. A tree may say
	// otherwise.
	WritePolicy string `yaml:"write"`
	Edits       string `yaml:"edits"`

	Guard  Guard    `yaml:"guard"`
	Scan   Duration `yaml:"scan_interval"`
	Scrub  Duration `yaml:"scrub"` // one pass over the blob store; 0: never
	Voters int      `yaml:"voters"`
	// MembersMax is how many members take part in Raft: who joins then, through
	// this node, is a follower. 0: no limit.
	MembersMax  int      `yaml:"members_max"`
	ReapAfter   Duration `yaml:"reap_after"`
	History     History  `yaml:"history"`
	Ready       Ready    `yaml:"ready"`
	FreeReserve Size     `yaml:"free_reserve"`
	TLS         TLS      `yaml:"tls"`
	Log         Log      `yaml:"log"`
}

// Tree is a directory that is kept the same on every node.
type Tree struct {
	Name   string   `yaml:"name"`
	Path   string   `yaml:"path"`
	Preset string   `yaml:"preset"`
	Ignore []string `yaml:"ignore"`
	// Storage says whether other nodes have the very same directory, on a mount:
	// auto finds out, local and direct say so.
	Storage string `yaml:"storage"`
	// Write and Edits stand in front of the node's own; "": as those say.
	Write string `yaml:"write"`
	Edits string `yaml:"edits"`
	// Nudge wakes local watchers of a shared tree when another node has changed a file.
	Nudge bool `yaml:"nudge"`
	// ModeMask takes permission bits away from everything in the tree.
	ModeMask FileMode `yaml:"mode_mask"`
}

// Guard holds the brakes' settings.
type Guard struct {
	MaxDelete MaxDelete `yaml:"max_delete"`
}

// MaxDelete is the mass-deletion brake: more than Count entries and more than
// Percent of the tree are held.
type MaxDelete struct {
	Count   int `yaml:"count"`
	Percent int `yaml:"percent"`
}

// History says how long old revisions and their content are kept: until they
// are older than Keep or more than Revisions ago, whichever comes first.
type History struct {
	Keep      Duration `yaml:"keep"`
	Revisions uint64   `yaml:"revisions"`
}

// Ready says when /readyz answers yes.
type Ready struct {
	MaxLag Duration `yaml:"max_lag"`
}

// TLS names the files of an own PKI; empty: the cluster's own CA is used.
type TLS struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// Lifetime is for how long this node signs certificates with the cluster's
	// own CA: its own, joiners', and others' where they ask.
	Lifetime Duration `yaml:"lifetime"`
}

// Own tells whether the operator brought certificates of an own PKI.
func (t TLS) Own() bool { return t.CA != "" || t.Cert != "" || t.Key != "" }

// Log says how the daemon logs, always to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// Default returns the settings of a node about which nothing was said.
func Default() Config {
	return Config{
		Listen:      "0.0.0.0:7946",
		HTTP:        "127.0.0.1:7947",
		Guard:       Guard{MaxDelete: MaxDelete{Count: 20, Percent: 30}},
		Scan:        Duration(time.Minute),
		Scrub:       Duration(7 * 24 * time.Hour),
		Voters:      5,
		MembersMax:  7,
		ReapAfter:   Duration(10 * time.Minute),
		SSH:         "ssh",
		History:     History{Keep: Duration(30 * 24 * time.Hour), Revisions: 100_000},
		Ready:       Ready{MaxLag: Duration(30 * time.Second)},
		FreeReserve: 256 << 20,
		TLS:         TLS{Lifetime: Duration(365 * 24 * time.Hour)},
		Log:         Log{Level: "info", Format: "text"},
	}
}

// Direction is what becomes of edits in a tree: its own word, else the node's,
// else any and repair.
func (c Config) Direction(t Tree) (write, edits string) {
	return cmp.Or(t.Write, c.WritePolicy, "any"), cmp.Or(t.Edits, c.Edits, "repair")
}

// Path returns where the settings of a data directory are written.
func Path(dataDir string) string { return filepath.Join(dataDir, fileName) }

// Address is what other nodes are told to dial, before the port is known.
func (c Config) Address() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	return c.Listen
}
