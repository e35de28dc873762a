package doctor

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// well is a node of which there is nothing to say.
func well() Facts {
	member := func(name string) Member {
		return Member{Name: name, Address: name + ":7946", Voter: true, Took: 5 * time.Millisecond, HasClock: true, CertEnds: now.AddDate(1, 0, 0),
			Sights: []Sight{{Tree: "server", Has: true}}}
	}
	return Facts{
		Now:  now,
		User: User{UID: 1000, GID: 1000},
		Data: Data{Path: "/var/lib/gatesync", Mode: 0o700, UID: 1000, KeyMode: 0o600, Free: 100 << 30, Files: 1e6, FreeFiles: 9e5, Reserve: 256 << 20,
			Mount: Mount{Point: "/", Type: "ext4", Options: map[string]string{"rw": ""}}, DaemonPID: 7, DaemonUID: 1000},
		Limits: Limits{Watches: 524288, Instances: 128, Queued: 16384, OpenFiles: 65536, OpenHard: 65536, Of: "daemon"},
		Cluster: Cluster{Running: true, Node: "n-1", Name: "gw1", Leader: "n-2", Quorum: true, Voter: true,
			CertBegins: now.AddDate(0, -1, 0), CertEnds: now.AddDate(1, 0, 0), CAEnds: now.AddDate(9, 0, 0),
			Members: []Member{member("gw2"), member("gw3")}, LogTrees: []SeenTree{{Name: "server", Storage: "local"}}},
		Trees: []Tree{{Name: "server", Path: "/opt/gw", Real: "/opt/gw", Mode: 0o755, UID: 1000, Mount: Mount{Point: "/", Type: "ext4", Options: map[string]string{"rw": ""}},
			Dirs: 100, Marker: Marker{There: true, Ours: true}, Beside: true,
			Trial: &Trial{Steps: []Step{{Op: "create"}}, Owner: 1000, Exchange: true, Leases: true, Locks: true, HasClock: true}}},
	}
}

// onNFS is well, with its tree on a mount with these options.
func onNFS(options string) func(*Facts) {
	return func(f *Facts) {
		f.Trees[0].Mount = nfs(options)
		f.Trees[0].Trial.Exchange, f.Trees[0].Trial.Leases = false, false
	}
}

func nfs(options string) Mount {
	m := Mount{Point: "/mnt", Type: "nfs4", Source: "filer:/gw", Options: map[string]string{}}
	for _, o := range strings.Split("rw,vers=4.2,proto=tcp,hard,timeo=600,retrans=2,wsize=1048576,acdirmax=3,acregmax=3,"+options, ",") {
		k, v, _ := strings.Cut(o, "=")
		m.Options[k] = v
	}
	return m
}

func tree(change func(*Tree)) func(*Facts)     { return func(f *Facts) { change(&f.Trees[0]) } }
func trial(change func(*Trial)) func(*Facts)   { return func(f *Facts) { change(f.Trees[0].Trial) } }
func data(change func(*Data)) func(*Facts)     { return func(f *Facts) { change(&f.Data) } }
func group(change func(*Cluster)) func(*Facts) { return func(f *Facts) { change(&f.Cluster) } }
func peer(change func(*Member)) func(*Facts)   { return func(f *Facts) { change(&f.Cluster.Members[0]) } }
func both(a, b func(*Facts)) func(*Facts)      { return func(f *Facts) { a(f); b(f) } }

// Each fact that is not as it should be gives one finding (notes aside), in its
// check, with a remedy; and a node that is well gives none.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*Facts)
		check    string
		severity Severity
		says     string // in what, or in the remedy
	}{
		{"well", func(*Facts) {}, "", "", ""},
		{"data: gone", data(func(d *Data) { d.Err = "no such file" }), "data directory", Problem, "no such file"},
		{"data: open to all", data(func(d *Data) { d.Mode = 0o755 }), "data directory", Problem, "chmod 700 /var/lib/gatesync"},
		{"data: readable key", data(func(d *Data) { d.KeyMode = 0o640 }), "data directory", Problem, "private key (mode 0640)"},
		{"data: another's", data(func(d *Data) { d.DaemonUID = 0 }), "data directory", Warning, "the daemon runs as user 0"},
		{"data: on NFS", data(func(d *Data) { d.Mount = nfs("") }), "data directory", Problem, "network filesystem (nfs4, filer:/gw)"},
		{"data: in memory", data(func(d *Data) { d.Mount.Type = "tmpfs" }), "data directory", Problem, "in memory"},
		{"data: in a container", data(func(d *Data) { d.Mount.Type = "overlay" }), "data directory", Warning, "volume"},
		{"data: FUSE", data(func(d *Data) { d.Mount.Type = "fuse.x" }), "data directory", Warning, "FUSE"},
		{"data: read-only", data(func(d *Data) { d.Mount.Options = map[string]string{"ro": ""} }), "data directory", Problem, "read-only"},
		{"data: no flush", data(func(d *Data) { d.Mount.Options["barrier"] = "0" }), "data directory", Problem, "does not flush"},
		{"data: full", data(func(d *Data) { d.Free = 200 << 20 }), "data directory", Problem, "200 MB are free, less than the reserve of 256 MB"},
		{"data: nearly full", data(func(d *Data) { d.Free = 300 << 20 }), "data directory", Warning, "300 MB are free"},
		{"data: inodes", data(func(d *Data) { d.FreeFiles = 5 }), "data directory", Warning, "inodes"},
		{"data: damage", data(func(d *Data) { d.Damaged = []string{"node.json: damaged"} }), "data directory", Problem, "node.json"},
		{"data: hung daemon", data(func(d *Data) { d.DaemonHung = true }), "data directory", Problem, "process 7"},

		{"limits: too few watches", both(tree(func(t *Tree) { t.Dirs = 10000 }), func(f *Facts) { f.Limits.Watches = 8192 }), "limits", Warning, "8192 watches for 10001 directories: changes"},
		{"limits: watches run short", func(f *Facts) { f.Limits.Watches = 8200 }, "limits", Warning, "sysctl -w fs.inotify.max_user_watches=524288"},
		{"limits: instances", func(f *Facts) { f.Limits.Instances = 4 }, "limits", Warning, "one per tree"},
		{"limits: open files", func(f *Facts) { f.Limits.OpenFiles = 512 }, "limits", Warning, "LimitNOFILE"},
		{"limits: hardly any open files", func(f *Facts) { f.Limits.OpenFiles = 64 }, "limits", Problem, "the daemon may open 64 files"},

		{"identity: not yet", group(func(c *Cluster) { c.CertBegins = now.Add(time.Hour) }), "identity", Problem, "clock here is slow"},
		{"identity: ended", group(func(c *Cluster) { c.CertEnds = now.Add(-time.Hour) }), "identity", Problem, "ended on"},
		{"identity: ends, stopped", both(group(func(c *Cluster) { c.CertEnds = now.AddDate(0, 0, 3) }), group(func(c *Cluster) { c.Running = false })), "identity", Warning, "start the daemon"},
		{"identity: ends, own PKI", group(func(c *Cluster) { c.CertEnds, c.OwnPKI = now.AddDate(0, 0, 3), true }), "identity", Warning, "bring a new one"},
		{"identity: ends", group(func(c *Cluster) { c.CertEnds = now.AddDate(0, 0, 3) }), "identity", Note, "renews itself"},
		{"identity: CA ends", group(func(c *Cluster) { c.CAEnds = now.AddDate(0, 2, 0) }), "identity", Warning, "rotate-ca"},

		{"members: unknown", group(func(c *Cluster) { c.Err = "no log" }), "members", Problem, "no log"},
		{"members: unreachable", func(f *Facts) {
			f.Cluster.Members = append(f.Cluster.Members, Member{Name: "gw4", Err: "refused"})
		}, "members", Problem, "gatesync remove gw4"},
		{"members: removed", group(func(c *Cluster) {
			c.Quorum = false
			for i := range c.Members {
				c.Members[i].Err = "refused"
			}
			c.Members[0].Disowns = true
		}), "members", Problem, "this node was removed from the cluster"},
		{"members: slow", peer(func(m *Member) { m.Took = 3 * time.Second }), "members", Warning, "it took 3s"},
		{"members: clock off", peer(func(m *Member) { m.Clock = -4 * time.Second }), "members", Warning, "its clock is 4s behind this one's"},
		{"members: clock far off", peer(func(m *Member) { m.Clock = time.Hour }), "members", Problem, "1h0m0s ahead of"},
		{"members: clock within the error", peer(func(m *Member) { m.Clock, m.ClockErr = 2*time.Second, time.Second }), "", "", ""},
		{"members: certificate of an own PKI ends", both(group(func(c *Cluster) { c.OwnPKI = true }), peer(func(m *Member) { m.CertEnds = now.AddDate(0, 0, 1) })), "members", Warning, "its certificate ends"},

		{"quorum: none", group(func(c *Cluster) { c.Quorum = false }), "quorum", Problem, "nothing can be committed"},
		{"quorum: alone", group(func(c *Cluster) { c.Members = nil }), "quorum", Warning, "only member"},
		{"quorum: two", group(func(c *Cluster) { c.Members = c.Members[:1] }), "quorum", Warning, "witness"},
		{"quorum: even", group(func(c *Cluster) { c.Members = append(c.Members, c.Members[0]) }), "quorum", Warning, "4 voters tolerate no more failures than 3"},

		{"trees: hung", tree(func(t *Tree) { t.Hung, t.Trial = "listing it", nil }), "trees", Problem, "gatesync materialize --tree server"},
		{"trees: missing", tree(func(t *Tree) { t.Err, t.Trial = "no such directory", nil }), "trees", Problem, "no such directory"},
		{"trees: nested", tree(func(t *Tree) { t.Within = []string{"tree b (/opt)"} }), "trees", Problem, "tree b (/opt) lie in one another"},
		{"trees: mount inside", tree(func(t *Tree) { t.Inner = []Mount{{Point: "/opt/gw/x", Type: "tmpfs"}} }), "trees", Warning, "/opt/gw/x (tmpfs)"},
		{"trees: open to all", tree(func(t *Tree) { t.Mode = 0o777 }), "trees", Warning, "chmod o-w /opt/gw"},
		{"trees: no marker", tree(func(t *Tree) { t.Marker = Marker{} }), "trees", Problem, "restore --tree server"},
		{"trees: not begun", both(tree(func(t *Tree) { t.Marker = Marker{} }), group(func(c *Cluster) { c.Running = false })), "trees", Note, "no marker yet"},
		{"trees: another's", tree(func(t *Tree) { t.Marker = Marker{There: true, Why: "of cluster c-2"} }), "trees", Problem, "of cluster c-2"},
		{"trees: staged inside", tree(func(t *Tree) { t.Beside = false }), "trees", Note, ".gatesync/staging"},

		{"trial: root squash", func(f *Facts) { onNFS("")(f); f.User.UID = 0; f.Trees[0].Trial.Owner = 65534 }, "file operations", Problem, "no_root_squash"},
		{"trial: root may not write", func(f *Facts) {
			onNFS("")(f)
			f.User.UID = 0
			f.Trees[0].Trial = &Trial{Steps: []Step{{Op: "make a directory", Err: "permission denied"}}, Leases: true, Locks: true}
		}, "file operations", Problem, "no_root_squash"},
		{"trial: mapped users", trial(func(x *Trial) { x.Owner = 99 }), "file operations", Problem, "maps users"},
		{"trial: not writable", trial(func(x *Trial) { x.Steps = []Step{{Op: "create", Err: "permission denied"}} }), "file operations", Problem, "make /opt/gw writable"},
		{"trial: full", trial(func(x *Trial) { x.Steps = []Step{{Op: "flush", Err: "no space left on device"}} }), "file operations", Problem, "make room"},
		{"trial: no links", trial(func(x *Trial) { x.Steps = append(x.Steps, Step{Op: "link", Err: "not supported"}) }), "file operations", Problem, "link: not supported"},
		{"trial: no chown", trial(func(x *Trial) { x.Steps = append(x.Steps, Step{Op: "change owner", Err: "not permitted"}) }), "file operations", Warning, "owners cannot be set"},
		{"trial: no exchange", trial(func(x *Trial) { x.Exchange = false }), "file operations", Note, "renameat2"},
		{"trial: no leases", trial(func(x *Trial) { x.Leases = false }), "file operations", Note, "quiet for a second"},
		{"trial: no locks on NFS", both(onNFS(""), trial(func(x *Trial) { x.Locks = false })), "file operations", Warning, "rpc.statd"},
		{"trial: period of grace", both(onNFS(""), trial(func(x *Trial) {
			x.Locks, x.Steps = false, append(x.Steps, Step{Op: "lock", Err: "no answer", Took: 5 * time.Second})
		})), "file operations", Warning, "not granted within 5s"},
		{"trial: clock", trial(func(x *Trial) { x.Clock = -time.Minute }), "file operations", Warning, "1m0s behind this machine's"},
		{"trial: slow", trial(func(x *Trial) { x.Steps[0].Took = 2 * time.Second }), "file operations", Warning, "create took 2s"},
		{"trial: left", trial(func(x *Trial) { x.Left = "/opt/gw/.gatesync/doctor-1" }), "file operations", Note, "/opt/gw/.gatesync/doctor-1"},

		{"mount: fine", onNFS(""), "file operations", Note, "renameat2"},
		{"mount: read-only", func(f *Facts) { onNFS("ro")(f) }, "mounts", Problem, "read-only"},
		{"mount: soft", onNFS("soft"), "mounts", Warning, "soft: after 6m0s"},
		{"mount: soft and short", onNFS("soft,timeo=10"), "mounts", Problem, "soft with timeo=10: after 6s"},
		{"mount: softerr", onNFS("softerr"), "mounts", Warning, "torn"},
		{"mount: noac", onNFS("noac"), "mounts", Warning, "noac: every look"},
		{"mount: actimeo=0", onNFS("acregmax=0,acdirmax=0"), "mounts", Warning, "actimeo=0"},
		{"mount: long caches", onNFS("acregmax=600"), "mounts", Warning, "up to 600 s"},
		{"mount: default caches", onNFS("acdirmax=60"), "mounts", Note, "lookupcache=positive"},
		{"mount: lookupcache=none", onNFS("lookupcache=none"), "mounts", Note, "looked up at the server"},
		{"mount: nolock", onNFS("nolock"), "mounts", Warning, "nolock"},
		{"mount: local locks", onNFS("local_lock=all"), "mounts", Warning, "local_lock=all"},
		{"mount: sync", onNFS("sync"), "mounts", Warning, "without sync"},
		{"mount: UDP", onNFS("proto=udp"), "mounts", Problem, "proto=tcp"},
		{"mount: version 3", onNFS("vers=3"), "mounts", Note, "NFS 3"},
		{"mount: small writes", onNFS("wsize=8192"), "mounts", Warning, "wsize=8192"},
		{"mount: another kind", tree(func(t *Tree) { t.Mount.Type = "cifs" }), "mounts", Note, "not tested"},
		{"mount: timeouts", func(f *Facts) {
			onNFS("")(f)
			f.Trees[0].Mount.Stats = &MountStats{Age: time.Hour, Calls: 10, Timeouts: 2}
		}, "mounts", Warning, "2 calls were not answered"},
		{"mount: resent", func(f *Facts) { onNFS("")(f); f.Trees[0].Mount.Stats = &MountStats{Calls: 5000, Resent: 50} }, "mounts", Warning, "50 of 5000"},
		{"mount: slow", func(f *Facts) { onNFS("")(f); f.Trees[0].Mount.Stats = &MountStats{Calls: 5000, Wait: time.Second} }, "mounts", Warning, "1s on average"},

		{"shared: local by the settings", both(sees(true), tree(func(t *Tree) { t.Storage = "local" })), "shared directories", Problem, "storage is local, and the same directory is the tree of gw2"},
		{"shared: local by the daemon", sees(true), "shared directories", Problem, "gatesync status"},
		{"shared: direct", both(sees(true), group(func(c *Cluster) { c.LogTrees[0].Storage, c.LogTrees[0].Steward = "direct", "gw2" })), "shared directories", Note, "shared with gw2"},
		{"shared: no steward", both(sees(true), group(func(c *Cluster) { c.LogTrees[0].Storage = "direct" })), "shared directories", Warning, "nobody is its steward"},
		{"shared: not found out", group(func(c *Cluster) { c.LogTrees[0].Storage, c.LogTrees[0].Why = "", "waiting for gw2" }), "shared directories", Warning, "waiting for gw2"},
		{"shared: should be", tree(func(t *Tree) { t.Storage = "direct" }), "shared directories", Problem, "none of the others sees this directory: gw2, gw3"},
		{"shared: on NFS, and not", onNFS(""), "shared directories", Note, "are other directories"},
		{"shared: not known", peer(func(m *Member) { m.Sights[0] = Sight{Tree: "server", Err: "hangs"} }), "shared directories", Warning, "gw2 (hangs)"},
		{"share: well", share(func(*Tree, *SeenShare) {}), "share", Note, "seen by gw2 too"},
		{"share: hung", share(func(t *Tree, _ *SeenShare) { t.Hung, t.Trial = "listing it", nil }), "share", Warning, "content is pushed meanwhile"},
		{"share: gone", share(func(t *Tree, _ *SeenShare) { t.Err, t.Trial = "no such directory", nil }), "share", Warning, "no such directory"},
		{"share: local", share(func(t *Tree, _ *SeenShare) { t.Mount.Type = "ext4" }), "share", Warning, "nobody else sees it"},
		{"share: not writable", share(func(t *Tree, _ *SeenShare) { t.Trial.Steps = []Step{{Op: "create", Err: "read-only"}} }), "share", Warning, "create: read-only"},
		{"share: not used", share(func(_ *Tree, s *SeenShare) { s.Well, s.Why = false, "slow" }), "share", Warning, "does not use it: slow"},
		{"share: alone", share(func(_ *Tree, s *SeenShare) { s.Members = nil }), "share", Warning, "no other member"},
		{"share: unknown to the daemon", func(f *Facts) { share(func(*Tree, *SeenShare) {})(f); f.Cluster.Share = nil }, "share", Warning, "restart the daemon"},
		{"share: mounted soft", share(func(t *Tree, _ *SeenShare) { t.Mount = nfs("soft,timeo=10") }), "mounts", Problem, "soft with timeo=10"},
	} {
		f := well()
		c.change(&f)
		found := false
		for _, check := range Examine(f) {
			for _, x := range check.Findings {
				text := x.What + " | " + x.Remedy
				switch {
				case x.Check == c.check && x.Severity == c.severity && strings.Contains(text, c.says):
					found = true
				case strings.Contains(x.What, "daemon does not run") && !f.Cluster.Running:
				case x.Severity != Note:
					t.Errorf("%s: also found: %+v", c.name, x)
				}
				if x.Severity != Note && x.Remedy == "" {
					t.Errorf("%s: no remedy: %+v", c.name, x)
				}
			}
		}
		if !found && c.check != "" {
			t.Errorf("%s: %s %q was not found in %+v", c.name, c.severity, c.says, Examine(f))
		}
		if c.check == "" && Count(Examine(f), Note) > 0 {
			t.Errorf("%s: %+v", c.name, Examine(f))
		}
	}
}

// share is well, with a share.
func share(change func(*Tree, *SeenShare)) func(*Facts) {
	return func(f *Facts) {
		f.Share = &Tree{Name: "share", Path: "/mnt/x", Real: "/mnt/x", Mount: nfs(""), Trial: &Trial{Steps: []Step{{Op: "create"}}, Owner: 1000}}
		f.Cluster.Share = &SeenShare{Well: true, Members: []string{"gw2"}}
		change(f.Share, f.Cluster.Share)
	}
}

func sees(yes bool) func(*Facts) { return peer(func(m *Member) { m.Sights[0].Sees = yes }) }

// A dead voter is a problem of the members and, where no other may fail, of
// the majority.
func TestDeadVoter(t *testing.T) {
	f := well()
	f.Cluster.Members[1].Err = "connection refused"
	var problems []string
	for _, c := range Examine(f) {
		for _, x := range c.Findings {
			problems = append(problems, x.Check+": "+x.What)
		}
	}
	want := []string{"members: gw3:7946 cannot be spoken to: connection refused", "quorum: no further voter may fail: 2 of 3 answer"}
	if strings.Join(problems, "\n") != strings.Join(want, "\n") {
		t.Errorf("have %q", problems)
	}
	f.Cluster.Running = false // this one counts as down as well
	if Count(Examine(f), Problem) != 2 {
		t.Errorf("%+v", Examine(f))
	}
}

func TestNest(t *testing.T) {
	trees := []Tree{{Name: "a", Real: "/opt/gw"}, {Name: "b", Real: "/opt/gw/in"}, {Name: "c", Real: "/opt/gwx"}, {Name: "d"}}
	Nest(trees, "/opt/gwx/data")
	want := [][]string{{"tree b (/opt/gw/in)"}, {"tree a (/opt/gw)"}, {"the data directory /opt/gwx/data"}, nil}
	for i := range trees {
		if strings.Join(trees[i].Within, "|") != strings.Join(want[i], "|") {
			t.Errorf("%s: %q, want %q", trees[i].Name, trees[i].Within, want[i])
		}
	}
}
