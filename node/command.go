package node

import (
	"errors"
	"time"

	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
	"github.com/gatesync/gatesync/raftstore"
)

// command stamps a command with this node's clock; the log adds the format.
func command(c *pb.Command) *pb.Command {
	c.TimeNs = time.Now().UnixNano()
	return c
}

// isCode tells whether the cluster refused a command for this reason.
func isCode(err error, code raftstore.Code) bool {
	var o *raftstore.OutcomeError
	return errors.As(err, &o) && o.Code == code
}
