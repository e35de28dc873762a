package target

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/gatesync/gatesync/cluster"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

const (
	// lookEvery is how often Upkeep looks at the log, whatever it hears.
	lookEvery = time.Second
	// verifyEvery is how often a target is compared although nothing was committed.
	verifyEvery = 10 * time.Minute
	// After a failure the next attempt waits so long, doubling.
	retryShortest = 500 * time.Millisecond
	retryLongest  = 20 * time.Second
	// Between two pushes to one target lies as long as the last one took, within
	// these bounds: a target under constant change is compared half of the time.
	restShortest = 200 * time.Millisecond
	restLongest  = 30 * time.Second
	// stalledMost is how long a push may make no progress.
	stalledMost = 10 * time.Minute
)

// UpkeepLog is what Upkeep needs of the log.
type UpkeepLog interface {
	Targets() []cluster.Target
	Trees() []raftstore.TreeInfo
	View(tree string) (manifest.View, bool)
	Since(tree string, after manifest.Revision) ([]manifest.Commit, bool)
	Revision() manifest.Revision
	Incarnation() cluster.Incarnation
	Watch() (<-chan struct{}, func())
}

// UpkeepConfig is what an Upkeep is made of.
type UpkeepConfig struct {
	Self    cluster.NodeID
	Cluster string
	Version string // of the program
	Log     UpkeepLog
	// Read tells whether the log was read up to where it stood at the start: what
	// stands in it before is of the past.
	Read func() bool
	// Open opens content of the cluster. Old is the same for content that may
	// well not be here.
	Open func(ctx context.Context, ref manifest.BlobRef) (io.ReadCloser, error)
	Old  func(d manifest.Digest) (io.ReadCloser, error)
	// SSH is the ssh command of this node with its options; empty: ssh.
	SSH []string
	// Limit bounds what is sent to each target in a second, below what the target's
	// own settings say; 0: it does not.
	Limit int64
	// Dial connects to a listening target; nil: transport.DialTarget.
	Dial   func(ctx context.Context, addr string, tok transport.Token) (net.Conn, error)
	Logger *slog.Logger
}

// Upkeep keeps the targets current that the log assigns to this member, each on
// a goroutine of its own. It looks at what is to stand there, not at how it came
// about: however long a target was away, it is one comparison. Safe for
// concurrent use; Run is called once.
type Upkeep struct {
	cfg   UpkeepConfig
	slots *slots

	mu      sync.Mutex
	keepers map[string]*upheld // by target
}

// NewUpkeep makes one; nothing runs before Run.
func NewUpkeep(cfg UpkeepConfig) *Upkeep {
	if cfg.Dial == nil {
		cfg.Dial = transport.DialTarget
	}
	return &Upkeep{cfg: cfg, slots: newSlots(), keepers: map[string]*upheld{}}
}

// Run keeps the targets current until ctx ends, and waits for what it started.
func (u *Upkeep) Run(ctx context.Context) error {
	news, stop := u.cfg.Log.Watch()
	defer stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		if u.cfg.Read() {
			u.look(ctx, &running)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		case <-tick.C:
		}
	}
}

// look starts and ends keepers as the log says, and tells all of the news.
func (u *Upkeep) look(ctx context.Context, running *sync.WaitGroup) {
	mine := map[string]cluster.Target{}
	for _, t := range u.cfg.Log.Targets() {
		if t.Pusher == u.cfg.Self {
			mine[t.Name] = t
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, k := range u.keepers {
		if t, ok := mine[name]; !ok || !k.same(t) {
			k.cancel() // a successor waits until it has ended
			if !ok && k.over() {
				delete(u.keepers, name)
			}
		}
	}
	for name, t := range mine {
		k := u.keepers[name]
		if k == nil || k.over() {
			k = newUpheld(ctx, u, t)
			u.keepers[name] = k
			running.Go(k.run)
		}
		k.poke()
	}
}

// names are those of all targets of the cluster.
func (u *Upkeep) names() (names []string) {
	for _, t := range u.cfg.Log.Targets() {
		names = append(names, t.Name)
	}
	return names
}

// States tells how the targets are that this member pushes to, by name.
func (u *Upkeep) States() []KeptState {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]KeptState, 0, len(u.keepers))
	for _, name := range slices.Sorted(maps.Keys(u.keepers)) {
		if k := u.keepers[name]; !k.over() {
			out = append(out, k.state())
		}
	}
	return out
}

// Words for how a target is.
const (
	KeptWaiting     = "waiting"     // for its turn
	KeptPushing     = "pushing"     // what is new is on its way
	KeptCurrent     = "current"     // it has what is committed
	KeptPartly      = "partly"      // some paths could not be brought
	KeptRefused     = "refused"     // the target says no: another member would hear the same
	KeptUnreachable = "unreachable" // from this member
)

// KeptState is how one target is.
type KeptState struct {
	Name     string
	Epoch    uint64
	State    string            // one of the words above
	Revision manifest.Revision // that it has; 0: not known to this member
	Held     int               // paths that were made there and are held
	Error    string            // of the last attempt, where it failed
	Since    time.Time         // when State began
	// Failing is since when it could not be reached, or has refused this pusher as
	// one of the past; zero while another pusher would fare no better.
	Failing time.Time
}

// slots bound how many pushes work at once. One that takes long gives its place
// away and goes on; and targets that failed or took long the last time have
// places of their own. So bad targets hold up the others only when there are very
// many at once.
type slots struct{ good, bad, all chan struct{} }

const (
	placesMost = 4 // of each kind
	youngFor   = 5 * time.Second
	slotsMost  = 48
)

func newSlots() *slots {
	return &slots{good: make(chan struct{}, placesMost), bad: make(chan struct{}, placesMost), all: make(chan struct{}, slotsMost)}
}

// take waits for a place; done gives it back.
func (s *slots) take(ctx context.Context, bad bool) (done func(), err error) {
	places := s.good
	if bad {
		places = s.bad
	}
	for _, c := range []chan struct{}{places, s.all} {
		select {
		case c <- struct{}{}:
		case <-ctx.Done():
			if c == s.all {
				<-places
			}
			return nil, ctx.Err()
		}
	}
	aged := sync.OnceFunc(func() { <-places })
	timer := time.AfterFunc(youngFor, aged)
	return func() {
		timer.Stop()
		aged()
		<-s.all
	}, nil
}
