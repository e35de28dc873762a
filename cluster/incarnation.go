package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
)

// Incarnation is one life of a cluster. Init begins the first; recover and
// restore-cluster begin the next. Of two, the greater is the newer. It is a
// number with a random tail, so that two nodes that were both recovered by
// mistake have two different lives, and one of them yields.
type Incarnation uint64

// FirstIncarnation is what init begins.
const FirstIncarnation Incarnation = 1

const incarnationTail = 32 // bits

// Number is what people count: 1, 2, 3 …
func (i Incarnation) Number() uint64 {
	if i < 1<<incarnationTail {
		return max(uint64(i), 1)
	}
	return uint64(i >> incarnationTail)
}

// Next begins the life after i.
func (i Incarnation) Next() Incarnation {
	var tail [4]byte
	_, _ = rand.Read(tail[:]) // never fails (crypto/rand)
	return Incarnation((i.Number()+1)<<incarnationTail | uint64(binary.BigEndian.Uint32(tail[:])))
}

func (i Incarnation) String() string { return strconv.FormatUint(i.Number(), 10) }
