package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// ValueError is a key whose value cannot be used.
type ValueError struct {
	Key    string
	Value  string
	Reason string // what is wrong, and what would be right
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s: %q %s", e.Key, e.Value, e.Reason)
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Validate tells everything that is wrong, not just the first.
func (c Config) Validate() error {
	var f faults
	c.checkAddresses(&f)
	for i := range c.Trees {
		c.checkTree(&f, i)
	}
	c.checkDirection(&f)
	c.checkShare(&f)
	c.checkCluster(&f)
	c.checkDuties(&f)
	c.checkTLS(&f)
	f.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	f.oneOf("log.format", c.Log.Format, "text", "json")
	return errors.Join(f...)
}

// faults are *ValueErrors.
type faults []error

func (f *faults) bad(key, value, reason string) {
	*f = append(*f, &ValueError{Key: key, Value: value, Reason: reason})
}

func (f *faults) oneOf(key, value string, words ...string) {
	if !slices.Contains(words, value) {
		f.bad(key, value, "is not one of "+strings.Join(words, ", "))
	}
}

func (f *faults) address(key, value string) {
	if why := badAddress(value); why != "" {
		f.bad(key, value, why)
	}
}

// checkAddresses: who this node is, and who reaches whom where.
func (c Config) checkAddresses(f *faults) {
	if !namePattern.MatchString(c.Name) {
		f.bad("name", c.Name, "is no node name: letters, digits, '.', '_' and '-', at most 63")
	}
	f.address("listen", c.Listen)
	if c.Advertise != "" {
		f.address("advertise", c.Advertise)
		if badAddress(c.Advertise) == "" && unspecified(c.Advertise) {
			f.bad("advertise", c.Advertise, "cannot be dialled by other nodes: name an address or a host name of this machine")
		}
	}
	if c.HTTP != "" {
		f.address("http", c.HTTP)
	}
	for _, s := range c.Seeds {
		f.address("seeds", s)
	}
	if strings.TrimSpace(c.SSH) == "" {
		f.bad("ssh", c.SSH, "is no command: write it like \"ssh -F /etc/gatesync/ssh_config\"")
	}
	if c.Limit > 0 && c.Limit < 100<<10 {
		f.bad("limit", c.Limit.String(), "is less than 100KB/s: who waits for content would take this node for dead")
	}
}

// checkTree looks at the i-th tree, beside those before it.
func (c Config) checkTree(f *faults, i int) {
	t := c.Trees[i]
	key := fmt.Sprintf("trees[%d].", i)
	if !namePattern.MatchString(t.Name) {
		f.bad(key+"name", t.Name, "is no tree name: letters, digits, '.', '_' and '-', at most 63")
	}
	if t.Storage != "" {
		f.oneOf(key+"storage", t.Storage, "auto", "local", "direct")
	}
	if t.Preset != "" {
		f.oneOf(key+"preset", t.Preset, manifest.Presets()...)
	}
	for _, glob := range t.Ignore {
		if _, err := manifest.NewIgnore("", []string{glob}); err != nil {
			f.bad(key+"ignore", glob, "is no well-formed glob")
		}
	}
	switch {
	case t.Path == "":
		f.bad(key+"path", t.Path, "is empty: name the directory to keep in sync")
	case filepath.Clean(t.Path) == "/":
		f.bad(key+"path", t.Path, "is the whole file system")
	case c.DataDir != "" && Nested(t.Path, c.DataDir):
		f.bad(key+"path", t.Path, "and the data directory "+c.DataDir+" lie in one another: keep them apart")
	}
	for _, o := range c.Trees[:i] {
		if o.Name == t.Name {
			f.bad(key+"name", t.Name, "is used twice")
		}
		if o.Path != "" && t.Path != "" && Nested(o.Path, t.Path) {
			f.bad(key+"path", t.Path, "and tree "+o.Name+" ("+o.Path+") lie in one another")
		}
	}
}

// checkDirection refuses words that nobody knows, and a promise that nobody can
// keep: in a directory that other nodes have too those propose what is edited.
func (c Config) checkDirection(f *faults) {
	known := func(key, write, edits string) {
		if write != "" {
			f.oneOf(key+"write", write, "any", "never")
		}
		if edits != "" {
			f.oneOf(key+"edits", edits, "repair", "report")
		}
	}
	known("", c.WritePolicy, c.Edits)
	for i, t := range c.Trees {
		key := fmt.Sprintf("trees[%d].", i)
		known(key, t.Write, t.Edits)
		if write, _ := c.Direction(t); write == "never" && t.Storage == "direct" {
			f.bad(key+"write", write, "cannot be kept with storage: direct: other nodes have the same directory and propose what is edited in it")
		}
	}
}

// checkShare keeps the share apart from everything that is kept: in a tree
// it would be replicated.
func (c Config) checkShare(f *faults) {
	if c.Share == "" {
		return
	}
	if filepath.Clean(c.Share) == "/" {
		f.bad("share", c.Share, "is the whole file system")
		return
	}
	if c.DataDir != "" && Nested(c.Share, c.DataDir) {
		f.bad("share", c.Share, "and the data directory "+c.DataDir+" lie in one another: keep them apart")
	}
	for _, t := range c.Trees {
		if t.Path != "" && Nested(c.Share, t.Path) {
			f.bad("share", c.Share, "and tree "+t.Name+" ("+t.Path+") lie in one another: name a directory of its own on the mount")
		}
	}
}

// checkCluster: what all members should agree about.
func (c Config) checkCluster(f *faults) {
	if c.MembersMax < 0 || c.MembersMax > 0 && c.MembersMax < c.Voters {
		f.bad("members_max", strconv.Itoa(c.MembersMax), "is neither 0 (no limit) nor at least as many as voters")
	}
	if c.Voters < 1 || c.Voters > 7 || c.Voters%2 == 0 {
		f.bad("voters", strconv.Itoa(c.Voters), "is not one of 1, 3, 5, 7")
	}
	if r := c.ReapAfter.Std(); r != 0 && r < 5*time.Second {
		f.bad("reap_after", c.ReapAfter.String(), "is not 0 (never) and less than five seconds: an answer may be late for that long")
	}
	if c.History.Keep < 0 {
		f.bad("history.keep", c.History.Keep.String(), "is negative")
	}
	if c.History.Revisions < 1 {
		f.bad("history.revisions", "0", "must be at least 1")
	}
}

// checkDuties: what this node does by itself, and when it stops.
func (c Config) checkDuties(f *faults) {
	if n := c.Guard.MaxDelete.Count; n < 0 {
		f.bad("guard.max_delete.count", strconv.Itoa(n), "is negative")
	}
	if p := c.Guard.MaxDelete.Percent; p < 0 || p > 100 {
		f.bad("guard.max_delete.percent", strconv.Itoa(p), "is not between 0 and 100")
	}
	if c.Scan.Std() < time.Second {
		f.bad("scan_interval", c.Scan.String(), "is less than a second: the watcher reports at once, scans are only its safety net")
	}
	if c.Scrub != 0 && c.Scrub.Std() < time.Minute {
		f.bad("scrub", c.Scrub.String(), "is less than a minute: it is how long one quiet pass over all content may take; 0 switches it off")
	}
	if c.Ready.MaxLag <= 0 {
		f.bad("ready.max_lag", c.Ready.MaxLag.String(), "must be more than zero")
	}
}

func (c Config) checkTLS(f *faults) {
	if c.TLS.Own() && (c.TLS.CA == "" || c.TLS.Cert == "" || c.TLS.Key == "") {
		f.bad("tls", "", "needs all three of ca, cert and key when certificates of an own PKI are used")
	}
	if c.TLS.Lifetime.Std() < 5*time.Second {
		f.bad("tls.lifetime", c.TLS.Lifetime.String(), "is less than five seconds: certificates are renewed after a third to two thirds of it; a year is usual")
	}
}

// Nested tells whether one of two directories is, or lies in, the other.
func Nested(a, b string) bool {
	a, b = filepath.Clean(a)+"/", filepath.Clean(b)+"/"
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

func badAddress(s string) string {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "is no HOST:PORT"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "has no port between 0 and 65535"
	}
	return ""
}

// unspecified tells whether an address means "every interface".
func unspecified(hostport string) bool {
	host, _, _ := net.SplitHostPort(hostport)
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
