package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/fallback/target"
	"github.com/gatesync/gatesync/node"
	"github.com/gatesync/gatesync/node/local"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// withLocal calls fn with the running daemon of the data directory.
func (a *app) withLocal(ctx context.Context, fn func(pb.LocalClient) error) error {
	conn, err := local.Dial(ctx, a.dataDir)
	if err != nil {
		if none := config.Missing(a.dataDir); none != nil {
			return a.noNode(none)
		}
		return err
	}
	defer conn.Close()
	return fn(pb.NewLocalClient(conn))
}

// noNode says more of a data directory in which no node was made.
func (a *app) noNode(err error) error {
	if target.IsTarget(a.dataDir) {
		return fmt.Errorf("%s is the data directory of a target (gatesync receive), which is no node: of it `gatesync conflicts` lists what pushes have displaced", a.dataDir)
	}
	return err
}

// status asks the daemon for its status.
func status(ctx context.Context, c pb.LocalClient) (node.Status, error) {
	var s node.Status
	res, err := c.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(res.GetJson(), &s); err != nil {
		return s, fmt.Errorf("the daemon's status cannot be read (is it of another version?): %w", err)
	}
	return s, nil
}

// each calls fn for every message of a stream, to its end.
func each[M any](stream grpc.ServerStreamingClient[M], err error, fn func(*M) error) error {
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(m); err != nil {
			return err
		}
	}
}
