package delta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// DictLimit is the largest old version that serves as a dictionary.
	DictLimit = 1 << 20
	// SmallLimit is the largest content that is handled in memory.
	SmallLimit = 1 << 20
	// tinyDict is how far it reaches back at the fastest level, whose encoder is
	// cheap to make: a lone small edit after an hour waits for that.
	tinyDict = 64 << 10
	// nearDict is how far a dictionary reaches back at the faster level.
	nearDict = 256 << 10
	// maxWindow bounds what a decoder keeps of what it has decoded.
	maxWindow = 8 << 20
)

// Codec makes and reads deltas. Safe for concurrent use.
type Codec struct {
	gear      *gear
	sums      sums
	tiny      pool[*zstd.Encoder] // with a dictionary, by how far it reaches
	near, far pool[*zstd.Encoder]
	plain     pool[*zstd.Encoder]
	dicts     pool[*zstd.Decoder]
	decoders  pool[*zstd.Decoder]
}

// pool keeps what is expensive to make.
type pool[T any] struct {
	sync.Pool
	make func() (T, error)
}

func (p *pool[T]) get() (T, error) {
	if v, ok := p.Get().(T); ok {
		return v, nil
	}
	return p.make()
}

// NewCodec makes a codec; it starts no goroutines.
func NewCodec() *Codec {
	encoder := func(level zstd.EncoderLevel, window int) func() (*zstd.Encoder, error) {
		return func() (*zstd.Encoder, error) {
			// No checksum: the digest of the whole is compared anyway.
			return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
				zstd.WithWindowSize(window), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
		}
	}
	decoder := func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	}
	c := &Codec{gear: newGear(), sums: newSums()}
	c.tiny.make = encoder(zstd.SpeedFastest, 128<<10)
	c.near.make = encoder(zstd.SpeedDefault, 1<<20)
	c.far.make = encoder(zstd.SpeedBetterCompression, 4<<20)
	c.plain.make = encoder(zstd.SpeedDefault, 4<<20)
	c.dicts.make, c.decoders.make = decoder, decoder
	return c
}

// dictID tells our frames' dictionaries from none.
const dictID = 1

// Against returns content as zstd with the old version as its dictionary.
func (c *Codec) Against(old, content []byte) ([]byte, error) {
	if len(old) > DictLimit || len(content) > SmallLimit {
		return nil, fmt.Errorf("a dictionary of %d bytes for %d: both are at most %d", len(old), len(content), DictLimit)
	}
	if len(old) < 8 { // none that zstd would take
		return c.Pack(content)
	}
	from := &c.near
	switch {
	case len(old) > nearDict/2:
		from = &c.far
	case len(old) <= tinyDict/2 && len(content) <= tinyDict:
		from = &c.tiny
	}
	e, err := from.get()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := e.ResetWithOptions(&out, zstd.WithEncoderDictRaw(dictID, old)); err != nil {
		return nil, err
	}
	_, err = e.Write(content)
	if err = errors.Join(err, e.Close()); err != nil {
		return nil, err
	}
	from.Put(e)
	return out.Bytes(), nil
}

// Restore undoes Against; size is what the content has to have.
func (c *Codec) Restore(old, packed []byte, size int) ([]byte, error) {
	if len(old) < 8 {
		return c.Unpack(packed, size)
	}
	if len(old) > DictLimit {
		return nil, fmt.Errorf("%w: a dictionary of %d bytes", ErrMalformed, len(old))
	}
	return c.unpack(&c.dicts, packed, size, zstd.WithDecoderDictRaw(dictID, old))
}

// Pack compresses content.
func (c *Codec) Pack(content []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := c.packer(&out)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(content)
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

// Unpack undoes Pack; size is what the content has to have.
func (c *Codec) Unpack(packed []byte, size int) ([]byte, error) {
	return c.unpack(&c.decoders, packed, size)
}

func (c *Codec) unpack(from *pool[*zstd.Decoder], packed []byte, size int, opts ...zstd.DOption) ([]byte, error) {
	if size < 0 || size > SmallLimit {
		return nil, fmt.Errorf("%w: %d bytes in one piece", ErrMalformed, size)
	}
	d, err := from.get()
	if err != nil {
		return nil, err
	}
	if err := d.ResetWithOptions(bytes.NewReader(packed), opts...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	out, err := readAll(d, size)
	if err != nil {
		return nil, err
	}
	from.Put(d)
	return out, nil
}

// readAll reads exactly size bytes and then the end.
func readAll(r io.Reader, size int) ([]byte, error) {
	out := make([]byte, size)
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, malformed(err)
	}
	var one [1]byte
	if n, err := io.ReadFull(r, one[:]); n > 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, size)
	}
	return out, nil
}

func malformed(err error) error { return fmt.Errorf("%w: %w", ErrMalformed, err) }

// packer compresses what is written to it; Close ends it and gives the encoder back.
func (c *Codec) packer(w io.Writer) (*packer, error) {
	e, err := c.plain.get()
	if err != nil {
		return nil, err
	}
	e.Reset(w)
	return &packer{Encoder: e, from: &c.plain}, nil
}

type packer struct {
	*zstd.Encoder
	from *pool[*zstd.Encoder]
}

func (p *packer) Close() error {
	err := p.Encoder.Close()
	if err == nil {
		p.from.Put(p.Encoder)
	}
	return err
}

// PackTo compresses what r holds.
func (c *Codec) PackTo(w io.Writer, r io.Reader) error {
	p, err := c.packer(w)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{p}, struct{ io.Reader }{r}, make([]byte, 128<<10))
	if err != nil {
		return err // the encoder is dropped
	}
	return p.Close()
}

// UnpackTo undoes PackTo; size is what the content has to have.
func (c *Codec) UnpackTo(w io.Writer, packed io.Reader, size int64) error {
	return c.reading(packed, func(r io.Reader) error {
		n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(r, size+1), make([]byte, 128<<10))
		if err == nil && n != size {
			err = fmt.Errorf("%w: %d bytes instead of %d", ErrMalformed, n, size)
		}
		return err
	})
}

// reading lends a decoder of what r holds to fn.
func (c *Codec) reading(r io.Reader, fn func(io.Reader) error) error {
	d, err := c.decoders.get()
	if err != nil {
		return err
	}
	if err := d.Reset(r); err != nil {
		return malformed(err)
	}
	if err := fn(decoding{d}); err != nil {
		return err // the decoder is dropped: who knows where it stands
	}
	c.decoders.Put(d)
	return nil
}

// decoding says of a decoder's errors what they mean.
type decoding struct{ d *zstd.Decoder }

func (r decoding) Read(b []byte) (int, error) {
	n, err := r.d.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = malformed(err)
	}
	return n, err
}
