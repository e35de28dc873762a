package sealed

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
)

// trailer is the length of the checksum behind each value.
const trailer = 8

var table = crc64.MakeTable(crc64.ECMA)

// checksum covers where a value stands as well as the value itself. It is
// against accidents; whoever can write the file can write its checksums.
func checksum(bucket, key, value []byte) uint64 {
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(bucket)))
	binary.LittleEndian.PutUint32(head[4:], uint32(len(key)))
	sum := crc64.Update(0, table, head[:])
	sum = crc64.Update(sum, table, bucket)
	sum = crc64.Update(sum, table, key)
	return crc64.Update(sum, table, value)
}

// wrap appends a value's checksum to a copy of it.
func wrap(bucket, key, value []byte) (stored []byte, sum uint64) {
	sum = checksum(bucket, key, value)
	stored = make([]byte, 0, len(value)+trailer)
	return binary.LittleEndian.AppendUint64(append(stored, value...), sum), sum
}

// unwrap is the other way; ok is false where the value is not what was stored.
// The value is a part of stored.
func unwrap(bucket, key, stored []byte) (value []byte, sum uint64, ok bool) {
	if len(stored) < trailer {
		return nil, 0, false
	}
	value = stored[: len(stored)-trailer : len(stored)-trailer]
	sum = binary.LittleEndian.Uint64(stored[len(value):])
	return value, sum, sum == checksum(bucket, key, value)
}

// Wrap appends to a copy of a value the checksum of where it stands and of it.
func Wrap(bucket, key, value []byte) []byte {
	stored, _ := wrap(bucket, key, value)
	return stored
}

// Unwrap is the other way; ok is false where the value is not what was stored.
func Unwrap(bucket, key, stored []byte) (value []byte, ok bool) {
	value, _, ok = unwrap(bucket, key, stored)
	return value, ok
}

// Checksum is the one that Wrap appends.
func Checksum(bucket, key, value []byte) uint64 { return checksum(bucket, key, value) }

// seal is what a file holds as a whole: how many values, and the sum of their
// checksums, which is the same in whatever order they came and went.
type seal struct{ count, sum uint64 }

// The seal stands in a bucket of its own, under a key of its own.
var (
	sealBucket = []byte("seal")
	sealKey    = []byte("seal")
)

func (s *seal) add(sum uint64)  { s.count++; s.sum += sum }
func (s *seal) drop(sum uint64) { s.count--; s.sum -= sum }

func (s seal) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, s.count)
	return binary.LittleEndian.AppendUint64(b, s.sum)
}

func decodeSeal(stored []byte) (seal, error) {
	b, _, ok := unwrap(sealBucket, sealKey, stored)
	if !ok || len(b) != 16 {
		return seal{}, fmt.Errorf("its seal cannot be read")
	}
	return seal{count: binary.LittleEndian.Uint64(b), sum: binary.LittleEndian.Uint64(b[8:])}, nil
}
