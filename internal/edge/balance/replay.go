package balance

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

const (
	smallBody = 4 << 10
	// maxReplay is the largest request body that is kept for a further try.
	maxReplay = 64 << 10
)

// bodyMemory is the memory in which request bodies are kept, bounded over the whole stage.
type bodyMemory struct {
	small, large sync.Pool // of *[]byte
	limit        int64
	used         atomic.Int64
	refused      observe.Counter
}

// get lends size bytes, smallBody or maxReplay; nil when the limit is reached.
func (m *bodyMemory) get(size int) *[]byte {
	if m.used.Add(int64(size)) > m.limit {
		m.used.Add(-int64(size))
		m.refused.Inc()
		return nil
	}
	p := &m.small
	if size == maxReplay {
		p = &m.large
	}
	if b, ok := p.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, size)
	return &b
}

func (m *bodyMemory) put(b *[]byte) {
	m.used.Add(-int64(len(*b)))
	if len(*b) == smallBody {
		m.small.Put(b)
	} else {
		m.large.Put(b)
	}
}

// replay is a request body that can be sent again: it keeps what was pulled, up to maxReplay.
// The server owns the body, so replay never closes it.
type replay struct {
	src      message.Body
	memory   *bodyMemory
	buf      *[]byte
	n, pos   int   // bytes kept; bytes of them sent in this try
	err      error // the body's end, once it was seen
	pulled   bool
	lost     bool   // something was pulled and not kept
	gathered bool   // all of it was kept before an origin was asked
	held     []byte // was pulled ahead, is not kept, and comes after what is
}

func (r *replay) begin(src message.Body, m *bodyMemory, length int64) {
	*r = replay{src: src, memory: m, lost: false}
	if length > maxReplay {
		r.buf = nil
		r.lost = true
	}
}

// coming says whether the client may still be sending.
func (r *replay) coming() bool { return r.src != nil && r.err == nil && !r.gathered }

// repeatable says whether a further try sends the same body.
func (r *replay) repeatable() bool {
	return r.src == nil || !r.pulled || !r.lost && (r.err == nil || errors.Is(r.err, io.EOF))
}

// Rewind has the next pull begin at the start again, and says whether that is possible. The last
// handler asks it when a connection turned out to be dead.
func (r *replay) Rewind() bool {
	if !r.repeatable() {
		return false
	}
	r.pos = 0
	return true
}

// end gives the memory back.
func (r *replay) end() {
	if r.buf != nil {
		r.memory.put(r.buf)
	}
	*r = replay{}
}

// Next implements message.Body.
func (r *replay) Next(ctx context.Context) ([]byte, error) {
	if r.src == nil {
		return nil, errBodyOver
	}
	if r.pos < r.n {
		b := (*r.buf)[r.pos:r.n]
		if r.pos = r.n; r.held != nil {
			return b, nil
		}
		return b, r.err
	}
	if b := r.held; b != nil {
		r.held = nil
		r.lose()
		return b, r.err
	}
	if r.err != nil {
		return nil, r.err
	}
	b, err := r.pull(ctx)
	if !r.lost && !r.keep(b) {
		r.lose()
	}
	return b, err
}

// ahead pulls a body that can be kept whole before an origin is asked, so that a client who is
// slow to send one does not hold a place and a connection there. A body without a length goes
// on as it comes: it may be one side of a conversation.
func (r *replay) ahead(ctx context.Context, length int64) error {
	if r.src == nil || length <= 0 || length > maxReplay {
		return nil
	}
	for r.err == nil && r.held == nil && int64(r.n) < length {
		b, err := r.pull(ctx)
		if !r.keep(b) {
			r.held = b // there is no memory for more: it is lent until the next pull
		}
		if err != nil && r.err == nil {
			return &stage.Error{Code: "client_gone", Side: stage.SideClient, Status: 499, Close: true, Err: context.Cause(ctx)}
		}
	}
	var bad *message.BodyError
	if errors.As(r.err, &bad) {
		return &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: bad.Status, Close: true, Err: r.err}
	}
	r.pos, r.gathered = 0, int64(r.n) == length
	return nil
}

func (r *replay) pull(ctx context.Context) ([]byte, error) {
	b, err := r.src.Next(ctx)
	if r.pulled = true; err == nil || err == io.EOF || ctx.Err() == nil {
		r.err = err // and not the end of a try, which is no end of the body
	}
	return b, err
}

// keep copies b to what is kept, and says whether there was room.
func (r *replay) keep(b []byte) bool {
	need := r.n + len(b)
	if (r.buf == nil || need > len(*r.buf)) && !r.grow(need) {
		return false
	}
	copy((*r.buf)[r.n:], b)
	r.n, r.pos = need, need
	return true
}

// grow finds memory for need bytes, and leaves all as it is where there is none.
func (r *replay) grow(need int) bool {
	if need > maxReplay {
		return false
	}
	size := smallBody
	if need > smallBody {
		size = maxReplay
	}
	b := r.memory.get(size)
	if b == nil {
		return false
	}
	if r.buf != nil {
		copy(*b, (*r.buf)[:r.n])
		r.memory.put(r.buf)
	}
	r.buf = b
	return true
}

// lose gives up keeping the body.
func (r *replay) lose() {
	if r.buf != nil {
		r.memory.put(r.buf)
		r.buf = nil
	}
	r.lost, r.n, r.pos = true, 0, 0
}

// Close implements message.Body.
func (r *replay) Close(error) {}

var (
	errBodyOver     = errors.New("balance: a request body was pulled after the request's end")
	errAnswerClosed = errors.New("balance: an answer's body was pulled after it was closed")
)
