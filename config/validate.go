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

// Validate tells everything that is wrong, not just the first. Presets and
// ignore globs are left to whoever compiles them.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, value, reason string) {
		errs = append(errs, &ValueError{Key: key, Value: value, Reason: reason})
	}
	if !namePattern.MatchString(c.Name) {
		bad("name", c.Name, "is no node name: letters, digits, '.', '_' and '-', at most 63")
	}
	if why := badAddress(c.Listen); why != "" {
		bad("listen", c.Listen, why)
	}
	if c.Advertise != "" {
		if why := badAddress(c.Advertise); why != "" {
			bad("advertise", c.Advertise, why)
		} else if unspecified(c.Advertise) {
			bad("advertise", c.Advertise, "cannot be dialled by other nodes: name an address or a host name of this machine")
		}
	}
	if c.HTTP != "" {
		if why := badAddress(c.HTTP); why != "" {
			bad("http", c.HTTP, why)
		}
	}
	for _, s := range c.Seeds {
		if why := badAddress(s); why != "" {
			bad("seeds", s, why)
		}
	}
	if strings.TrimSpace(c.SSH) == "" {
		bad("ssh", c.SSH, "is no command: write it like \"ssh -F /etc/gatesync/ssh_config\"")
	}
	errs = append(errs, validateTrees(c.Trees, c.DataDir)...)
	errs = append(errs, c.validateDirection()...)
	errs = append(errs, c.validateShare()...)
	if c.Limit > 0 && c.Limit < 100<<10 {
		bad("limit", c.Limit.String(), "is less than 100KB/s: who waits for content would take this node for dead")
	}
	if c.Guard.MaxDelete.Count < 0 {
		bad("guard.max_delete.count", strconv.Itoa(c.Guard.MaxDelete.Count), "is negative")
	}
	if p := c.Guard.MaxDelete.Percent; p < 0 || p > 100 {
		bad("guard.max_delete.percent", strconv.Itoa(p), "is not between 0 and 100")
	}
	if c.Scan.Std().Seconds() < 1 {
		bad("scan_interval", c.Scan.String(), "is less than a second: the watcher reports at once, scans are only its safety net")
	}
	if c.Scrub != 0 && c.Scrub.Std().Minutes() < 1 {
		bad("scrub", c.Scrub.String(), "is less than a minute: it is how long one quiet pass over all content may take; 0 switches it off")
	}
	if c.MembersMax < 0 || c.MembersMax > 0 && c.MembersMax < c.Voters {
		bad("members_max", strconv.Itoa(c.MembersMax), "is neither 0 (no limit) nor at least as many as voters")
	}
	if c.Voters < 1 || c.Voters > 7 || c.Voters%2 == 0 {
		bad("voters", strconv.Itoa(c.Voters), "is not one of 1, 3, 5, 7")
	}
	if r := c.ReapAfter.Std(); r != 0 && r < 5*time.Second {
		bad("reap_after", c.ReapAfter.String(), "is not 0 (never) and less than five seconds: an answer may be late for that long")
	}
	if c.History.Keep < 0 {
		bad("history.keep", c.History.Keep.String(), "is negative")
	}
	if c.History.Revisions < 1 {
		bad("history.revisions", "0", "must be at least 1")
	}
	if c.Ready.MaxLag <= 0 {
		bad("ready.max_lag", c.Ready.MaxLag.String(), "must be more than zero")
	}
	if c.TLS.Own() && (c.TLS.CA == "" || c.TLS.Cert == "" || c.TLS.Key == "") {
		bad("tls", "", "needs all three of ca, cert and key when certificates of an own PKI are used")
	}
	if c.TLS.Lifetime.Std() < 5*time.Second {
		bad("tls.lifetime", c.TLS.Lifetime.String(), "is less than five seconds: certificates are renewed after a third to two thirds of it; a year is usual")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		bad("log.level", c.Log.Level, "is not one of debug, info, warn, error")
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		bad("log.format", c.Log.Format, "is not one of text, json")
	}
	return errors.Join(errs...)
}

func validateTrees(trees []Tree, dataDir string) []error {
	var errs []error
	for i, t := range trees {
		key := fmt.Sprintf("trees[%d]", i)
		bad := func(sub, value, reason string) {
			errs = append(errs, &ValueError{Key: key + "." + sub, Value: value, Reason: reason})
		}
		if !namePattern.MatchString(t.Name) {
			bad("name", t.Name, "is no tree name: letters, digits, '.', '_' and '-', at most 63")
		}
		if t.Storage != "" && !slices.Contains([]string{"auto", "local", "direct"}, t.Storage) {
			bad("storage", t.Storage, "is not one of auto, local, direct")
		}
		switch {
		case t.Path == "":
			bad("path", t.Path, "is empty: name the directory to keep in sync")
		case filepath.Clean(t.Path) == "/":
			bad("path", t.Path, "is the whole file system")
		case dataDir != "" && Nested(t.Path, dataDir):
			bad("path", t.Path, "and the data directory "+dataDir+" lie in one another: keep them apart")
		}
		for _, o := range trees[:i] {
			if o.Name == t.Name {
				bad("name", t.Name, "is used twice")
			}
			if o.Path != "" && t.Path != "" && Nested(o.Path, t.Path) {
				bad("path", t.Path, "and tree "+o.Name+" ("+o.Path+") lie in one another")
			}
		}
	}
	return errs
}

// validateDirection refuses words that nobody knows, and a promise that nobody can
// keep: in a directory that other nodes have too those propose what is edited.
func (c Config) validateDirection() (errs []error) {
	check := func(key, value string, words ...string) {
		if value != "" && !slices.Contains(words, value) {
			errs = append(errs, &ValueError{Key: key, Value: value, Reason: "is not one of " + strings.Join(words, ", ")})
		}
	}
	check("write", c.WritePolicy, "any", "never")
	check("edits", c.Edits, "repair", "report")
	for i, t := range c.Trees {
		key := fmt.Sprintf("trees[%d].", i)
		check(key+"write", t.Write, "any", "never")
		check(key+"edits", t.Edits, "repair", "report")
		if write, _ := c.Direction(t); write == "never" && t.Storage == "direct" {
			errs = append(errs, &ValueError{Key: key + "write", Value: write, Reason: "cannot be kept with storage: direct: other nodes have the same directory and propose what is edited in it"})
		}
	}
	return errs
}

// validateShare keeps the share apart from everything that is kept: in a tree
// it would be replicated.
func (c Config) validateShare() (errs []error) {
	if c.Share == "" {
		return nil
	}
	bad := func(reason string) { errs = append(errs, &ValueError{Key: "share", Value: c.Share, Reason: reason}) }
	if filepath.Clean(c.Share) == "/" {
		bad("is the whole file system")
		return errs
	}
	if c.DataDir != "" && Nested(c.Share, c.DataDir) {
		bad("and the data directory " + c.DataDir + " lie in one another: keep them apart")
	}
	for _, t := range c.Trees {
		if t.Path != "" && Nested(c.Share, t.Path) {
			bad("and tree " + t.Name + " (" + t.Path + ") lie in one another: name a directory of its own on the mount")
		}
	}
	return errs
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
