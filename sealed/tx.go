package sealed

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"
)

// Tx is one View or Update. It is for one goroutine.
type Tx struct {
	file string
	bolt *bbolt.Tx
	seal seal
}

// Bucket is a map inside of a Tx, in the order of its keys.
type Bucket struct {
	tx   *Tx
	name []byte
	bolt *bbolt.Bucket
}

// Bucket returns one of the buckets that Open named.
func (t *Tx) Bucket(name string) *Bucket {
	return &Bucket{tx: t, name: []byte(name), bolt: t.bolt.Bucket([]byte(name))}
}

func (t *Tx) damaged(err error) error { return &DamagedError{File: t.file, Err: err} }

// Get returns a value, nil where there is none.
func (b *Bucket) Get(key []byte) ([]byte, error) {
	stored := b.bolt.Get(key)
	if stored == nil {
		return nil, nil
	}
	return b.value(key, stored)
}

func (b *Bucket) value(key, stored []byte) ([]byte, error) {
	value, _, ok := unwrap(b.name, key, stored)
	if !ok {
		return nil, b.tx.damaged(fmt.Errorf("%q in %q is not what was written", key, b.name))
	}
	return value, nil
}

// Put sets a value. key must not be empty.
func (b *Bucket) Put(key, value []byte) error {
	if err := b.forget(key, b.bolt.Get(key)); err != nil {
		return err
	}
	stored, sum := wrap(b.name, key, value)
	b.tx.seal.add(sum)
	return b.bolt.Put(key, stored)
}

// Delete removes a value, if there is one.
func (b *Bucket) Delete(key []byte) error {
	if err := b.forget(key, b.bolt.Get(key)); err != nil {
		return err
	}
	return b.bolt.Delete(key)
}

// DeleteRange removes all values from first to last, both included.
func (b *Bucket) DeleteRange(first, last []byte) error {
	var keys [][]byte // a cursor may skip what follows a key that it deleted
	c := b.bolt.Cursor()
	for k, _ := c.Seek(first); k != nil && bytes.Compare(k, last) <= 0; k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// forget takes what is about to go out of the seal.
func (b *Bucket) forget(key, stored []byte) error {
	if stored == nil {
		return nil
	}
	_, sum, ok := unwrap(b.name, key, stored)
	if !ok {
		return b.tx.damaged(fmt.Errorf("%q in %q is not what was written", key, b.name))
	}
	b.tx.seal.drop(sum)
	return nil
}

// ForEach calls fn for each value, in the order of the keys.
func (b *Bucket) ForEach(fn func(key, value []byte) error) error {
	return b.bolt.ForEach(func(k, stored []byte) error {
		v, err := b.value(k, stored)
		if err != nil {
			return err
		}
		return fn(k, v)
	})
}

// First returns the least key, nil where the bucket is empty.
func (b *Bucket) First() []byte {
	k, _ := b.bolt.Cursor().First()
	return k
}

// Last returns the greatest key, nil where the bucket is empty.
func (b *Bucket) Last() []byte {
	k, _ := b.bolt.Cursor().Last()
	return k
}
