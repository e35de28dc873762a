package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/node"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// asProgram makes the test binary behave as gatesync, for the demo's processes.
const asProgram = "TEST_RUN_AS_GATESYNC=1"

func TestMain(m *testing.M) {
	for _, kv := range os.Environ() {
		if kv == asProgram {
			ctx, stop := signalContext()
			code := Program{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(), Version: "test"}.Run(ctx, os.Args[1:])
			stop()
			os.Exit(code)
		}
	}
	goleak.VerifyTestMain(m)
}

var update = flag.Bool("update", false, "write the golden files anew")

type result struct {
	code        int
	out, stderr string
}

func run(t *testing.T, args ...string) result {
	t.Helper()
	return runWith(t, nil, args...)
}

func runWith(t *testing.T, environ []string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	p := Program{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Environ: environ, Version: "v0.0.0-test"}
	code := p.Run(t.Context(), args)
	return result{code, out.String(), errs.String()}
}

func TestHelpOfEveryCommand(t *testing.T) {
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		name := strings.Join(append([]string{"gatesync"}, path...), "_")
		if len(path) > 0 && (path[0] == "completion" || path[0] == "help") {
			return // cobra's own
		}
		t.Run(name, func(t *testing.T) {
			r := run(t, append(path, "-h")...)
			if r.code != 0 || r.stderr != "" {
				t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
			}
			for _, want := range []string{"Examples:", "Exit codes:"} {
				if !strings.Contains(r.out, want) {
					t.Errorf("its help has no %q", want)
				}
			}
			if c.Long == "" && !c.HasSubCommands() && name != "gatesync_version" {
				t.Error("its help does not explain it (Long)")
			}
			// These print no facts: a daemon, a show, a file's content.
			facts := !slices.Contains([]string{"gatesync", "gatesync_run", "gatesync_demo", "gatesync_conflicts_show"}, name)
			if facts && c.Flags().Lookup("json") == nil {
				t.Error("prints facts and has no --json")
			}
			golden(t, name+".txt", r.out)
		})
		for _, sub := range c.Commands() {
			walk(sub, append(append([]string(nil), path...), sub.Name()))
		}
	}
	walk((&app{}).root(), nil)
}

// `completion` is cobra's own: it has to be reachable, and to know our commands.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := run(t, "completion", shell)
		if r.code != 0 || !strings.Contains(r.out, "gatesync") || r.stderr != "" {
			t.Errorf("%s: exit code %d, %d bytes, stderr %q", shell, r.code, len(r.out), r.stderr)
		}
	}
	for asked, want := range map[string]string{"mat": "materialize", "conflicts re": "restore", "doctor --js": "--json"} {
		r := run(t, append([]string{"__complete"}, strings.Split(asked, " ")...)...)
		if r.code != 0 || !strings.HasPrefix(r.out, want) {
			t.Errorf("completing %q: exit code %d, %q; want %q", asked, r.code, r.out, want)
		}
	}
	if r := run(t, "-h"); !strings.Contains(r.out, "completion") {
		t.Error("the help does not name it")
	}
}

func golden(t *testing.T, name, have string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if have != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); have:\n%s", file, have)
	}
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	tree := "server=" + filepath.Join(dir, "tree")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"stauts"}, `did you mean "status"?`},
		{[]string{"publish", "--tree", "server", "a.xml"}, `unknown command "publish"` + "\nrun `gatesync -h` for the commands that there are"},
		{[]string{"top"}, `unknown command "top"` + "\n"},
		{[]string{"help", "stauts"}, `did you mean "status"?`},
		{[]string{"conflicts", "shwo", "--al"}, `did you mean "show"?`},
		{[]string{"help", "conflicts", "shwo"}, `did you mean "show"?`},
		{[]string{"wait", "--revision", "-1"}, `--revision "-1": give it a number from 0 on`},
		{[]string{"transfer", "a", "b"}, "transfer takes at most one NODE"},
		{[]string{"status", "--jsno"}, "unknown flag: --jsno"},
		{[]string{"status", "now"}, "takes no arguments"},
		{[]string{"join"}, "takes exactly: HOST:PORT"},
		{[]string{"init", "--tree", tree}, "--name is missing"},
		{[]string{"init", "--name", "gw1"}, "--tree is missing"},
		{[]string{"init", "--name", "gw1", "--tree", "nonsense"}, "write NAME=PATH"},
		{[]string{"init", "--name", "a b", "--tree", tree}, "is no node name"},
		{[]string{"init", "--name", "gw1", "--tree", tree + ",prset=wso2"}, `did you mean "preset"?`},
		{[]string{"init", "--name", "gw1", "--tree", tree + ",preset=wso3"}, `trees[0].preset: "wso3" is not one of plain, wso2`},
		{[]string{"init", "--name", "gw1", "--tree", tree + ",ignore=[a"}, `trees[0].ignore: "[a" is no well-formed glob`},
		{[]string{"join", "h:1", "--name", "gw1", "--tree", tree}, "--token is missing"},
		{[]string{"token", "--uses", "0"}, "must be more than zero"},
		{[]string{"conflicts", "drop"}, "or say --all"},
		{[]string{"approve", "/etc/passwd"}, "relative to the tree's root"},
		{[]string{"wait", "--timeout", "soon"}, `--timeout "soon": give it a time like 30s`},
		{[]string{"wait", "--timeout", "-5s"}, "--timeout -5s: it must not be less than zero"},
		{[]string{"resync", "--from", "nohost"}, `--from "nohost" is no HOST:PORT`},
	} {
		r := run(t, append(c.args, "--data-dir", filepath.Join(dir, "data"))...)
		if r.code != exitUsage || !strings.Contains(r.stderr, c.says) || !strings.Contains(r.stderr, "-h`") {
			t.Errorf("%q: exit code %d, stderr %q; want 2 and %q", c.args, r.code, r.stderr, c.says)
		}
	}
}

func TestWithoutDaemon(t *testing.T) {
	dir := t.TempDir()
	if r := run(t, "init", "--data-dir", dir, "--name", "gw1", "--listen", "127.0.0.1:1", "--tree", "server="+filepath.Join(t.TempDir(), "tree")); r.code != exitDone {
		t.Fatalf("init: %s", r.stderr)
	}
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"members"}, {"log"}, {"wait"}, {"token"}, {"held"}, {"approve"}, {"conflicts"}, {"verify"}, {"remove", "gw2"},
	} {
		r := run(t, append(args, "--data-dir", dir)...)
		if r.code != exitFailed || r.out != "" || !strings.Contains(r.stderr, "is not running: start it with `gatesync run --data-dir "+dir) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, r.code, r.out, r.stderr)
		}
	}
}

// A data directory in which no node was made has no daemon that could be started.
func TestWithoutNode(t *testing.T) {
	dir := t.TempDir()
	file, pushedTo := filepath.Join(dir, "file"), filepath.Join(dir, "pushed-to")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(pushedTo, 0o700), os.WriteFile(filepath.Join(pushedTo, "receive.lock"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for data, says := range map[string]string{
		filepath.Join(dir, "nowhere"): "nowhere does not exist: make a node there with `gatesync init`",
		dir:                           dir + " holds no node (no gatesync.yaml): make a node there",
		file:                          "file is no directory: make a node there",
		pushedTo:                      "the data directory of a target",
	} {
		for _, args := range [][]string{
			{"run"}, {"status"}, {"status", "--watch"}, {"status", "--json"}, {"members"}, {"log"}, {"wait"}, {"token"}, {"held"}, {"approve"}, {"verify"}, {"remove", "gw2"},
			{"promote", "gw2"}, {"transfer"}, {"rotate-ca"}, {"resync"}, {"recover"}, {"doctor"}, {"backup", "-"}, {"materialize", "--to", "x"}, {"push", "ssh://h/x", "--tree", "server"},
		} {
			r := run(t, append(args, "--data-dir", data)...)
			if r.code != exitFailed || r.out != "" || !strings.Contains(r.stderr, says) {
				t.Errorf("%q of %s: exit code %d, stdout %q, stderr %q", args, data, r.code, r.out, r.stderr)
			}
		}
	}
}

func TestDataDirFromEnvironment(t *testing.T) {
	r := runWith(t, []string{"GATESYNC_DATA_DIR=/nowhere/at/all"}, "status")
	if !strings.Contains(r.stderr, "/nowhere/at/all") {
		t.Errorf("%q", r.stderr)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{nil, exitDone},
		{errors.New("disk on fire"), exitFailed},
		{context.Canceled, exitFailed},
		{&usageError{command: "x", err: errors.New("y")}, exitUsage},
		{fmt.Errorf("x: %w", silent(errDifferences)), exitDifferences},
		{silent(errHeld), exitHeld},
		{fmt.Errorf("propose: %w", cluster.ErrNoQuorum), exitNoQuorum},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.code)
		}
	}
}

func TestVersion(t *testing.T) {
	if r := run(t, "version"); r.code != 0 || !strings.HasPrefix(r.out, "gatesync v0.0.0-test (go") {
		t.Errorf("%+v", r)
	}
	if r := run(t, "--version"); r.code != 0 || r.out != run(t, "version").out {
		t.Errorf("%+v", r)
	}
	if r := run(t, "help", "conflicts", "show"); r.code != 0 || r.out != run(t, "conflicts", "show", "-h").out {
		t.Errorf("%+v", r)
	}
	if r := run(t, "version", "--json"); !strings.Contains(r.out, `"version": "v0.0.0-test"`) {
		t.Errorf("%+v", r)
	}
}

// trouble is a cluster in which much is wrong.
func trouble(now time.Time) node.Status {
	seen, started := now.Add(-90*time.Second), now.Add(-3*time.Hour)
	return node.Status{
		Node:   node.NodeStatus{ID: "n-1", Name: "gw1", Role: "voter", Started: now.Add(-3 * time.Hour), CertificateExpires: now.Add(9 * 24 * time.Hour), CertificateSoon: true},
		Format: node.FormatStatus{Active: 1, Newest: 2, Waits: []string{"gw3"}},
		CA: node.CAStatus{Fingerprint: strings.Repeat("ab", 32), Expires: now.Add(2000 * time.Hour), Replacing: &node.CAChange{
			From: strings.Repeat("ab", 32), To: strings.Repeat("cd", 32), Step: "renew", Dead: []string{"gw3"},
		}},
		Cluster: "c-1", Revision: 1240, CaughtUp: true, Voters: 4, VotersAlive: 2, Tolerance: -1,
		Members: []node.MemberStatus{
			{ID: "n-1", Name: "gw1", Role: "voter", Address: "10.0.0.1:7946", Alive: true, Votes: true, Applied: 1240},
			{ID: "n-2", Name: "gw2", Role: "voter", Address: "10.0.0.2:7946", Votes: true, LastSeen: &seen, DeadSince: &seen, Error: "cannot reach gw2"},
			{ID: "n-3", Name: "gw3", Role: "voter", Address: "10.0.0.3:7946", Votes: true, DeadSince: &started},
			{ID: "n-4", Name: "gw4", Role: "nonvoter", Chosen: "nonvoter", Address: "10.0.0.4:7946", Alive: true, Applied: 1200, Missing: 7},
			{ID: "n-5", Name: "w1", Role: "witness", Address: "10.0.0.5:7946", Alive: true, Votes: true, Applied: 1239, Missing: 1,
				Nowhere: []string{"blob 1a2b3c4d of server: conf/a.xml (revision 1240, current)"}},
		},
		Trees: []node.TreeStatus{{Name: "server", Path: "/opt/gw\nx", Files: 2020, Bytes: 12 << 20, Applied: 1240, Held: 12, Conflicts: 1, LagSeconds: 61}},
	}
}

func TestStatusForPeople(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	writeStatus(&b, trouble(now), now)
	golden(t, "status_trouble.txt", b.String())

	s := trouble(now)
	s.Leader, s.Quorum = "n-1", true
	s.Members, s.Voters, s.VotersAlive, s.Tolerance = s.Members[:1], 3, 3, 1
	s.Trees = []node.TreeStatus{{Name: "server", Path: "/opt/gw", Files: 1, Applied: 1240}}
	s.Node.CertificateExpires, s.Node.CertificateSoon = now.Add(300*24*time.Hour), false
	s.Format = node.FormatStatus{Active: 2, Newest: 2}
	s.CA.Replacing, s.CA.Expires = nil, now.Add(5*365*24*time.Hour)
	b.Reset()
	writeStatus(&b, s, now)
	golden(t, "status_well.txt", b.String())

	s.Trees, s.Node.Role = nil, "witness"
	b.Reset()
	writeStatus(&b, s, now)
	if !strings.Contains(b.String(), "no trees: this node is a witness") {
		t.Error(b.String())
	}
}

func TestNumbersForPeople(t *testing.T) {
	for have, want := range map[string]string{
		count(0): "0", count(999): "999", count(1000): "1,000", count(-1234567): "-1,234,567",
		size(0): "0 B", size(1023): "1023 B", size(1536): "1.5 KB", size(5 << 30): "5.0 GB", size(200 << 20): "200 MB",
		plural(1, "file"): "1 file", plural(2, "file"): "2 files",
		duration(1500 * time.Microsecond): "2ms", duration(2500 * time.Millisecond): "2.5s", duration(90 * time.Second): "1m30s", duration(72 * time.Hour): "3 days",
		showPath("a/b c.xml"): "a/b c.xml", showPath("a\x1b[2J"): `"a\x1b[2J"`, showPath("\xff"): `"\xff"`,
	} {
		if have != want {
			t.Errorf("have %q, want %q", have, want)
		}
	}
}

func TestResyncReport(t *testing.T) {
	report := func(json bool, evs ...*pb.ResyncEvent) (string, error) {
		var out, errs bytes.Buffer
		r := &resyncReport{app: &app{Program: Program{Stdout: &out, Stderr: &errs}, json: json}, dryRun: true, bar: newProgress(&errs)}
		for _, ev := range evs {
			if err := r.take(ev); err != nil {
				return "", err
			}
		}
		r.bar.end()
		return out.String(), r.finish()
	}
	diff := &pb.ResyncEvent{Of: &pb.ResyncEvent_Difference{Difference: &pb.Difference{Tree: "server", Path: []byte("a\xff.xml"), What: "add", Local: true, Size: 3}}}
	sum := func(held uint64) *pb.ResyncEvent {
		return &pb.ResyncEvent{Of: &pb.ResyncEvent_Summary{Summary: &pb.Summary{Revision: 7, Held: held}}}
	}
	if _, err := report(false, sum(0)); err != nil {
		t.Errorf("nothing differs: %v", err)
	}
	if _, err := report(false, sum(2)); !errors.Is(err, errHeld) {
		t.Errorf("held: %v", err)
	}
	out, err := report(false, diff, sum(0))
	if !errors.Is(err, errDifferences) || !strings.Contains(out, `-> add      server: "a\xff.xml"`) {
		t.Errorf("%v %q", err, out)
	}
	if out, _ = report(true, diff, sum(0)); out != "" {
		t.Errorf("JSON before the end: %q", out)
	}
}

func TestVerifyReport(t *testing.T) {
	report := func(json bool, evs ...*pb.VerifyEvent) (string, error) {
		var out, errs bytes.Buffer
		r := &verifyReport{app: &app{Program: Program{Stdout: &out, Stderr: &errs}, json: json}, drifts: []jsonDrift{}, bar: newProgress(&errs)}
		for _, ev := range evs {
			if err := r.take(ev); err != nil {
				return "", err
			}
		}
		r.bar.end()
		err := r.finish()
		return out.String(), err
	}
	drift := &pb.VerifyEvent{Of: &pb.VerifyEvent_Drift{Drift: &pb.Difference{Tree: "server", Path: []byte("a.xml"), What: "unreadable", Why: "is a FIFO"}}}
	past := &pb.VerifyEvent{Of: &pb.VerifyEvent_Summary{Summary: &pb.Summary{Revision: 7, Past: true}}}
	sum := &pb.VerifyEvent{Of: &pb.VerifyEvent_Summary{Summary: &pb.Summary{Revision: 7, Bytes: 3}}}
	for _, c := range []struct {
		json bool
		evs  []*pb.VerifyEvent
		says string
		err  error
	}{
		{false, []*pb.VerifyEvent{sum}, "3 B of content verified, no drift at revision 7\n", nil},
		{false, []*pb.VerifyEvent{drift, sum}, "unreadable server: a.xml (is a FIFO)\n3 B of content verified, drift of 1 path at revision 7\n", errDifferences},
		{true, []*pb.VerifyEvent{sum}, "\"drifts\": []", nil},
		{true, []*pb.VerifyEvent{drift, sum}, "\"why\": \"is a FIFO\"", errDifferences},
		{false, []*pb.VerifyEvent{past}, "no drift at revision 7\n", cluster.ErrNoQuorum},
		{true, []*pb.VerifyEvent{past}, "\"current\": false", cluster.ErrNoQuorum},
		{false, []*pb.VerifyEvent{drift, past}, "drift of 1 path at revision 7\n", errDifferences},
	} {
		out, err := report(c.json, c.evs...)
		if !strings.Contains(out, c.says) || !errors.Is(err, c.err) {
			t.Errorf("it says %q, %v; want %q, %v", out, err, c.says, c.err)
		}
	}
}

func TestDemo(t *testing.T) {
	var out, errs bytes.Buffer
	p := Program{
		Stdout: &out, Stderr: &errs, Version: "test", Environ: append(os.Environ(), asProgram), Executable: []string{os.Args[0]},
	}
	if code := p.Run(t.Context(), []string{"demo", "--files", "60"}); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), errs.String())
	}
	for _, want := range []string{"all three vote", "the others have all of it", "stands everywhere", "has caught up", "all three trees are equal", "yes: 3 of 3 voters alive"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out.String())
		}
	}
	dir := strings.TrimSpace(strings.SplitN(strings.SplitN(out.String(), "machine, in ", 2)[1], "\n", 2)[0])
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it left %s behind: %v", dir, err)
	}
}
