package target

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/syncer"
)

// What stands in a test's words: "f=content" a file, "d/" a directory; a
// leading "!" means that no push has brought it, "?" that it cannot be read.
func planOf(t *testing.T, disk, wants, gone string, policy Policy) string {
	t.Helper()
	s := state{policy: policy, limit: manifest.DefaultDeleteLimit(), gone: map[manifest.Path]bool{}, rev: 1}
	entry := func(word string) (manifest.Path, manifest.Entry) {
		if p, ok := strings.CutSuffix(word, "/"); ok {
			return manifest.Path(p), manifest.Entry{Kind: manifest.Dir, Mode: 0o755}
		}
		p, content, _ := strings.Cut(word, "=")
		return manifest.Path(p), manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: int64(len(content)), Digest: manifest.DigestOf([]byte(content))}
	}
	for _, word := range strings.Fields(disk) {
		v := syncer.Surveyed{}
		v.Sight = syncer.Seen
		known := true
		switch word[0] {
		case '!':
			word, known = word[1:], false
		case '?':
			word, v.Sight, v.Why = word[1:], syncer.Unreadable, "permission denied"
		}
		v.Path, v.Entry = entry(word)
		if known {
			v.Was.Entry = v.Entry
		}
		s.disk = append(s.disk, v)
	}
	for _, word := range strings.Fields(wants) {
		p, e := entry(word)
		s.wants = append(s.wants, want{p, e})
	}
	for _, p := range strings.Fields(gone) {
		s.gone[manifest.Path(p)] = true
	}
	var out []string
	p := decide(s)
	for _, l := range p.dry() {
		out = append(out, l.What+" "+string(l.Path))
	}
	for _, st := range p.steps {
		if st.Aside != nil {
			out = append(out, "aside "+string(st.Path))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestPlan(t *testing.T) {
	many := func(n int, prefix string) (words, paths string) {
		for i := range n {
			words += fmt.Sprintf(" %sf%d=%d", prefix, i, i)
			paths += fmt.Sprintf(" f%d", i)
		}
		return words, paths
	}
	fifty, fiftyGone := many(50, "")
	for _, c := range []struct {
		name, disk, wants, gone string
		policy                  Policy
		plan                    string
	}{
		{"nothing", "", "", "", DeleteHeld, ""},
		{"new", "", "a=1 d/ d/b=2", "", DeleteHeld, "add a, add d, add d/b"},
		{"changed", "a=1", "a=2", "", DeleteHeld, "change a"},
		{"changed here too", "!a=1", "a=2", "", DeleteHeld, "aside a, change a"},
		{"gone", "a=1 b=2", "", "a", DeleteHeld, "delete a"},
		{"gone, and a directory", "a=1 d/ d/b=2", "", "d d/b", DeleteHeld, "delete d, delete d/b"},
		{"made here", "a=1 !b=2", "", "b", DeleteHeld, "held b"},
		{"made here, in a directory that goes", "a=1 d/ !d/b=2 d/c=3", "", "d d/b d/c", DeleteHeld, "delete d/c, held d/b"},
		{"an empty directory made here", "a=1 !d/ !d/e/", "", "d d/e", DeleteHeld, "held d, held d/e"},
		{"made here, and meant", "a=1 !b=2", "", "b", DeleteYes, "aside b, delete b"},
		{"nothing is deleted", "a=1 !b=2 d/ d/c=3", "", "a b d d/c", DeleteNo, ""},
		{"emptied", "a=1", "", "a", DeleteHeld, "held a"},
		{"emptied, and meant", "a=1", "", "a", DeleteYes, "delete a"},
		{"all of it is another", "a=1", "b=2", "a", DeleteHeld, "add b, delete a"},
		{"many, and meant", fifty + " g=1", "", fiftyGone, DeleteNo, ""},
		{"a directory becomes a file", "d/ d/b=2", "d=1", "d/b", DeleteYes, "change d, delete d/b"},
		{"a directory becomes a file, and holds what was made here", "x=1 d/ !d/b=2", "d=1", "d/b", DeleteHeld, "held d, held d/b"},
		{"a file becomes a directory", "d=1", "d/ d/b=2", "", DeleteHeld, "add d/b, change d"},
		{"unreadable", "a=1 ?b=2", "b=3", "", DeleteHeld, "failed b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := planOf(t, c.disk, c.wants, c.gone, c.policy); got != c.plan {
				t.Fatalf("%s\nwant %s", got, c.plan)
			}
		})
	}
	if got := planOf(t, fifty+" g=1", "", fiftyGone, DeleteHeld); strings.Count(got, "held") != 50 || strings.Contains(got, "delete") {
		t.Errorf("many: %s", got)
	}
	moved := ""
	for i := range 50 {
		moved += fmt.Sprintf(" moved/f%d=%d", i, i)
	}
	if got := planOf(t, fifty+" g=1", "moved/"+moved, fiftyGone, DeleteHeld); strings.Count(got, "delete") != 50 || strings.Contains(got, "held") {
		t.Errorf("moved: %s", got)
	}
}

func TestOlderRevisionsAreRefused(t *testing.T) {
	var s treeState
	for _, c := range []struct {
		cluster               string
		incarnation, revision uint64
		ok                    bool
	}{
		{"c1", 1, 10, true}, {"c1", 1, 10, true}, {"c1", 1, 9, false}, {"c1", 1, 11, true}, {"", 0, 0, true}, {"c1", 1, 10, false},
		{"c1", 2, 5, true}, {"c1", 1, 12, false}, {"c1", 2, 4, false}, {"c2", 1, 1, true}, {"c1", 1, 1, true},
	} {
		if err := s.admit(c.cluster, c.incarnation, c.revision); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// What was committed is meant, however much it is; what no push has brought is
// held all the same.
func TestCommittedDeletionsAreMeant(t *testing.T) {
	s := state{policy: DeleteHeld, limit: manifest.DefaultDeleteLimit(), gone: map[manifest.Path]bool{}, meant: true}
	for i := range 100 {
		e := manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: 1, Digest: manifest.DigestOf([]byte{byte(i)})}
		v := syncer.Surveyed{Observation: syncer.Observation{Path: manifest.Path(fmt.Sprintf("f%03d", i)), Sight: syncer.Seen, Entry: e}}
		if i < 90 {
			v.Was.Entry = e
		}
		s.disk, s.gone[v.Path] = append(s.disk, v), true
	}
	if p := decide(s); p.deletes != 90 || len(p.lines) != 10 {
		t.Errorf("%d are deleted, %d held", p.deletes, len(p.lines))
	}
	s.meant = false
	if p := decide(s); p.deletes != 0 || len(p.lines) != 100 {
		t.Errorf("not meant: %d are deleted, %d held", p.deletes, len(p.lines))
	}
}

func TestParseSSH(t *testing.T) {
	for in, want := range map[string]SSH{
		"ssh://gw9/opt/x":           {Host: "gw9", Path: "/opt/x"},
		"ssh://me@gw9:2222/opt/x":   {User: "me", Host: "gw9", Port: "2222", Path: "/opt/x"},
		"ssh://gw9/~/x":             {Host: "gw9", Path: "x"},
		"ssh://me@[::1]:22/a%20b/c": {User: "me", Host: "::1", Port: "22", Path: "/a b/c"},
	} {
		if got, ok, err := ParseSSH(in); got != want || !ok || err != nil {
			t.Errorf("%s: %+v %v %v", in, got, ok, err)
		}
	}
	for _, in := range []string{"ssh://", "ssh://gw9", "ssh://gw9/", "ssh://me:secret@gw9/x", "ssh://-oProxyCommand=x/x", "ssh://-l@gw9/x", "ssh://gw9:x/y"} {
		if got, ok, err := ParseSSH(in); !ok || err == nil {
			t.Errorf("%s: %+v", in, got)
		}
	}
	if _, ok, err := ParseSSH("gw9:7950"); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
}
