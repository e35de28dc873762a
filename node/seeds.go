package node

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/cluster"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// seedEvery keeps questions to seeds that are down rare.
const seedEvery = 2 * time.Second

// seeds says hello at fixed addresses, whoever is there, while too few members
// answer: the way back when every remembered address has changed. One
// goroutine.
type seeds struct {
	addrs []string
	dial  addressDialer
	peers *peers
	log   *slog.Logger
}

// addressDialer connects to whichever member is at an address.
type addressDialer interface {
	DialAddr(ctx context.Context, addr string) (*grpc.ClientConn, cluster.NodeID, error)
}

func (s *seeds) run(ctx context.Context) error {
	tick := time.NewTicker(seedEvery)
	defer tick.Stop()
	for {
		if s.peers.lonely() {
			for _, addr := range s.addrs {
				if err := s.ask(ctx, addr); err != nil {
					s.log.Debug("a seed does not answer", "addr", addr, "err", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *seeds) ask(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	conn, at, err := s.dial.DialAddr(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if at == s.peers.self {
		return nil // a seed may be this node itself
	}
	res, err := pb.NewClusterClient(conn).Hello(ctx, s.peers.request(ctx))
	if err != nil {
		return err
	}
	if _, known := s.peers.book.address(at); !known {
		// It answers here; its own announcement comes with a greater epoch.
		s.peers.book.learn(cluster.Member{ID: at, Address: addr})
	}
	return s.peers.hear(at, res.GetState(), res.GetMembers())
}
