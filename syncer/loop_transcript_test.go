package syncer

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

var updateFlag = flag.Bool("update", false, "write the transcripts of testdata/loop anew")

// TestLoopTranscripts plays testdata/loop/*.txt: each line that begins with a
// word is an event; the lines behind it that begin with ">" are the effects
// that the loop has to answer with. A new scenario is a new text file; write
// the events and run the test with -update, then read what came out.
func TestLoopTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/loop/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *updateFlag {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs; played anew it is:\n%s", file, got)
			}
		})
	}
}

// player holds one loop and the texts that stand behind digests.
type player struct {
	t     *testing.T
	cfg   LoopConfig
	state State
	loop  *Loop
	now   time.Time
	view  manifest.View
	texts map[manifest.Digest]string
	ino   uint64
	steps map[manifest.Path]Step
	past  []manifest.Commit
	late  []manifest.Commit
	mark  uint32
	begun bool // what a joiner begins with was shown
}

func play(t *testing.T, script string) string {
	p := &player{
		t: t, now: time.Unix(1_700_000_000, 0), texts: map[manifest.Digest]string{}, steps: map[manifest.Path]Step{},
		view:  manifest.View{Tree: "server", Manifest: manifest.New()},
		state: State{Ancestors: NewAncestorMap(), Notes: map[manifest.Path]Note{}, SameBoot: true},
		cfg:   DefaultLoopConfig("me", "server"),
	}
	var out strings.Builder
	lines := bufio.NewScanner(strings.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if line == "status" {
			st := p.loop.Status()
			fmt.Fprintf(&out, "> applied %d, busy %v, failing %v\n", st.Applied, st.Busy, st.Failing)
			continue
		}
		switch line {
		case "mark": // a wait begins
			p.mark = p.loop.Mark()
			continue
		case "waits":
			fmt.Fprintf(&out, "> for %d\n", p.loop.Unsettled(p.mark))
			continue
		}
		for _, e := range p.event(strings.Fields(line)) {
			for _, s := range p.show(e) {
				fmt.Fprintln(&out, ">", s)
			}
		}
	}
	return out.String()
}

func (p *player) entry(text string) manifest.Entry {
	switch text {
	case "gone":
		return manifest.Entry{}
	case "dir":
		return manifest.Entry{Kind: manifest.Dir, Mode: 0o755}
	case "dir700":
		return manifest.Entry{Kind: manifest.Dir, Mode: 0o700}
	}
	if target, ok := strings.CutPrefix(text, "->"); ok {
		return manifest.Entry{Kind: manifest.Symlink, Mode: 0o777, Target: target}
	}
	text, exec := strings.CutSuffix(text, "+x")
	e := manifest.Entry{Kind: manifest.File, Mode: 0o644, Size: int64(len(text)), Digest: manifest.DigestOf([]byte(text))}
	if exec {
		e.Mode = 0o755
	}
	p.texts[e.Digest] = text
	return e
}

func (p *player) number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		p.t.Fatalf("number %q: %v", s, err)
	}
	return n
}

func (p *player) stamp(e manifest.Entry) Stamp {
	p.ino++
	return Stamp{Ino: p.ino, Size: e.Size, MTime: int64(p.ino), CTime: int64(p.ino)}
}

// event plays one line. Settings come before the first event.
func (p *player) event(f []string) []Effect {
	switch f[0] {
	case "ancestor": // PATH TEXT REV
		e := p.entry(f[2])
		p.state.Ancestors.Set(manifest.Path(f[1]), Ancestor{Entry: e, Revision: manifest.Revision(p.number(f[3])), Stamp: p.stamp(e)})
		return nil
	case "committed": // PATH TEXT REV: already in the log, to be seen with the next commit or jump
		p.view.Manifest.Set(manifest.Path(f[1]), manifest.Node{Entry: p.entry(f[2]), Revision: manifest.Revision(p.number(f[3])), Author: "other"})
		p.view.Revision = max(p.view.Revision, manifest.Revision(p.number(f[3])))
		return nil
	case "agreed": // PATH TEXT REV: both of the above
		p.event([]string{"ancestor", f[1], f[2], f[3]})
		return p.event([]string{"committed", f[1], f[2], f[3]})
	case "past": // REV NODE PATH TEXT …: a commit that the next jump brings along
		p.past = append(p.past, p.commit(f).(Committed).Commits...)
		return nil
	case "lately": // REV NODE PATH TEXT …: a commit of the last minute, which the disk has followed
		p.late = append(p.late, p.commit(f).(Committed).Commits...)
		return nil
	case "lost-records":
		p.state.Joiner, p.state.Lost = true, true
		return nil
	case "noted": // PATH GUARD
		p.state.Notes[manifest.Path(f[1])] = Note{Guard: Guard(f[2])}
		return nil
	case "joiner":
		p.state.Joiner = true
		return nil
	case "begun": // a joiner that has died: history says something since "followed"
		p.state.Joiner, p.state.Begun = true, true
		return nil
	case "adopt":
		p.cfg.Adopt = true
		return nil
	case "followed": // REV
		p.state.Followed = manifest.Revision(p.number(f[1]))
		return nil
	case "power-lost":
		p.state.SameBoot = false
		return nil
	case "write": // any | report | repair: what becomes of edits
		p.cfg.Edits = map[string]manifest.Edits{"any": manifest.EditsOffered, "report": manifest.EditsReported, "repair": manifest.EditsRepaired}[f[1]]
		return nil
	case "closed": // it took no edits when it was open last
		p.state.Closed = true
		return nil
	case "placing":
		p.cfg.Placing = true
		return nil
	case "former": // PATH TEXT: stood there in an earlier revision
		path, e, before := manifest.Path(f[1]), p.entry(f[2]), p.cfg.Former
		p.cfg.Former = func(q manifest.Path, d manifest.Entry) bool {
			return q == path && d.SameContent(e) || before != nil && before(q, d)
		}
		return nil
	case "limit": // COUNT PERCENT
		p.cfg.MaxDelete = manifest.DeleteLimit{Count: int(p.number(f[1])), Percent: int(p.number(f[2]))}
		return nil
	}
	if p.loop == nil {
		p.loop = NewLoop(p.cfg, p.state)
	}
	if f[0] == "sleep" {
		d, err := time.ParseDuration(f[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = p.now.Add(d)
		return p.loop.Handle(p.now, Tick{})
	}
	return p.loop.Handle(p.now, p.parse(f))
}

func (p *player) parse(f []string) Event {
	var paths []manifest.Path
	for _, s := range f[1:] {
		paths = append(paths, manifest.Path(s))
	}
	switch f[0] {
	case "start":
		return Tick{}
	case "scanned":
		ev := Scanned{}
		for _, dir := range paths {
			ev.Unread = append(ev.Unread, Trouble{dir, "EIO"})
		}
		return ev
	case "hint":
		return Hinted{Paths: paths}
	case "witness": // PATH …: this machine's file events tell
		return Hinted{Paths: paths, Witnessed: true}
	case "place": // unknown | local | MOUNT [steward] [known] EPOCH
		return p.place(f[1:])
	case "see": // PATH TEXT …
		var ev Looked
		for i := 1; i < len(f); i += 2 {
			ev.Observations = append(ev.Observations, p.observe(manifest.Path(f[i]), f[i+1]))
		}
		return ev
	case "log", "jump": // REV NODE[@MOUNT] PATH TEXT …
		return p.commit(f)
	case "in-force": // BATCH AS-OF: nothing had to be committed
		return Proposed{Batch: p.number(f[1]), Result: manifest.Result{AsOf: manifest.Revision(p.number(f[2]))}}
	case "answer": // BATCH REV [PATH REASON CURRENT] …
		ev := Proposed{Batch: p.number(f[1]), Result: manifest.Result{Revision: manifest.Revision(p.number(f[2]))}}
		for i := 3; i < len(f); i += 3 {
			reason := map[string]manifest.Reason{"conflict": manifest.Conflict, "noparent": manifest.NoParent, "notempty": manifest.NotEmpty, "malformed": manifest.Malformed}[f[i+1]]
			ev.Result.Refused = append(ev.Result.Refused, manifest.Refusal{Path: manifest.Path(f[i]), Reason: reason, Current: manifest.Revision(p.number(f[i+2]))})
		}
		return ev
	case "fail": // BATCH
		return Proposed{Batch: p.number(f[1]), Err: errors.New("no quorum")}
	case "have":
		return Fetched{Have: []manifest.Digest{p.entry(f[1]).Digest}}
	case "lack":
		return Fetched{Failed: []manifest.Digest{p.entry(f[1]).Digest}}
	case "peer-back":
		return PeerBack{}
	case "done", "surprise", "busy", "left", "noroom", "failed":
		return p.stepped(f[0], paths)
	case "lose-root":
		return RootLost{Why: strings.Join(f[1:], " ")}
	case "find-root":
		return RootBack{Fresh: len(f) > 1}
	case "approve", "restore", "retry":
		return Ruling{Verb: map[string]Verb{"approve": Approve, "restore": Restore, "retry": Retry}[f[0]], Paths: paths}
	}
	p.t.Fatalf("unknown event %q", f)
	return nil
}

func (p *player) place(f []string) Placed {
	var ev Placed
	for _, s := range f {
		switch {
		case s == "unknown":
			ev.Unknown = true
		case s == "local":
		case s == "steward":
			ev.Acting = true
		case s == "known":
			ev.Known = true
		case strings.HasPrefix(s, "m"):
			ev.Mount = s
		default:
			ev.Epoch = p.number(s)
		}
	}
	return ev
}

func (p *player) observe(path manifest.Path, text string) Observation {
	switch text {
	case "gone":
		return Observation{Path: path, Sight: Gone}
	case "busy":
		return Observation{Path: path, Sight: Busy, Why: "open for writing"}
	case "unfit":
		return Observation{Path: path, Sight: Unfit, Why: "a FIFO"}
	}
	if left, ok := strings.CutPrefix(text, "resting="); ok { // without leases
		d, err := time.ParseDuration(left)
		if err != nil {
			p.t.Fatal(err)
		}
		return Observation{Path: path, Sight: Busy, Why: "it has to rest", Rest: d}
	}
	e := p.entry(text)
	return Observation{Path: path, Sight: Seen, Entry: e, Stamp: p.stamp(e)}
}

func (p *player) commit(f []string) Event {
	rev := manifest.Revision(p.number(f[1]))
	next := p.view.Manifest.Clone()
	c := manifest.Commit{Revision: rev, ID: manifest.ChangesetID{Node: f[2], Seq: uint64(rev)}, Tree: "server", Origin: manifest.Origin{Kind: manifest.FromTree}}
	if node, mount, ok := strings.Cut(f[2], "@"); ok {
		c.ID.Node, c.Origin = node, manifest.Origin{Kind: manifest.FromMount, ID: mount}
	}
	for i := 3; i < len(f); i += 2 {
		path, e := manifest.Path(f[i]), p.entry(f[i+1])
		old, _ := next.Get(path)
		c.Changes = append(c.Changes, manifest.Committed{Path: path, Old: old, New: e})
		if e.Absent() {
			next.Delete(path)
		} else {
			next.Set(path, manifest.Node{Entry: e, Revision: rev, Author: c.ID.Node})
		}
	}
	p.view = manifest.View{Tree: "server", Revision: rev, Manifest: next}
	ev := Committed{View: p.view, Jump: f[0] == "jump", Commits: p.past, Lately: p.late}
	p.past = nil
	if f[0] != "lately" {
		p.late = nil
	}
	if len(c.Changes) > 0 {
		ev.Commits = append(ev.Commits, c)
	}
	return ev
}

func (p *player) stepped(how string, paths []manifest.Path) Event {
	var ev Applied
	for _, path := range paths {
		s, ok := p.steps[path]
		if !ok {
			p.t.Fatalf("no step for %q is under way", path)
		}
		delete(p.steps, path)
		r := StepResult{Path: path, Outcome: map[string]StepOutcome{"done": StepDone, "surprise": StepSurprise, "busy": StepBusy, "left": StepLeft, "noroom": StepNoRoom, "failed": StepFailed}[how]}
		if r.Outcome == StepNoRoom || r.Outcome == StepFailed {
			r.Err = errors.New(how)
		}
		if r.Outcome == StepDone && s.Op != Remove {
			r.Ancestor = &Ancestor{Entry: s.New.Entry, Revision: s.New.Revision, Author: s.New.Author, Stamp: p.stamp(s.New.Entry)}
		}
		ev.Results = append(ev.Results, r)
	}
	return ev
}

// begins shows what goes first, once.
func (p *player) begins(from *manifest.Revision) []string {
	if from == nil || p.begun {
		return nil
	}
	p.begun = true
	return []string{fmt.Sprintf("from %d on the log is news to this joiner, which comes first:", *from)}
}

// text is the reverse of entry.
func (p *player) text(e manifest.Entry) string {
	switch {
	case e.Absent():
		return "gone"
	case e.IsDir() && e.Mode != 0o755:
		return fmt.Sprintf("dir%o", e.Mode)
	case e.IsDir():
		return "dir"
	case e.Kind == manifest.Symlink:
		return "->" + e.Target
	case e.Mode == 0o755:
		return p.texts[e.Digest] + "+x"
	}
	return p.texts[e.Digest]
}

// show prints an effect; Wakes are left out (sleep plays them).
func (p *player) show(e Effect) (out []string) {
	switch e := e.(type) {
	case Look:
		s := "look"
		for _, at := range e.Paths {
			s += " " + string(at.Path)
		}
		return []string{s}
	case Propose:
		out = p.begins(e.Begun)
		for _, c := range e.Changes {
			out = append(out, fmt.Sprintf("propose %d: %s %s, expecting %d", e.Batch, c.Path, p.text(c.New), c.Expect))
		}
	case Fetch:
		for _, b := range e.Blobs {
			out = append(out, "fetch "+p.texts[b.Digest])
		}
	case Apply:
		out = p.begins(e.Begun)
		for _, s := range e.Steps {
			p.steps[s.Path] = s
			op := map[Op]string{PutFile: "put", PutDir: "mkdir", PutSymlink: "link", SetMode: "chmod", Remove: "remove"}[s.Op]
			line := fmt.Sprintf("%s %s: %s -> %s", op, s.Path, p.text(s.Expect.Entry), p.text(s.New.Entry))
			if s.Aside != nil {
				line += fmt.Sprintf(", %s goes aside: %s", p.text(s.Aside.Lost), s.Aside.Why)
			}
			out = append(out, line)
		}
	case Record:
		for _, u := range e.Updates {
			line := fmt.Sprintf("record %s gone", u.Path)
			if u.Ancestor != nil {
				line = fmt.Sprintf("record %s %s at %d", u.Path, p.text(u.Ancestor.Entry), u.Ancestor.Revision)
			}
			if u.Flush {
				line += ", flushed"
			}
			out = append(out, line)
		}
	case Remember:
		if e.Note == nil {
			return []string{fmt.Sprintf("forget %q", e.Path)}
		}
		return []string{fmt.Sprintf("note %q %s: %s", e.Path, e.Note.Guard, e.Note.Why)}
	case Keep:
		return []string{fmt.Sprintf("keep %s: %s lost to %d: %s", e.Path, p.text(e.Aside.Lost), e.Aside.Winner, e.Aside.Why)}
	case Follow:
		return []string{fmt.Sprintf("follow %d", e.Revision)}
	case Rescan:
		return []string{"rescan"}
	case Joined:
		return []string{"joined"}
	}
	return out
}
