package limits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/relais-edge/relais/internal/edge/ratelimit"
)

// version is the first byte of a batch.
const version = 1

// maxEntry bounds the bytes of an entry: the key, three numbers of 32 bits and one of 64.
const maxEntry = 8 + 3*binary.MaxVarintLen32 + binary.MaxVarintLen64

// ErrBatch says that a message holds no batch.
var ErrBatch = errors.New("limits: not a batch")

// Append writes a batch: the version, the number of entries, and of each the key in eight bytes, then count, requests,
// burst and nanoseconds as varints.
func Append(b []byte, batch []ratelimit.Taken) []byte {
	b = binary.AppendUvarint(append(b, version), uint64(len(batch)))
	for _, e := range batch {
		b = binary.BigEndian.AppendUint64(b, e.Key)
		b = binary.AppendUvarint(b, uint64(e.Count))
		b = binary.AppendUvarint(b, uint64(e.Requests))
		b = binary.AppendUvarint(b, uint64(e.Burst))
		b = binary.AppendUvarint(b, uint64(max(e.Per, 0)))
	}
	return b
}

// Decode reads what Append wrote, and takes nothing that it would not have written: ErrBatch, or ratelimit.ErrTooMany.
func Decode(b []byte) ([]ratelimit.Taken, error) {
	if len(b) == 0 || b[0] != version {
		return nil, fmt.Errorf("%w: it is not of version %d", ErrBatch, version)
	}
	r := reader{b: b[1:]}
	n := r.number(math.MaxInt32)
	if n > ratelimit.MaxBatch {
		return nil, ratelimit.ErrTooMany
	}
	batch := make([]ratelimit.Taken, 0, min(n, uint64(len(r.b)/12)))
	for range n {
		e := ratelimit.Taken{Key: r.key()}
		e.Count, e.Requests, e.Burst = uint32(r.number(math.MaxUint32)), uint32(r.number(math.MaxUint32)), uint32(r.number(math.MaxUint32))
		e.Per = time.Duration(r.number(math.MaxInt64))
		if r.bad {
			break
		}
		batch = append(batch, e)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: it is cut off, too long, or has a number that is out of bounds", ErrBatch)
	}
	return batch, nil
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) key() uint64 {
	if len(r.b) < 8 {
		r.bad = true
		return 0
	}
	k := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return k
}

// number reads a varint in its shortest form.
func (r *reader) number(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 || v > most {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}
