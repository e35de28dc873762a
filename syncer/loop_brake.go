package syncer

import (
	"fmt"
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// The brake holds deletions that are too many within a minute, or that leave the
// tree empty, until a person says so (manifest.MassDeletion).
//
// A settled absence is a candidate. Candidates are gathered until nothing more is
// looked at, and judged together. Whatever this disk takes out of the tree counts
// once, in one of two ways: it is in hand while it is still committed (a candidate,
// held, or on its way to the log), and recent once the log has it. What the log
// says is all that makes it recent, so that no lost answer and no restart hides it.
//
// A move is no deletion: the same content has come to another place, and stands
// there. Each place is good for one move.
type brake struct {
	candidates pathSet
	first      time.Time // sighting of the run that is under way
	last       time.Time // sighting of it
	recent     []sighting
	places     map[manifest.Path]sighting      // where content has come to within the window
	moves      map[manifest.Path]manifest.Path // what is in hand and judged to be a move: whereto
	uncounted  []manifest.Commit               // until it is known which other nodes have this disk
	swept      time.Time                       // when places was last rid of what is old
	came       bool                            // a place, since held deletions were last compared with them
}

// sighting is a file or a symlink that came or went.
type sighting struct {
	at   time.Time
	what content
	used bool // of a place: a move went there
}

// content is what a move takes along.
type content struct {
	kind   manifest.Kind
	digest manifest.Digest
	target string
}

func whatOf(e manifest.Entry) content { return content{e.Kind, e.Digest, e.Target} }

func newBrake() brake {
	return brake{
		candidates: pathSet{}, places: map[manifest.Path]sighting{}, moves: map[manifest.Path]manifest.Path{},
	}
}

// saw notes the first sighting of an absence.
func (b *brake) saw(now time.Time, quiet time.Duration) {
	if b.first.IsZero() || len(b.candidates) == 0 && now.Sub(b.last) > quiet {
		b.first = now
	}
	b.last = now
}

// add makes a settled absence a candidate for deletion. What it was judged to be
// before says nothing any more.
func (b *brake) add(p manifest.Path, now time.Time) {
	b.candidates.add(p)
	delete(b.moves, p)
	if b.first.IsZero() {
		b.saw(now, 0)
	}
}

func (b *brake) drop(p manifest.Path) { b.candidates.drop(p) }

// void forgets what was seen of a root that is lost. What the log has of it counts on.
func (b *brake) void() {
	b.candidates = pathSet{}
	b.first, b.last = time.Time{}, time.Time{}
}

// appeared notes that a file or a symlink has come to p.
func (b *brake) appeared(p manifest.Path, e manifest.Entry, now time.Time, window time.Duration) {
	if !e.IsLeaf() {
		return
	}
	was := b.places[p]
	b.places[p] = sighting{at: now, what: whatOf(e), used: was.used && was.what == whatOf(e)}
	b.came = true
	if now.Sub(b.swept) > window {
		b.expire(now, window)
	}
}

// expire forgets what lies outside the window.
func (b *brake) expire(now time.Time, window time.Duration) {
	old := func(s sighting) bool { return s.at.Add(window).Before(now) }
	b.recent = slices.DeleteFunc(b.recent, old)
	for p, s := range b.places {
		if old(s) {
			delete(b.places, p)
		}
	}
	b.swept = now
}

// free lists the places that are good for a move, by content, in order of path.
func (b *brake) free(stands func(manifest.Path, content) bool) map[content][]manifest.Path {
	meant := pathSet{}
	for _, to := range b.moves {
		meant.add(to)
	}
	free := map[content][]manifest.Path{}
	for p, s := range b.places {
		if !s.used && !meant.has(p) && stands(p, s.what) {
			free[s.what] = append(free[s.what], p)
		}
	}
	for _, places := range free {
		slices.SortFunc(places, manifest.Compare)
	}
	return free
}

// use ends a move that was committed.
func (b *brake) use(place manifest.Path) {
	if s, ok := b.places[place]; ok {
		s.used = true
		b.places[place] = s
	}
}

// countCommits counts what the log says, once it is known of whose disks it speaks.
func (l *Loop) countCommits(commits []manifest.Commit) {
	if l.place.Unknown {
		l.brake.uncounted = append(l.brake.uncounted, commits...)
		return
	}
	for _, c := range commits {
		l.countCommit(c)
	}
}

// countCommit takes from the log what this disk (that of a mount: by whichever of
// its nodes) has put into the tree and taken out of it.
func (l *Loop) countCommit(c manifest.Commit) {
	if !l.ours(c) {
		return
	}
	b := &l.brake
	var went []manifest.Committed
	for _, ch := range c.Changes {
		was, is := ch.Old.Entry.IsLeaf(), ch.New.IsLeaf()
		switch {
		case is && !was:
			if s := b.places[ch.Path]; s.what != whatOf(ch.New) {
				b.appeared(ch.Path, ch.New, l.now, l.cfg.Window)
			}
		case was && !is:
			went = append(went, ch)
			delete(b.places, ch.Path)
		}
	}
	for _, ch := range went {
		to, moved := b.moves[ch.Path]
		delete(b.moves, ch.Path)
		switch {
		case moved:
			b.use(to)
		case l.rulings[ch.Path] == Approve: // a person has said so
		default:
			b.recent = append(b.recent, sighting{at: l.now, what: whatOf(ch.Old.Entry)})
		}
	}
	if len(b.recent) == 0 {
		return
	}
	// A move is one also where it was not seen as such: another node's, or one whose
	// place came later.
	missed := map[content]bool{}
	for _, s := range b.recent {
		missed[s.what] = true
	}
	free := b.free(func(p manifest.Path, what content) bool {
		return missed[what] && whatOf(l.view.Manifest.Entry(p)) == what
	})
	b.recent = slices.DeleteFunc(b.recent, func(s sighting) bool {
		places := free[s.what]
		if len(places) == 0 {
			return false
		}
		b.use(places[0])
		free[s.what] = places[1:]
		return true
	})
}

// judgeDeletes lets a run of deletions pass or holds it, once it is complete. Moves
// pass, whatever the rest is.
func (l *Loop) judgeDeletes() {
	l.releaseMoves()
	l.judgeUnsent()
	b := &l.brake
	if len(b.candidates) == 0 {
		return
	}
	if at := l.judgeAt(); l.now.Before(at) {
		l.timers.add(at, "")
		return
	}
	b.expire(l.now, l.cfg.Window)
	l.judgeAgain()
	count := l.countDeletes()
	mass := manifest.MassDeletion(l.cfg.MaxDelete, count)
	why := describe(count.Pending+count.Recent, count.Present+count.Recent)
	for _, p := range b.candidates.sorted() {
		if _, moved := b.moves[p]; mass && !moved {
			l.hold(l.works.get(p), GuardMassDelete, why, manifest.Entry{})
			continue
		}
		l.removals.add(p)
	}
	b.void()
}

// judgeAt is when the run that is under way is to be judged: once it has been
// quiet for the settling time and nothing is looked at any more, for judged apart, a
// few would pass before the rest is found to be too many; but not after too long.
func (l *Loop) judgeAt() time.Time {
	quietAt, mostAt := l.brake.last.Add(l.cfg.Settle), l.brake.first.Add(l.cfg.Burst)
	switch {
	case l.now.Before(quietAt) && quietAt.Before(mostAt):
		return quietAt
	case l.now.Before(quietAt), l.stillLooking():
		return mostAt
	}
	return l.now
}

// judgeAgain takes back the deletions that were judged and could not be sent so
// far: without quorum they would gather one by one, each of them few.
func (l *Loop) judgeAgain() {
	for p := range l.removals {
		l.takeBack(p)
	}
}

// takeBack makes a deletion that was judged a candidate again.
func (l *Loop) takeBack(p manifest.Path) {
	if l.rulings[p] != Approve {
		l.removals.drop(p)
		l.brake.candidates.add(p)
		delete(l.brake.moves, p)
	}
}

// judgeUnsent has what was judged and not sent so far judged anew before the next
// batch, but for moves of which the place stands: meanwhile a directory may have been
// moved and removed there, or what was to stay have become a directory. What waits
// for long, with nothing else to send, are directories, and those do not count.
func (l *Loop) judgeUnsent() {
	if l.lane != 0 {
		return
	}
	for p := range l.removals {
		was := l.view.Manifest.Entry(p)
		to, moved := l.brake.moves[p]
		if was.IsLeaf() && (!moved || !l.stood(to, whatOf(was))) {
			l.takeBack(p)
		}
	}
}

// countDeletes counts what the guard judges by, and notes which of the candidates
// are moves.
func (l *Loop) countDeletes() manifest.Deletions {
	inHand := l.inHand()
	for p := range l.brake.moves {
		if inHand[p] != underWay {
			delete(l.brake.moves, p) // it was called off
		}
	}
	fresh := l.findMoves(inHand)
	leaving, counted, candidates := 0, 0, 0
	for p, how := range inHand {
		leaving++
		if _, moved := l.brake.moves[p]; moved || l.rulings[p] == Approve {
			continue
		}
		counted++
		if how == candidate {
			candidates++
		}
	}
	if candidates == 0 {
		return manifest.Deletions{}
	}
	left := l.present() - leaving + l.coming(fresh)
	return manifest.Deletions{Pending: counted, Recent: len(l.brake.recent), Present: left + counted}
}

// hand says where the loss of a file stands that the log does not know yet.
type hand uint8

const (
	candidate hand = iota + 1
	heldBack
	underWay
)

// inHand lists the committed files (and symlinks) that are gone from this disk, or
// have become directories, which takes them away as well.
func (l *Loop) inHand() map[manifest.Path]hand {
	in := map[manifest.Path]hand{}
	add := func(p manifest.Path, how hand) {
		if l.view.Manifest.Entry(p).IsLeaf() {
			in[p] = how
		}
	}
	for p, n := range l.notes {
		if n.Guard == GuardMassDelete && n.Entry.Absent() {
			add(p, heldBack)
		}
	}
	l.works.each(func(w *work) bool {
		sent := w.sent != nil && !w.sent.IsLeaf() && (w.phase == offered || w.phase == awaiting)
		open := w.unsent && w.sent != nil && !w.sent.IsLeaf() && (!w.goneAt.IsZero() || w.obs.Entry.IsDir()) // nobody knows what became of the offer
		queued := l.removals.has(w.path) || l.queue.has(w.path) && w.obs.Entry.IsDir()
		if sent || open || queued {
			add(w.path, underWay)
		}
		return true
	})
	for p := range l.brake.candidates {
		add(p, candidate)
	}
	return in
}

// findMoves notes whereto the candidates have moved, and what became a directory,
// and returns the places.
func (l *Loop) findMoves(inHand map[manifest.Path]hand) pathSet {
	fresh, free := pathSet{}, l.brake.free(l.stands)
	var from []manifest.Path
	for p, how := range inHand {
		w := l.works.get(p)
		if _, known := l.brake.moves[p]; !known && how != heldBack && (how == candidate || w.obs.Entry.IsDir()) {
			from = append(from, p)
		}
	}
	slices.SortFunc(from, manifest.Compare)
	for _, p := range from {
		what := whatOf(l.view.Manifest.Entry(p))
		gone := l.works.get(p).goneAt
		k := slices.IndexFunc(free[what], func(to manifest.Path) bool { return !l.stoodUntil(to).Before(gone) })
		if k < 0 {
			continue
		}
		to := free[what][k]
		free[what] = slices.Delete(free[what], k, k+1)
		l.brake.moves[p] = to
		fresh.add(to)
	}
	return fresh
}

// stoodUntil is until when it is known that a place held what came there. On a disk
// that other machines write to nobody tells what has become of a path that is
// offered since it was seen, so there it is good for what was missed before that only.
func (l *Loop) stoodUntil(place manifest.Path) time.Time {
	if _, agreed := l.anc.Get(place); l.shared() && !agreed {
		return l.brake.places[place].at
	}
	return l.now
}

// stands tells whether p still holds some content, as far as anybody has seen:
// what came and went again is no move of anything; nor is what the log has taken
// away since, which this disk is about to follow, nor what waits for a directory to
// be cleared, and may be held with what stood in it, nor what loses to another file.
func (l *Loop) stands(p manifest.Path, what content) bool {
	w := l.works.get(p)
	return (w == nil || !w.again) && l.stood(p, what)
}

// stood tells the same of the last look, whatever has been heard since.
func (l *Loop) stood(p manifest.Path, what content) bool {
	a, _ := l.anc.Get(p)
	e := a.Entry
	c := l.view.Manifest.Entry(p)
	if whatOf(c) != what && (!c.Absent() || whatOf(e) == what) {
		return false
	}
	if w := l.works.get(p); w != nil {
		if !w.goneAt.IsZero() || w.obs.Sight == Gone {
			return false
		}
		if w.obs.Sight == Seen {
			e = w.obs.Entry
		}
	} else if n, held := l.notes[p]; held && n.Entry.Absent() {
		return false
	}
	return whatOf(e) == what
}

// releaseMoves has held deletions judged anew whose content was found in another
// place since: a move, of which the new places were long in being read.
func (l *Loop) releaseMoves() {
	if !l.brake.came {
		return
	}
	l.brake.came = false
	var held []manifest.Path
	for p, n := range l.notes {
		if n.Guard == GuardMassDelete && n.Entry.Absent() && l.rulings[p] == 0 {
			held = append(held, p)
		}
	}
	if len(held) == 0 {
		return
	}
	free := l.brake.free(l.stands)
	slices.SortFunc(held, manifest.Compare)
	for _, p := range held {
		what := whatOf(l.view.Manifest.Entry(p))
		if places := free[what]; len(places) > 0 {
			free[what] = places[1:]
			l.forget(p)
			l.hint(p)
		}
	}
}

// coming counts the files that are offered, or about to be, where none is
// committed, the places of fresh moves among them: what they are put in the place
// of does not leave the tree empty. Only what was seen a moment ago counts: that it
// has gone since may be an event that was lost. Of a disk that other machines write
// to nobody tells what has become of it: there, what was sent does not count, and the
// place of a move for that moment only.
func (l *Loop) coming(fresh pathSet) (n int) {
	lately := func(p manifest.Path) bool {
		return l.now.Sub(l.brake.places[p].at) <= unseenSettle*l.cfg.Settle
	}
	for p := range fresh {
		if !l.view.Manifest.Entry(p).IsLeaf() && (!l.shared() || lately(p)) {
			n++
		}
	}
	l.works.each(func(w *work) bool {
		queued := l.queue.has(w.path) || l.bigQueue.has(w.path)
		sent := !l.shared() && (w.phase == offered || w.phase == awaiting)
		if (queued || sent) && lately(w.path) && !w.again && !fresh.has(w.path) && w.obs.Entry.IsLeaf() && !l.view.Manifest.Entry(w.path).IsLeaf() {
			n++
		}
		return true
	})
	return n
}

// present counts the committed files and symlinks.
func (l *Loop) present() (n int) {
	l.view.Manifest.All(func(_ manifest.Path, node manifest.Node) bool {
		if node.Entry.IsLeaf() {
			n++
		}
		return true
	})
	return n
}

// stillLooking tells whether any path is to be looked at or under a look, now or
// as soon as what is under way for it has ended, but for those that somebody
// keeps busy.
func (l *Loop) stillLooking() (looks bool) {
	l.works.each(func(w *work) bool {
		looks = w.again || w.phase == looking || w.phase == toLook && !w.stuck()
		return !looks
	})
	return looks
}

// describe counts for people.
func describe(pending, present int) string {
	return fmt.Sprintf("%d of %d files disappeared within a minute", pending, present)
}
