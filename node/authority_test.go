package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
	"github.com/gatesync/gatesync/transport"
)

// contents reads every file below some directories.
func contents(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				all[path] = "directory"
				return err
			}
			b, err := os.ReadFile(path)
			all[path] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestNextCA(t *testing.T) {
	idle := raftstore.Authorities{Signing: raftstore.Authority{Fingerprint: "old"}}
	incoming := raftstore.Authorities{
		Signing: raftstore.Authority{Fingerprint: "old"}, Incoming: true,
		Also: &raftstore.Authority{Fingerprint: "new", Cross: []byte("word")},
	}
	unbridged := incoming
	unbridged.Also = &raftstore.Authority{Fingerprint: "new"}
	outgoing := raftstore.Authorities{
		Signing: raftstore.Authority{Fingerprint: "new", Cross: []byte("word")},
		Also:    &raftstore.Authority{Fingerprint: "old"},
	}
	m := func(name, trusts, issuer string) caMember {
		return caMember{name: name, alive: true, trusts: strings.Fields(trusts), issuer: issuer}
	}
	down := func(m caMember) caMember { m.alive = false; return m }
	for name, c := range map[string]struct {
		a           raftstore.Authorities
		members     []caMember
		step        caStep
		waits, dead string
	}{
		"nothing to do":          {idle, []caMember{m("a", "old", "old")}, caNothing, "", ""},
		"nobody known":           {incoming, nil, caNothing, "", ""},
		"one has not heard":      {incoming, []caMember{m("a", "old new", "old"), m("b", "old", "old")}, caNothing, "b", ""},
		"one has said nothing":   {incoming, []caMember{m("a", "old new", "old"), m("b", "", "")}, caNothing, "b", ""},
		"all trust it":           {incoming, []caMember{m("a", "old new", "old"), m("b", "old new", "old")}, caUse, "", ""},
		"the dead come back":     {incoming, []caMember{m("a", "old new", "old"), down(m("b", "old", "old"))}, caUse, "", "b"},
		"dead, and no way back":  {unbridged, []caMember{m("a", "old new", "old"), down(m("b", "old", "old"))}, caNothing, "", "b"},
		"dead, but it had heard": {unbridged, []caMember{m("a", "old new", "old"), down(m("b", "old new", "old"))}, caUse, "", ""},
		"one has not renewed":    {outgoing, []caMember{m("a", "new old", "new"), m("b", "new old", "old")}, caNothing, "b", ""},
		"a dead one has not":     {outgoing, []caMember{m("a", "new old", "new"), down(m("b", "old", "old"))}, caNothing, "", "b"},
		"a dead one had":         {outgoing, []caMember{m("a", "new old", "new"), down(m("b", "new old", "new"))}, caDrop, "", ""},
		"all have renewed":       {outgoing, []caMember{m("a", "new old", "new"), m("b", "new old", "new")}, caDrop, "", ""},
	} {
		step, waits, dead := nextCA(c.a, c.members)
		if step != c.step || strings.Join(waits, " ") != c.waits || c.step != caUse && strings.Join(dead, " ") != c.dead {
			t.Errorf("%s: step %d, waits for %v, down %v; want %d, %q, %q", name, step, waits, dead, c.step, c.waits, c.dead)
		}
	}
}

func (g *gateway) rotateCA(finish bool) error {
	return g.local(func(ctx context.Context, c pb.LocalClient) error {
		_, err := c.RotateCA(ctx, &pb.RotateCARequest{Finish: finish})
		return err
	})
}

// rotated waits until nodes say that no CA is being replaced and that their
// certificates are of another one than before; it returns that one.
func rotated(t *testing.T, before string, nodes ...*gateway) (print string) {
	t.Helper()
	eventually(t, func() error {
		for _, g := range nodes {
			s, err := g.status()
			if err != nil {
				return err
			}
			if print = s.CA.Fingerprint; s.CA.Replacing != nil || print == before {
				return errors.New(g.cfg.Name + " is not done")
			}
		}
		return nil
	})
	return print
}

// The CA is replaced while one node is down. That node comes back with the
// certificate and the CA file that it had, and only then the old CA goes.
func TestPromise_Available_CAReplacedWhileANodeIsDown(t *testing.T) {
	t.Parallel()
	g := trio(t)
	s, err := g[0].status()
	if err != nil {
		t.Fatal(err)
	}
	old := s.CA.Fingerprint
	early := g[1].token(time.Hour, 1)
	g[2].stop()
	if err := g[1].rotateCA(false); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		s, err := g[0].status()
		if err != nil {
			return err
		}
		if c := s.CA.Replacing; c == nil || c.Step != "renew" || len(c.Waits) > 0 || !slices.Equal(c.Dead, []string{"gw3"}) || s.CA.Fingerprint == old {
			return errors.New("the living are not done")
		}
		return nil
	})
	if err := g[0].rotateCA(false); err == nil || !strings.Contains(err.Error(), "being replaced already") {
		t.Errorf("a second replacement at the same time: %v", err)
	}
	g[0].write("meanwhile.xml", "written between two CAs")
	everywhere(t, "meanwhile.xml", "written between two CAs", g[0], g[1])

	// A token that was made before is good as long as its CA is trusted.
	fourth := newGateway(t, "gw4")
	if err := fourth.join(g[0], early); err != nil {
		t.Fatalf("a token of the old CA: %v", err)
	}
	fourth.run()
	everywhere(t, "meanwhile.xml", "written between two CAs", fourth)

	g[2].run()
	everywhere(t, "meanwhile.xml", "written between two CAs", g[2])
	fresh := rotated(t, old, g[0], g[1], g[2], fourth)
	g[2].write("after.xml", "of the new CA")
	everywhere(t, "after.xml", "of the new CA", g[0], g[1], fourth)
	for _, n := range []*gateway{g[0], fourth} {
		eventually(t, func() error { // first the log says so, then each writes its file
			id, err := transport.LoadIdentity(identityFiles(n.cfg))
			if err == nil && !slices.Equal(id.Trusted(), []string{fresh}) {
				err = fmt.Errorf("%s trusts %v; want the new CA alone", n.cfg.Name, id.Trusted())
			}
			return err
		})
	}
	if err := g[0].rotateCA(true); err == nil {
		t.Error("there was an old CA to drop")
	}
}

// The old CA is dropped without a node that is down: its certificate is
// refused, and it is told what to do.
func TestRotateCAFinishedWithoutADeadNode(t *testing.T) {
	t.Parallel()
	g := trio(t)
	s, err := g[0].status()
	if err != nil {
		t.Fatal(err)
	}
	g[2].stop()
	if err := g[0].rotateCA(false); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_ = g[0].rotateCA(true) // refused until the living have renewed
		s, err := g[0].status()
		if err == nil && s.CA.Replacing != nil {
			err = errors.New("not dropped")
		}
		return err
	})
	rotated(t, s.CA.Fingerprint, g[0], g[1])
	id, err := transport.LoadIdentity(identityFiles(g[2].cfg))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // first the log says so, then each trusts the old CA no more
		conn, _, err := transport.DialAs(t.Context(), g[0].address(), id, s.Cluster, transport.Instance{})
		var wrong *transport.WrongClusterError
		switch {
		case err == nil:
			return errors.Join(errors.New("the certificate of the old CA is good"), conn.Close())
		case !errors.As(err, &wrong) || !strings.Contains(err.Error(), "join"):
			return fmt.Errorf("the certificate of the old CA: %w", err)
		}
		return nil
	})
}

// ---- the renewer, on a clock of its own

// caFake is a log whose CA can be exchanged.
type caFake struct {
	a  raftstore.Authorities
	ch chan struct{}
}

func (f *caFake) Cluster() (string, []byte, []byte)     { return "c-1", f.a.Signing.Cert, f.a.Key }
func (f *caFake) Authorities() raftstore.Authorities    { return f.a }
func (f *caFake) Watch() (ch <-chan struct{}, _ func()) { return f.ch, func() {} }

func newAuthority(t *testing.T) (raftstore.Authority, []byte) {
	t.Helper()
	cert, key, err := transport.NewCA("c-1")
	if err != nil {
		t.Fatal(err)
	}
	print, err := transport.Fingerprint(cert)
	if err != nil {
		t.Fatal(err)
	}
	return raftstore.Authority{Cert: cert, Fingerprint: print}, key
}

// newRenewer is a node whose log holds its CA.
func newRenewer(t *testing.T, life time.Duration) (*renewer, *caFake, *time.Time) {
	t.Helper()
	log := &caFake{}
	log.a.Signing, log.a.Key = newAuthority(t)
	now := time.Now()
	files := dataDir(t.TempDir()).tls()
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(csr []byte) (*pb.RenewResponse, error) {
		ca, trusted, err := signing(log, life)
		if err != nil {
			return nil, err
		}
		cert, err := ca.Sign(csr, "n-1", "gw1", now)
		return &pb.RenewResponse{CertPem: cert, CaPem: trusted}, err
	}
	csr, err := transport.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	first, err := sign(csr)
	if err != nil {
		t.Fatal(err)
	}
	if err := transport.WriteIdentity(files, first.GetCaPem(), first.GetCertPem(), key); err != nil {
		t.Fatal(err)
	}
	id, err := transport.LoadIdentity(files)
	if err != nil {
		t.Fatal(err)
	}
	return &renewer{
		identity: id, files: files, log: log, life: life, slog: quiet(),
		read: func() bool { return true }, prune: func() []cluster.NodeID { return nil }, peers: func() []cluster.NodeID { return nil },
		now:  func() time.Time { return now },
		sign: func(_ context.Context, csr []byte) (*pb.RenewResponse, error) { return sign(csr) },
	}, log, &now
}

func TestRenewsAtTwoThirdsOfTheLife(t *testing.T) {
	r, _, now := newRenewer(t, 90*24*time.Hour)
	_, first := r.identity.Validity()
	for days := 0; days < 200; days++ {
		*now = now.Add(24 * time.Hour)
		if err := r.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin, end := r.identity.Validity()
		if left := end.Sub(*now); left < 29*24*time.Hour || begin.After(*now) {
			t.Fatalf("day %d: valid from %s to %s", days, begin, end)
		}
		if days == 50 && !end.Equal(first) {
			t.Fatal("renewed long before it was due")
		}
		if pause := r.pause(nil); pause > lookEvery || pause < time.Second {
			t.Fatalf("the next look comes in %s", pause)
		}
	}
	if !r.warned.IsZero() {
		t.Error("warned of a certificate that renews itself well")
	}
}

func TestRenewerWarnsOnceADayWhenItCannotRenew(t *testing.T) {
	var out bytes.Buffer
	r, _, now := newRenewer(t, 90*24*time.Hour)
	r.slog = slog.New(slog.NewTextHandler(&out, nil))
	r.sign = func(context.Context, []byte) (*pb.RenewResponse, error) { return nil, errors.New("no CA key") }
	*now = now.Add(80 * 24 * time.Hour)
	for range 48 {
		*now = now.Add(time.Hour)
		if err := r.look(t.Context()); err == nil {
			t.Fatal("renewed without anybody to sign")
		}
	}
	if got := strings.Count(out.String(), "ends soon"); got != 2 {
		t.Errorf("warned %d times in two days:\n%s", got, out.String())
	}
}

// While nobody can renew the certificate, and writes change the log many times
// a second, it is tried with growing pauses, and at once when a person asks.
func TestFailingRenewalsPauseUnderWriting(t *testing.T) {
	r, log, now := newRenewer(t, 90*24*time.Hour)
	began := *now
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		log.ch = make(chan struct{})
		asked := make(chan struct{})
		r.asked = asked
		start := time.Now()
		r.now = func() time.Time { return began.Add(70*24*time.Hour + time.Since(start)) } // it is due
		var tries atomic.Int64
		var works atomic.Bool
		*now = began.Add(70 * 24 * time.Hour) // when it signs, later
		good := r.sign
		r.sign = func(ctx context.Context, csr []byte) (*pb.RenewResponse, error) {
			if works.Load() {
				return good(ctx, csr)
			}
			tries.Add(1)
			return nil, errors.New("no CA key")
		}
		ended := make(chan error)
		go func() { ended <- r.run(ctx) }()
		write := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				log.ch <- struct{}{}
			}
		}
		write(time.Hour)
		if n := tries.Load(); n < 12 || n > 20 { // 5 s doubles up to 5 minutes
			t.Errorf("tried %d times in an hour", n)
		}
		before := tries.Load()
		asked <- struct{}{}
		synctest.Wait()
		if tries.Load() != before+1 {
			t.Error("a person's word waits for the pause")
		}
		works.Store(true)
		write(renewMost + time.Second)
		if r.due() {
			t.Error("not renewed once somebody signs")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A clock that is wrong by years, as after a boot with a dead battery, costs the
// node no certificate: what no peer would take is not made, and not written.
func TestAClockThatIsFarOffSpoilsNoCertificate(t *testing.T) {
	r, _, now := newRenewer(t, 90*24*time.Hour)
	right := *now
	for _, wrong := range []time.Time{time.Unix(0, 0), right.AddDate(20, 0, 0)} {
		*now = wrong
		if err := r.look(t.Context()); err == nil {
			t.Errorf("in %s the certificate is renewed", wrong)
		}
		if _, err := transport.LoadIdentity(r.files); err != nil {
			t.Errorf("after a look in %s the node cannot start: %v", wrong, err)
		}
		*now = right.Add(80 * 24 * time.Hour)
		if err := r.look(t.Context()); err != nil || r.due() {
			t.Errorf("once the clock is right: %v", err)
		}
		*now = right
		r.life, r.failures = 0, 0
	}
	// Nor is anything else written that does not fit.
	stranger, _ := newAuthority(t)
	if err := transport.WriteRenewed(r.files, stranger.Cert, nil); err == nil {
		t.Error("a CA file that the certificate does not fit is written")
	}
	if _, err := transport.LoadIdentity(r.files); err != nil {
		t.Error(err)
	}
}

// The files always fit each other, whatever step the CA's replacement is at,
// also where the node has missed the steps between.
func TestRenewerFollowsTheCA(t *testing.T) {
	r, log, _ := newRenewer(t, 24*time.Hour)
	old, fresh := log.a, raftstore.Authorities{}
	fresh.Signing, fresh.Key = newAuthority(t)
	is := func(issuer string, trusts ...string) {
		t.Helper()
		if err := r.follow(t.Context()); err != nil {
			t.Fatal(err)
		}
		again, err := transport.LoadIdentity(r.files)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []*transport.Identity{r.identity, again} {
			if print, _ := id.Issuer(); print != issuer || !slices.Equal(id.Trusted(), trusts) {
				t.Fatalf("certificate of %.8s, trusts %.8s; want %.8s, %.8s", print, id.Trusted(), issuer, trusts)
			}
		}
	}
	is(old.Signing.Fingerprint, old.Signing.Fingerprint)
	log.a.Also, log.a.Incoming = &fresh.Signing, true
	is(old.Signing.Fingerprint, old.Signing.Fingerprint, fresh.Signing.Fingerprint)
	log.a = raftstore.Authorities{Signing: fresh.Signing, Key: fresh.Key, Also: &old.Signing}
	r.read = func() bool { return false } // what the log says now may be of the past
	is(old.Signing.Fingerprint, old.Signing.Fingerprint, fresh.Signing.Fingerprint)
	r.read = func() bool { return true }
	is(fresh.Signing.Fingerprint, fresh.Signing.Fingerprint, old.Signing.Fingerprint)
	log.a.Also = nil
	is(fresh.Signing.Fingerprint, fresh.Signing.Fingerprint)
	// From one CA to another in one step.
	log.a = raftstore.Authorities{}
	log.a.Signing, log.a.Key = newAuthority(t)
	is(log.a.Signing.Fingerprint, log.a.Signing.Fingerprint)
	// A certificate from the time when the clock was wrong is made anew.
	r.now = func() time.Time { return time.Now().Add(-365 * 24 * time.Hour) }
	if !r.due() {
		t.Error("a certificate of the future stays")
	}
	r.now = time.Now
	// A shorter life is taken over at once.
	r.life = time.Hour
	if !r.tooLong() {
		t.Error("a certificate of a day may live on")
	}
}
