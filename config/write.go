package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"text/template"

	"go.yaml.in/yaml/v3"
)

// fileText is what init and join write: what was said, and every other key as
// a comment with its default.
const fileText = `# Settings of one gatesync node. Restart the daemon after a change.
# Flags override these keys for one run; GATESYNC_* variables (for example
# GATESYNC_LOG_LEVEL=debug) stand in between.

# How people call this node.
name: {{q .Name}}

# The one port for everything between nodes.
listen: {{q .Listen}}
# What other nodes dial, where that is not the address above (NAT, containers).
{{if .Advertise}}advertise: {{q .Advertise}}{{else}}# advertise: gw1.example.com:7946{{end}}
# Any members' addresses: used when every remembered address has changed.
{{if .Seeds}}seeds:{{range .Seeds}}
  - {{q .}}{{end}}{{else}}# seeds: [10.0.0.2:7946]{{end}}

# /healthz, /readyz and /metrics; "" switches them off.
http: {{q .HTTP}}

# The directories that are kept the same on every node.
{{if .Trees}}trees:{{range .Trees}}
  - name: {{q .Name}}
    path: {{q .Path}}
    preset: {{if .Preset}}{{q .Preset}}{{else}}plain{{end}}   # what is ignored: plain, wso2{{if .Ignore}}
    ignore:{{range .Ignore}}
      - {{q .}}{{end}}{{else}}
    # ignore: ["*.tmp", "logs/"]{{end}}
    {{if .Storage}}storage: {{.Storage}}{{else}}# storage: auto{{end}}   # auto, local, direct: whether other nodes have the very same directory, on a mount
    {{if .Write}}write: {{.Write}}{{else}}# write: any{{end}}   # any, never: this tree only (see below)
    {{if .Edits}}edits: {{.Edits}}{{else}}# edits: repair{{end}}
    {{if .Nudge}}nudge: true{{else}}# nudge: true{{end}}   # wake local file watchers when another node has changed a file there
    # mode_mask: 0002   # permission bits to take away{{end}}{{else}}trees: []   # none: this node is a witness{{end}}

# A directory on a mount (NFS) that other members name too: content travels over
# it while it is well, and is pushed otherwise. It keeps nothing.
{{if .Share}}share: {{q .Share}}{{else}}# share: /mnt/nfs/exchange{{end}}

# The command, with its options, by which this node reaches targets over ssh.
# ssh: {{.SSH}}

# How much content this node sends in a second, to all others together; small
# files go first. gatesync push keeps to it too.
{{if .Limit}}limit: {{.Limit}}{{else}}# limit: 10MB/s{{end}}

# Whether gateways beside this node may edit its trees: any, or never. Where they
# may not an edit is never proposed: it is repaired (what is committed is put back
# at once, and the edit is kept aside), or only reported (it stands, and gives way
# when the path's next revision comes).
{{if .WritePolicy}}write: {{.WritePolicy}}{{else}}# write: any{{end}}
{{if .Edits}}edits: {{.Edits}}{{else}}# edits: repair{{end}}

# Deletions beyond this are held until somebody approves them: more than so
# many entries and more than so many percent of the tree, within a minute.
guard:
  max_delete:
    count: {{.Guard.MaxDelete.Count}}
    percent: {{.Guard.MaxDelete.Percent}}

# Full scans are the watcher's safety net.
# scan_interval: {{.Scan}}

# All content in the data directory is read again within so long, to find what
# the disk has lost before somebody needs it; 0 switches it off.
# scrub: {{.Scrub}}

# How many nodes vote in Raft: 1, 3, 5 or 7. Further nodes follow.
# voters: {{.Voters}}
# Members of Raft: who joins then through this node is a follower, which is fed
# the log by another node. 0: no limit.
# members_max: {{.MembersMax}}
# A voter that has been silent for this long gives its vote to a node that can
# replace it; 0: never. It stays a member. The leader's settings count.
# reap_after: {{.ReapAfter}}

# Old revisions and their content are kept this long.
# history:
#   keep: {{.History.Keep}}
#   revisions: {{.History.Revisions}}

# /readyz fails when a tree is further behind than this.
# ready:
#   max_lag: {{.Ready.MaxLag}}

# Space that gatesync leaves free on the disks of the data directory and of the trees.
# free_reserve: {{.FreeReserve}}

# Certificates of your own PKI instead of the cluster's own CA.
{{if .TLS.Own}}tls:
  ca: {{q .TLS.CA}}
  cert: {{q .TLS.Cert}}
  key: {{q .TLS.Key}}{{else}}# tls: {ca: ca.pem, cert: node.pem, key: node.key}{{end}}
# Those of the cluster's own CA renew themselves; this long does one live:
# tls: {lifetime: {{.TLS.Lifetime}}}

# log:
#   level: {{.Log.Level}}    # debug, info, warn, error
#   format: {{.Log.Format}}  # text, json
`

// Text renders the file that Write writes.
func (c Config) Text() ([]byte, error) {
	t, err := template.New(fileName).Funcs(template.FuncMap{"q": quote}).Parse(fileText)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, c)
	return b.Bytes(), err
}

// quote writes a string as YAML reads it back, plain where that is possible.
func quote(s string) string {
	b, err := yaml.Marshal(s)
	if err != nil || bytes.Count(b, []byte("\n")) != 1 {
		return strconv.Quote(s)
	}
	return string(bytes.TrimRight(b, "\n"))
}

// Write makes the settings file of a new node. An existing one, which a person
// may have prepared, is never overwritten.
func (c Config) Write() error {
	text, err := c.Text()
	if err != nil {
		return fmt.Errorf("render the settings: %w", err)
	}
	f, err := os.OpenFile(Path(c.DataDir), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
