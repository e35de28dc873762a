package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/transport"
)

const (
	// lookEvery is how often the files and the certificate's age are looked at:
	// a person or an own PKI may have replaced the files.
	lookEvery = time.Minute
	// renewRetry is the pause after a failed renewal; it doubles up to renewMost,
	// or an eighth of what is left of the certificate's life.
	renewRetry  = 5 * time.Second
	renewMost   = 5 * time.Minute
	renewWithin = 10 * time.Second
	// warnEvery keeps the warning of a certificate that ends soon rare.
	warnEvery = 24 * time.Hour
)

// renewer keeps this node's certificate fresh and its CA file in step with the
// log. It renews at two thirds of the certificate's life, and at once when
// another CA signs; no connection notices. Files of an own PKI are only read.
// One goroutine.
type renewer struct {
	identity *transport.Identity
	files    transport.Files
	own      bool // of an own PKI: only read anew
	log      renewLog
	read     func() bool             // the log was read up to where it stood at the start
	prune    func() []cluster.NodeID // cuts connections that are trusted no more
	asked    <-chan struct{}         // a person wants the files read now
	peers    func() []cluster.NodeID // who may sign, if this node cannot
	dial     dialer
	sign     func(ctx context.Context, csrDER []byte) (*pb.RenewResponse, error) // this node itself, if it can
	now      func() time.Time
	life     time.Duration // of the certificates that this node signs; 0: as it comes
	slog     *slog.Logger

	warned   time.Time // when it last said that the certificate ends soon
	failures int       // in a row
}

// renewLog is what the renewer needs of the log.
type renewLog interface {
	authority
	watcher
}

func (r *renewer) run(ctx context.Context) error {
	ch, stop := r.log.Watch()
	defer stop()
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-r.asked:
			err = r.look(ctx)
		case <-look.C:
			err = r.look(ctx)
		case <-ch:
			if r.failures > 0 {
				continue // under load the log changes all the time: the pause counts
			}
			if err = r.follow(ctx); err == nil {
				continue // most changes of the log are none of ours
			}
		}
		pause := r.pause(err)
		if err != nil && ctx.Err() == nil {
			_, end := r.identity.Validity()
			r.slog.Warn("this node's certificates could not be brought up to date; trying again", "in", pause, "ends", end, "err", err)
		}
		look.Reset(pause)
	}
}

// pause is the time to the next look, after one that ended with err.
func (r *renewer) pause(err error) time.Duration {
	if err != nil {
		_, end := r.identity.Validity()
		most := min(renewMost, max(renewRetry, end.Sub(r.now())/8))
		r.failures++
		return min(most, renewRetry<<min(r.failures-1, 10))
	}
	r.failures = 0
	if r.own {
		return lookEvery
	}
	return min(lookEvery, max(time.Second, renewalTime(r.identity).Sub(r.now())))
}

// look reads the files anew, renews where that is due, and warns.
func (r *renewer) look(ctx context.Context) error {
	before := r.identity.CAPEM()
	if err := r.identity.Reload(); err != nil {
		return fmt.Errorf("read the certificates anew (the old ones stay in use): %w", err)
	}
	if !bytes.Equal(before, r.identity.CAPEM()) {
		r.trust()
	}
	defer r.warn()
	return r.follow(ctx)
}

// follow does what the log and the clock ask for.
func (r *renewer) follow(ctx context.Context) error {
	if r.own {
		return nil
	}
	due := r.due()
	if !r.read() { // what the log says is of the past: only the clock counts
		if !due {
			return nil
		}
		return r.renew(ctx)
	}
	a := r.log.Authorities()
	if len(a.Key) == 0 {
		return nil
	}
	if issuer, _ := r.identity.Issuer(); due || issuer != a.Signing.Fingerprint || r.tooLong() {
		if err := r.renew(ctx); err != nil {
			return err
		}
	}
	bundle, err := bundleOf(a)
	if err != nil || bytes.Equal(bundle, r.identity.CAPEM()) {
		return err
	}
	if err := transport.WriteRenewed(r.files, bundle, nil); err != nil {
		return err
	}
	if err := r.identity.Reload(); err != nil {
		return err
	}
	r.trust()
	return nil
}

// due tells whether it is time to renew, and a renewal would help: no
// certificate outlives its CA. One that is not valid yet was made when the
// clock was wrong.
func (r *renewer) due() bool {
	begin, end := r.identity.Validity()
	_, caEnd := r.identity.Issuer()
	now := r.now()
	return now.Before(begin) || now.After(renewalTime(r.identity)) && end.Before(caEnd)
}

// tooLong tells whether the certificate lives on for longer than certificates
// are to live now.
func (r *renewer) tooLong() bool {
	_, end := r.identity.Validity()
	return r.life > 0 && end.Sub(r.now()) > r.life+r.life/10
}

// trust tells that other CAs are trusted now, and cuts what is not.
func (r *renewer) trust() {
	r.slog.Info("took over the cluster's CAs", "trusted", r.identity.Trusted())
	if cut := r.prune(); len(cut) > 0 {
		r.slog.Info("cut the connections whose certificates are trusted no more", "nodes", cut)
	}
}

// renew gets and takes a new certificate. The CAs that were trusted before
// stay for now, so that an interruption leaves files that fit each other.
func (r *renewer) renew(ctx context.Context) error {
	csr, err := r.identity.CSR()
	if err != nil {
		return err
	}
	res, err := r.obtain(ctx, csr)
	if err != nil {
		return err
	}
	trusted, err := transport.Bundle(res.GetCaPem(), r.identity.CAPEM())
	if err != nil {
		return err
	}
	if err := transport.WriteRenewed(r.files, trusted, res.GetCertPem()); err != nil {
		return err
	}
	if err := r.identity.Reload(); err != nil {
		return err
	}
	_, end := r.identity.Validity()
	r.slog.Info("renewed this node's certificate", "ends", end)
	return nil
}

// warn says, once a day, that the certificate ends soon.
func (r *renewer) warn() {
	begin, end := r.identity.Validity()
	now := r.now()
	if left := end.Sub(now); left > soon(end.Sub(begin)) || now.Sub(r.warned) < warnEvery {
		return
	}
	r.warned = now
	todo := "it renews itself as soon as this node has read the log, or a member answers"
	if r.own {
		todo = "bring a new one of your PKI; no restart is needed"
	}
	r.slog.Warn("this node's certificate ends soon: "+todo, "ends", end, "days_left", int(end.Sub(now).Hours()/24))
}

// soon is how long before its end a certificate is worth a warning: a renewal
// that works comes long before.
func soon(life time.Duration) time.Duration { return min(30*24*time.Hour, life/4) }

// renewalTime is at two thirds of a certificate's life.
func renewalTime(id *transport.Identity) time.Time {
	begin, end := id.Validity()
	return begin.Add(end.Sub(begin) * 2 / 3)
}

// obtain asks this node itself, then the others.
func (r *renewer) obtain(ctx context.Context, csr []byte) (*pb.RenewResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	res, err := r.sign(ctx, csr)
	if err == nil {
		return res, nil
	}
	for _, id := range r.peers() {
		conn, derr := r.dial.Dial(ctx, id)
		if derr == nil {
			res, derr = pb.NewClusterClient(conn).Renew(ctx, &pb.RenewRequest{CsrDer: csr})
		}
		if derr == nil {
			return res, nil
		}
		err = errors.Join(err, derr)
	}
	return nil, err
}
