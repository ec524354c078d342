// Package hold reads the beginning of a body into memory and puts a body in its place that gives what was read
// first, then the rest. The bytes of all bodies together are bounded, and of them those of each tenant by what is free, so that
// one alone cannot take all.
package hold

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
)

// ErrMemory says that all bodies together are more than may be kept, ErrPart (which is ErrMemory, too) that those of one tenant are.
var (
	ErrMemory = errors.New("no memory for another body")
	ErrPart   = fmt.Errorf("%w: the organization has its part of it", ErrMemory)
)

const (
	// maxPooled is the largest buffer that is kept for the next body.
	maxPooled = 1 << 20
	// perFree bounds a tenant to so many times what is free (the dynamic threshold of Choudhury and Hahne for shared
	// buffers): one alone has three quarters of the memory at most, two have three sevenths each, and so on. What is
	// left is for who comes next.
	perFree = 3
	// tenants are told apart up to so many; then two may share an account.
	tenants = 4096
)

// Bodies keeps what was read of bodies.
type Bodies struct {
	limit    int64
	used     atomic.Int64
	pool     sync.Pool // of *[]byte
	seed     maphash.Seed
	accounts [tenants]Account
	refused  [2]observe.Counter // for all memory, for a tenant's part
}

// Account is what a tenant has of the memory.
type Account struct {
	of   *Bodies
	used atomic.Int64
}

// New returns a keeper of limit bytes in all. Refused has one label, why: memory, when it is used up, or part, when a tenant
// has its part of it.
func New(limit int64, refused *observe.Family[observe.Counter]) *Bodies {
	b := &Bodies{limit: limit, seed: maphash.MakeSeed(), refused: [2]observe.Counter{refused.With("memory"), refused.With("part")}}
	for i := range b.accounts {
		b.accounts[i].of = b
	}
	return b
}

// Used is how many bytes are kept now.
func (b *Bodies) Used() int64 { return b.used.Load() }

// Account is that of a tenant; the same for equal names.
func (b *Bodies) Account(tenant string) *Account {
	return &b.accounts[maphash.String(b.seed, tenant)%tenants]
}

func (b *Bodies) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return nil
}

func (b *Bodies) put(buf []byte) {
	if cap(buf) > 0 && cap(buf) <= maxPooled {
		b.pool.Put(&buf)
	}
}

// Read reads src until its end or until more than limit bytes are there. When the memory for bodies is used up, or the tenant's
// part of it, it stops with ErrMemory or ErrPart, unless force is true; the body is good then too. With any other error there
// is none.
func (a *Account) Read(ctx context.Context, src message.Body, limit int, force bool) (*Body, error) {
	r := &Body{src: src, from: a, prefix: a.of.get()}
	for len(r.prefix) <= limit {
		chunk, err := src.Next(ctx)
		full := a.take(int64(len(chunk)))
		r.kept += int64(len(chunk))
		r.prefix = append(r.prefix, chunk...)
		if err == io.EOF {
			r.whole = true
			break
		}
		if err != nil {
			r.drop()
			return nil, err
		}
		if full != nil && !force {
			a.of.refused[why(full)].Inc()
			return r, full
		}
	}
	return r, nil
}

// take counts n bytes, and says whether that is too much.
func (a *Account) take(n int64) error {
	used, own := a.of.used.Add(n), a.used.Add(n)
	switch free := a.of.limit - used; {
	case free < 0:
		return ErrMemory
	case own > perFree*free:
		return ErrPart
	}
	return nil
}

func why(err error) int {
	if errors.Is(err, ErrPart) {
		return 1
	}
	return 0
}

// Body gives what was read of it before, then the rest, with the same errors.
type Body struct {
	src    message.Body
	from   *Account
	prefix []byte
	kept   int64 // bytes that count as used
	done   atomic.Bool
	whole  bool // src has ended
	lent   bool
}

// Held lends what was read, until the first Next. Whole says that it is all of the body.
func (r *Body) Held() (prefix []byte, whole bool) { return r.prefix, r.whole }

// Next implements message.Body.
func (r *Body) Next(ctx context.Context) ([]byte, error) {
	if !r.lent {
		r.lent = true
		if r.whole {
			return r.prefix, io.EOF
		}
		return r.prefix, nil
	}
	r.drop()
	if r.whole {
		return nil, io.EOF
	}
	return r.src.Next(ctx)
}

// Close implements message.Body.
func (r *Body) Close(cause error) {
	r.lent = true
	r.drop()
	r.src.Close(cause)
}

// End implements message.Ender, for a body that nobody read. Who reads may be at it still, so the buffer is left to
// the collector.
func (r *Body) End(message.Outcome) { r.release() }

// drop gives the buffer back. Only who reads the body may call it.
func (r *Body) drop() {
	r.release()
	r.from.of.put(r.prefix)
	r.prefix = nil
}

// release takes the bytes from the count, once.
func (r *Body) release() {
	if !r.done.Swap(true) {
		r.from.used.Add(-r.kept)
		r.from.of.used.Add(-r.kept)
	}
}
