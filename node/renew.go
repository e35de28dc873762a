package node

import (
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
	// renewEvery is how often the certificate is looked at. Files that a
	// person or an own PKI replaced are read at the same time.
	renewEvery  = time.Hour
	renewWithin = 10 * time.Second
)

// renewer keeps this node's certificate fresh: at two thirds of its life it
// asks the members in turn for a new one. One goroutine.
type renewer struct {
	identity *transport.Identity
	files    transport.Files
	own      bool // of an own PKI: only read anew
	peers    func() []cluster.NodeID
	dial     dialer
	sign     func(ctx context.Context, csrDER []byte) (*pb.RenewResponse, error) // this node itself, if it can
	now      func() time.Time
	log      *slog.Logger
}

func (r *renewer) run(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		if err := r.check(ctx); err != nil && ctx.Err() == nil {
			_, end := r.identity.Validity()
			r.log.Warn("this node's certificate could not be renewed; trying again in an hour", "ends", end, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *renewer) check(ctx context.Context) error {
	if err := r.identity.Reload(); err != nil {
		return fmt.Errorf("read the certificate anew (the old one stays in use): %w", err)
	}
	if r.own || !renewalDue(r.identity, r.now()) {
		return nil
	}
	csr, err := r.identity.CSR()
	if err != nil {
		return err
	}
	res, err := r.obtain(ctx, csr)
	if err != nil {
		return err
	}
	if err := transport.WriteRenewed(r.files, res.GetCaPem(), res.GetCertPem()); err != nil {
		return err
	}
	if err := r.identity.Reload(); err != nil {
		return err
	}
	_, end := r.identity.Validity()
	r.log.Info("renewed this node's certificate", "ends", end)
	return nil
}

// renewalDue is at two thirds of a certificate's life.
func renewalDue(id *transport.Identity, now time.Time) bool {
	begin, end := id.Validity()
	return now.After(begin.Add(end.Sub(begin) * 2 / 3))
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
