package transport

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

// verdict is what a server thinks of its caller.
type verdict string

const (
	verdictOK           verdict = "ok"
	verdictWrongCluster verdict = "wrong-cluster" // the certificate is not of this cluster
	verdictClock        verdict = "clock"         // the certificate is not valid by the server's clock
	verdictNotMember    verdict = "not-member"    // removed, or never a member
	verdictBusy         verdict = "busy"          // too many joins at once
	verdictOlder        verdict = "older"         // the caller is of an older incarnation of the cluster: it yields
	verdictNewer        verdict = "newer"         // the caller is of a newer one: the server yields
	verdictTwin         verdict = "twin"          // another run of the caller's data directory is alive
	verdictPast         verdict = "past"          // another run of it was here since
	verdictWentBack     verdict = "went-back"     // the caller's log ends before what it once told
	verdictWait         verdict = "wait"          // it is being found out whether another run is alive
)

// greeting is the first thing in a connection after the handshake, sent by the
// server: a length of two bytes and JSON. The protocol that ALPN chose follows
// if the verdict is OK, nothing otherwise.
type greeting struct {
	Verdict verdict        `json:"verdict"`
	Clock   int64          `json:"clock"`   // the server's, Unix nanoseconds
	Cluster string         `json:"cluster"` // the server's
	Node    cluster.NodeID `json:"node"`    // the server's
	// Of the log: the newest format that the server understands, and the one
	// that the cluster uses, as far as the server knows.
	Knows  uint32 `json:"knows,omitempty"`
	Active uint32 `json:"active,omitempty"`
	// Instance is the server's run; Other is where the caller's other run is.
	Instance Instance `json:"instance,omitzero"`
	Other    string   `json:"other,omitempty"`
	// Proof that the server's incarnation exists, see life.go.
	Proof string `json:"proof,omitempty"`
}

const maxGreeting = 1024

func writeGreeting(w io.Writer, g greeting) error {
	body, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...))
	return err
}

func readGreeting(r io.Reader) (greeting, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return greeting{}, fmt.Errorf("greeting: %w", err)
	}
	n := binary.BigEndian.Uint16(size[:])
	if n > maxGreeting {
		return greeting{}, fmt.Errorf("greeting of %d bytes, the limit is %d", n, maxGreeting)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return greeting{}, fmt.Errorf("greeting: %w", err)
	}
	var g greeting
	if err := json.Unmarshal(body, &g); err != nil {
		return greeting{}, fmt.Errorf("greeting: %w", err)
	}
	return g, nil
}

func (g greeting) clock() time.Time { return time.Unix(0, g.Clock) }
