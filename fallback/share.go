package fallback

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/vfs"
)

// Share is a directory on a mount that several nodes see, as a place to lay
// content down for the others: the author writes a parcel of blobs there once,
// the others read it. It carries and keeps nothing: what it brings is trusted
// after its digest only, receipts are given for the own store alone, and when
// it is gone nothing is lost but the way.
//
// The directory is opened once and everything goes by that descriptor: a
// mount that vanishes takes it along, and nothing is ever written into the
// empty directory below. Every call into it goes through a gate, so that a
// mount that hangs costs its callers seconds, once.
//
// Run looks after it; the rest may be called by many goroutines. No lock is
// held while the mount is asked.
type Share struct {
	path    string
	cluster string
	self    cluster.NodeID
	gate    *vfs.Gate
	log     *slog.Logger
	limits  shareLimits
	// told names the nonces that the other members say to have written on
	// theirs; none while they cannot use it.
	told  func() map[cluster.NodeID]string
	apart func(real string) error // see ShareConfig

	laid, taken moved
	kick        chan struct{} // wakes Run

	mu     sync.Mutex
	top    *os.Root // the share's directory; nil while it cannot be used
	dir    *os.Root // the cluster's directory in it
	nonce  string   // written there by this node; "" as long as top is nil
	why    string   // why it cannot be used, "" while it can
	since  time.Time
	fails  int                       // calls into it that failed, since a parcel was laid or taken
	free   int64                     // bytes on it, as of the last look
	proved map[cluster.NodeID]string // nonces that were found here
	doubts map[cluster.NodeID]doubt
	mine   map[string]*parcel // laid by this run, and still there
	held   int64              // bytes of mine
	said   string             // the last trouble that was logged
	wrong  map[string]bool    // parcels with wrong bytes, each logged once
}

// doubt is a peer that could not read what was laid down for it.
type doubt struct {
	until time.Time
	pause time.Duration
	why   string
}

// shareLimits are waits and bounds; tests shorten them.
type shareLimits struct {
	beat     time.Duration // between looks while all is well …
	retry    time.Duration // … and while something is to be found out
	patience time.Duration // for one call into the mount
	flush    time.Duration // for one flush of some megabytes
	grace    time.Duration // before a slow transfer is judged
	pace     int64         // bytes a second below which it is given up
	keep     time.Duration // what not everybody has taken stays so long
	orphan   time.Duration // what a dead node left stays so long
	upkeep   time.Duration // between collections of what dead nodes left
	doubt    time.Duration // before a peer is offered a parcel again; doubles
	most     int64         // bytes of this node's parcels at a time
	reserve  int64         // bytes that stay free
}

func defaultShareLimits() shareLimits {
	return shareLimits{
		beat: 5 * time.Second, retry: time.Second, patience: 2 * time.Second, flush: 5 * time.Second,
		grace: 2 * time.Second, pace: 1 << 20, keep: time.Minute, orphan: 2 * time.Hour, upkeep: time.Hour,
		doubt: 5 * time.Second, most: 4 << 30, reserve: 64 << 20,
	}
}

// maxDoubt bounds the pauses of a doubt and of a share that cannot be written.
const maxDoubt = time.Minute

// ShareConfig is what a Share is made of.
type ShareConfig struct {
	Path    string // of the directory
	Cluster string // id: several clusters may use one share
	Self    cluster.NodeID
	Told    func() map[cluster.NodeID]string // see Share
	// Apart refuses the place that the path leads to, where something else lies in
	// it or around it; nil: never. It is asked at each look.
	Apart func(real string) error
	Log   *slog.Logger // nil: silent
}

// NewShare makes the share of a node. Nothing is asked of the mount before Run.
func NewShare(c ShareConfig) *Share {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Share{
		path: c.Path, cluster: c.Cluster, self: c.Self, told: c.Told, apart: c.Apart, log: c.Log, kick: make(chan struct{}, 1),
		why: "not looked at yet", since: time.Now(), proved: map[cluster.NodeID]string{}, doubts: map[cluster.NodeID]doubt{},
		mine: map[string]*parcel{}, wrong: map[string]bool{},
	}
	if s.apart == nil {
		s.apart = func(string) error { return nil }
	}
	s.limit(defaultShareLimits())
	return s
}

func (s *Share) limit(l shareLimits) {
	s.limits = l
	s.gate = vfs.NewGate(s.path).WithPatience(l.patience, l.flush)
}

// Run keeps the share open while it can be used and finds it again when it is
// back, until ctx ends. It waits for no call that hangs.
func (s *Share) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.gate.Hurry)
	defer stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var upkeep time.Time
	for tries := 0; ; tries++ {
		select {
		case <-ctx.Done():
			s.lose(errors.New("the node is shutting down"))
			return nil
		case <-timer.C:
		case <-s.kick: // a call has failed: not at once, it may have been for a reason
			tries = 0
			timer.Reset(s.rest(s.limits.retry))
			continue
		}
		err := s.beat()
		if err == nil && time.Since(upkeep) >= s.limits.upkeep {
			if err = s.upkeep(); err == nil {
				upkeep = time.Now()
			}
		}
		if err != nil {
			s.lose(err)
		}
		pause := s.limits.beat
		if err != nil || s.strangers() > 0 && tries < 30 {
			pause = s.limits.retry
		}
		timer.Reset(s.rest(pause))
	}
}

// rest is the pause before the next look: longer where the share can be read
// and every attempt to write fails.
func (s *Share) rest(pause time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != "" && s.fails > 1 {
		pause = max(pause, min(s.limits.doubt<<min(s.fails-2, 8), maxDoubt))
	}
	return pause
}

// beat looks whether the share is what it was, opening it where need be, and
// who else sees it.
func (s *Share) beat() error {
	top, _ := s.opened()
	if top == nil {
		if err := s.open(); err != nil {
			return err
		}
		top, _ = s.opened()
	} else if err := s.apart(s.gate.Real()); err != nil {
		return err
	}
	free, err := vfs.Pass(s.gate, "look", func() (int64, error) { return look(top, s.path) }, nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.free = free
	s.mu.Unlock()
	s.expire()
	return s.recognize()
}

// look tells whether path still names the opened directory, and how much room
// its filesystem has.
func look(top *os.Root, path string) (free int64, err error) {
	f, err := top.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	opened, err := f.Stat()
	if err != nil {
		return 0, err
	}
	named, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if !os.SameFile(opened, named) {
		return 0, errors.New("something else is mounted there now")
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// recognize looks for the nonces of the other members. A nonce is the name of
// a file that is told only once it stands, so nobody ever asks for it before:
// an NFS client would remember for half a minute that it was not there.
func (s *Share) recognize() error {
	_, dir := s.opened()
	for id, nonce := range s.told() {
		if id == s.self || nonce == "" || s.known(id) == nonce || !nonceName(nonce) {
			continue
		}
		_, err := vfs.Pass(s.gate, "look for "+string(id), func() (fs.FileInfo, error) { return dir.Lstat(nodesDir + "/" + nonceFile(id, nonce)) }, nil)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			s.mu.Lock()
			s.proved[id] = nonce
			delete(s.doubts, id)
			s.mu.Unlock()
			s.log.Info("a member sees the same share", "path", s.path, "member", string(id))
		}
	}
	return nil
}

func (s *Share) known(id cluster.NodeID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proved[id]
}

// strangers counts the members that say to have a share and were not found on
// this one.
func (s *Share) strangers() (n int) {
	for id, nonce := range s.told() {
		if id != s.self && nonce != "" && s.known(id) != nonce {
			n++
		}
	}
	return n
}

// sees picks from nodes those that are known to see this very directory, and
// that could read what was laid down for them.
func (s *Share) sees(nodes []cluster.NodeID) (out []cluster.NodeID) {
	told := s.told()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != "" {
		return nil
	}
	for _, id := range nodes {
		if n := told[id]; n != "" && n == s.proved[id] && !time.Now().Before(s.doubts[id].until) {
			out = append(out, id)
		}
	}
	return out
}

// doubted notes that a peer could not read what was laid down for it.
func (s *Share) doubted(id cluster.NodeID, why string) {
	s.mu.Lock()
	d := s.doubts[id]
	fresh := d.why == ""
	d.pause = min(max(2*d.pause, s.limits.doubt), maxDoubt)
	d.until, d.why = time.Now().Add(d.pause), why
	s.doubts[id] = d
	s.mu.Unlock()
	if fresh {
		s.log.Info("a member could not read from the share: it is sent the content instead", "path", s.path, "member", string(id), "why", fmt.Sprintf("%.300s", why))
	}
}

// served notes that a peer has read a parcel.
func (s *Share) served(id cluster.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doubts, id)
}

// opened returns the directories; nil while the share cannot be used.
func (s *Share) opened() (top, dir *os.Root) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.top, s.dir
}

// lose gives the share up until a look finds it well again.
func (s *Share) lose(err error) {
	s.mu.Lock()
	top, dir := s.top, s.dir
	s.top, s.dir, s.nonce = nil, nil, ""
	if s.why == "" || top != nil {
		s.since = time.Now()
	}
	s.why = err.Error() + remedy(err)
	said := s.said
	s.said = reason(err)
	fresh := s.said != said
	s.mu.Unlock()
	if fresh {
		s.log.Warn("the share cannot be used: content is pushed instead", "path", s.path, "err", err.Error()+remedy(err))
	}
	if top != nil {
		_ = s.gate.Close("close", func() error { return errors.Join(dir.Close(), top.Close()) })
	}
}

// remedy says what a person can do about a failure that ends by itself then.
func remedy(err error) string {
	switch {
	case errors.Is(err, unix.EROFS):
		return ": export and mount it writable"
	case errors.Is(err, fs.ErrPermission):
		return ": the daemon's user has to be able to write there, and be the same on all nodes (root_squash makes root nobody)"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return ": free some room there"
	case errors.Is(err, unix.ESTALE):
		return ": unmount it and mount it anew"
	}
	return ""
}

// reason is a failure without what changes from time to time: a file that cannot
// be written has another name at each attempt.
func reason(err error) string {
	var hung *vfs.HungError
	var errno unix.Errno
	switch {
	case errors.As(err, &hung):
		return vfs.ErrHung.Error()
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

// trouble is told that a call into the share failed, and has it looked at.
func (s *Share) trouble(err error) {
	s.mu.Lock()
	s.fails++
	s.mu.Unlock()
	s.lose(err)
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Nonce is what this node has written on the share, for the others to find; ""
// while it cannot use it.
func (s *Share) Nonce() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nonce
}

// Close lets go of the directory, after Run.
func (s *Share) Close() error {
	s.gate.Hurry()
	top, dir := s.opened()
	if top == nil {
		return nil
	}
	s.mu.Lock()
	s.top, s.dir = nil, nil
	s.mu.Unlock()
	return s.gate.Close("close", func() error { return errors.Join(dir.Close(), top.Close()) })
}

// ShareStatus tells about the share.
type ShareStatus struct {
	Path   string
	Why    string                    // why it cannot be used, "" while it can
	Since  time.Time                 // of this state
	Peers  []cluster.NodeID          // that see the same directory
	Laid   Moved                     // written there by this node
	Taken  Moved                     // read from there by this node
	Held   int64                     // bytes of this node that lie there
	Stuck  int                       // calls that have got no answer yet
	Doubts map[cluster.NodeID]string // members that could not read lately, and why
}

// Status asks nothing of the mount.
func (s *Share) Status() ShareStatus {
	told, stuck := s.told(), s.gate.Stuck()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := ShareStatus{
		Path: s.path, Why: s.why, Since: s.since, Laid: s.laid.read(), Taken: s.taken.read(), Held: s.held, Stuck: stuck,
		Doubts: map[cluster.NodeID]string{},
	}
	for id, nonce := range told {
		if nonce != "" && s.proved[id] == nonce {
			st.Peers = append(st.Peers, id)
		}
	}
	slices.SortFunc(st.Peers, func(a, b cluster.NodeID) int { return cmp.Compare(a, b) })
	for id, d := range s.doubts {
		st.Doubts[id] = d.why
	}
	return st
}

// newNonce makes a name that nobody had before.
func newNonce() string { return rand.Text() }

// nonceName tells whether a peer's nonce can be a name in a directory.
func nonceName(n string) bool {
	return len(n) <= 64 && !slices.ContainsFunc([]byte(n), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}
