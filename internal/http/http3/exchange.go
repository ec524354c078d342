package http3

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

const (
	// patience is how long a stream that was just accepted may keep others from being
	// accepted: its first bytes are usually here, but may have been lost on the way.
	patience = 500 * time.Microsecond
	// firstRead is the memory for a request's bytes; most heads fit.
	firstRead = 4 << 10
	// bodyRead is the memory for a body's.
	bodyRead = 32 << 10
	// maxKept is the most memory for bytes that is kept from one request to the next.
	maxKept = 16 << 10
)

// exchange is one request stream. Its goroutine reads and writes; a request's body may be
// pulled, and Inform called, in another.
type exchange struct {
	c       *serverConn
	str     *quic.Stream
	src     io.Reader // str
	id      quic.StreamID
	leading bool // this goroutine still is the one to accept the next stream
	index   int  // in c.active; guarded by c.mu
	listed  bool // it is in c.active
	early   bool // it came before the end of the handshake

	in      []byte
	r, w    int  // what was read and not used yet is in[r:w]
	eof     bool // the client has ended the stream
	unknown int  // frames of unknown types
	skipped int  // and their bytes
	empty   int  // DATA frames without data

	// Limits of time: milliseconds of the server's clock, 0 for none, -1 when over.
	readBy, writeBy atomic.Int64
	begun           atomic.Bool // the answer; what is waited for of the body changes with it
	sent, taken     pace        // of the body that comes, guarded by body.mu, and of the answer

	req     message.Request
	trailer message.Fields
	head    head
	section section
	body    requestBody
	ender   message.Ender
	sending message.Body // of the answer, while it is being sent
	outcome message.Outcome
	final   bool        // nothing more is written
	socket  bool        // the request came as an extended CONNECT
	cut     atomic.Bool // the client has reset the stream before its end
	halfway atomic.Bool // the tunnel's way to the client has ended, in good order
	refused bool        // it is no acceptable request
	spoilt  bool        // something panicked that may still hold the request

	wmu      sync.Mutex // of what follows: interim answers may come from another goroutine
	out      []byte
	answered bool
	informed bool
}

// serve serves one stream, and says whether its goroutine is still the one that accepts.
func (x *exchange) serve() (leading bool) {
	c := x.c
	defer x.rescue()
	_ = x.str.SetReadDeadline(time.Now().Add(patience))
	if err := x.fill(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && err != io.EOF {
		c.gone()
		x.giveUp(codeRequestCancelled)
		return x.end()
	}
	if !x.eof {
		x.handOff()
		x.readBy.Store(c.s.watch.Limit(c.s.cfg.HeaderTimeout))
		_ = x.str.SetReadDeadline(time.Time{})
	}
	ctx := x.str.Context()
	flt := x.readHead()
	if flt == nil {
		flt = x.prepare(ctx)
	}
	if flt != nil {
		x.refuse(ctx, flt)
		return x.end()
	}
	if x.socket || x.req.Method == message.CONNECT {
		var end func()
		ctx, end = x.tunnelContext()
		defer end()
	}
	c.s.requests.Add(1)
	if !c.heard.Load() {
		c.heard.Store(true)
	}
	resp := x.call(ctx)
	if resp == nil {
		x.refuse(ctx, faultPanic)
		return x.end()
	}
	if resp.Lists(message.Connection, "close") {
		c.goAway()
	}
	x.answer(ctx, resp)
	return x.end()
}

// handOff has another goroutine accept the next streams, before this one waits for anything.
func (x *exchange) handOff() {
	if x.leading {
		x.leading = false
		x.c.enlist(x)
		x.c.promote()
	}
}

// MayBlock implements message.Control.
func (x *exchange) MayBlock() { x.handOff() }

// call asks the handler; nil when it panicked or gave nothing.
func (x *exchange) call(ctx context.Context) (resp *message.Response) {
	defer func() {
		if recover() != nil {
			x.c.s.panics.Add(1)
			x.spoilt, resp = true, nil
		}
	}()
	return x.c.s.handler.Serve(ctx, &x.req)
}

// rescue ends an exchange whose answer panicked while it was being sent.
func (x *exchange) rescue() {
	if recover() == nil {
		return
	}
	x.c.s.panics.Add(1)
	x.spoilt = true
	x.handOff()
	if b := x.sending; b != nil {
		x.sending = nil
		func() {
			defer func() { _ = recover() }()
			b.Close(errPanic)
		}()
	}
	x.finish(errPanic)
	x.end()
}

// fill reads more of the stream; io.EOF when there is no more.
func (x *exchange) fill() error {
	if x.eof {
		return io.EOF
	}
	if x.r == x.w {
		x.r, x.w = 0, 0
	}
	if x.w == len(x.in) {
		if x.r > 0 {
			x.w = copy(x.in, x.in[x.r:x.w])
			x.r = 0
		} else {
			more := make([]byte, max(firstRead, 2*len(x.in)))
			copy(more, x.in)
			x.in = more
		}
	}
	n, err := x.src.Read(x.in[x.w:])
	x.w += n
	x.sent.bytes += int64(n)
	if err == io.EOF {
		x.eof = true
	}
	if n > 0 {
		return nil
	}
	return err
}

// frame reads frames up to one of a type that means something, of which it returns type and
// length. Its head is used up. At the end of the stream the error is io.EOF.
func (x *exchange) frame() (kind, length uint64, err error) {
	for {
		kind, length, n := frameHead(x.in[x.r:x.w])
		if n == 0 {
			if err := x.fill(); err == io.EOF && x.r < x.w {
				return 0, 0, errFrameCut
			} else if err != nil {
				return 0, 0, err
			}
			continue
		}
		if notOnRequests(kind) {
			return 0, 0, errFrameType
		}
		x.r += n
		if kind == frameData || kind == frameHeaders {
			return kind, length, nil
		}
		if x.unknown++; x.unknown > maxUnknown || length > uint64(maxUnknownSize-x.skipped) {
			return 0, 0, errFloodUnknown
		}
		x.skipped += int(length)
		if err := x.skip(int(length)); err != nil {
			return 0, 0, err
		}
	}
}

// skip passes over n bytes.
func (x *exchange) skip(n int) error {
	for {
		have := min(n, x.w-x.r)
		x.r += have
		if n -= have; n == 0 {
			return nil
		}
		if err := x.fill(); err == io.EOF {
			return errFrameCut
		} else if err != nil {
			return err
		}
	}
}

// payload reads n bytes and lends them until the next read.
func (x *exchange) payload(n int) ([]byte, error) {
	for x.w-x.r < n {
		if err := x.fill(); err == io.EOF {
			return nil, errFrameCut
		} else if err != nil {
			return nil, err
		}
	}
	b := x.in[x.r : x.r+n]
	x.r += n
	return b, nil
}

// readHead reads the request's head.
func (x *exchange) readHead() *fault {
	kind, length, err := x.frame()
	if err == nil && kind == frameData {
		err = errFrameOrder
	}
	if err != nil {
		return x.headFault(err)
	}
	if length > uint64(x.c.s.cfg.Limits.HeadBytes) {
		return faultHeadLong
	}
	block, err := x.payload(int(length))
	if err != nil {
		return x.headFault(err)
	}
	return x.section.parseHead(block, &x.c.s.cfg.Limits, &x.req, &x.head)
}

// headFault says what became of a head that could not be read.
func (x *exchange) headFault(err error) *fault {
	var ce *connError
	switch {
	case errors.As(err, &ce):
		return faultOf(ce)
	case err == io.EOF:
		return faultCut
	case errors.Is(err, os.ErrDeadlineExceeded):
		return faultSlow
	}
	return faultGone
}

// prepare makes the request ready for the handler.
func (x *exchange) prepare(ctx context.Context) *fault {
	c, r, h := x.c, &x.req, &x.head
	r.Control = x
	if v := r.Get(message.Priority); v != nil && !c.reprioritised(x) {
		p := readPriority(v)
		x.str.SetPriority(p.urgency, p.incremental)
	}
	if flt := x.beginBody(ctx); flt != nil {
		return flt
	}
	if x.early {
		if flt := x.admitEarly(ctx); flt != nil {
			return flt
		}
	}
	r.Conn = c.facts.Load()
	if h.seen&sawProtocol != 0 {
		x.socket = true
		r.UpgradeWebSocket()
	}
	x.readBy.Store(0)
	return nil
}

// beginBody finds out whether there is a body.
func (x *exchange) beginBody(ctx context.Context) *fault {
	r, h := &x.req, &x.head
	if m := x.c.s.cfg.BodyBytes; m > 0 && r.ContentLength > m {
		return faultBodyLong
	}
	whole := x.eof && x.r == x.w
	switch {
	case r.Method == message.CONNECT: // what comes belongs to the tunnel
		x.body.start(x, -1)
		r.ContentLength = 0
		return nil
	case whole && h.length > 0:
		return &fault{400, "bad_content_length", "a Content-Length, and no body (section 4.1.2)", true, nil}
	case whole || h.length == 0:
		r.ContentLength = 0
		return nil
	}
	x.body.start(x, h.length)
	if h.length < 0 && r.Method.Safe() {
		// Only the end of the stream says that there is no body. Safe requests seldom have one,
		// so it is worth the wait to know: they may be cached and tried again.
		none, flt := x.body.peek()
		if flt != nil {
			return flt
		}
		if none {
			x.body.open = false
			r.ContentLength = 0
			return nil
		}
	}
	x.handOff() // the body may be pulled in another goroutine
	x.body.expect, x.body.talks = h.expect, message.IsGRPC(&r.Fields)
	r.Body, r.Trailer = &x.body, &x.trailer
	return nil
}

// admitEarly has a request that came in early data wait for the end of the handshake, unless a
// repeat of it by somebody else does no harm (RFC 8470 section 3): early data can be replayed.
func (x *exchange) admitEarly(ctx context.Context) *fault {
	c, r := x.c, &x.req
	if c.settle(true) {
		return nil
	}
	if r.Body == nil && (r.Method == message.GET || r.Method == message.HEAD || r.Method == message.OPTIONS) {
		if !r.Has(message.EarlyData) {
			r.AddString(message.EarlyData, "1")
		}
		c.s.early.Add(1)
		return nil
	}
	x.handOff()
	select {
	case <-c.qc.HandshakeComplete():
		c.settle(true)
		return nil
	case <-ctx.Done():
		return faultEarly
	}
}

// end frees the exchange, and says whether its goroutine is still the one that accepts.
func (x *exchange) end() (leading bool) {
	c := x.c
	if x.body.open {
		x.body.finish()
	}
	x.str.CancelRead(codeNone) // nothing, when the request was read to its end
	x.str.ReleaseStreamCredit()
	if x.listed {
		c.delist(x)
	}
	leading = x.leading
	keep := !x.spoilt && x.req.Size() <= maxKept
	x.readBy.Store(0)
	x.writeBy.Store(0)
	x.begun.Store(false)
	x.req.Reset()
	x.trailer.Reset()
	x.outcome, x.ender, x.str, x.src = message.Outcome{}, nil, nil, nil
	if x.body.mem != nil {
		c.s.bodies.Put(x.body.mem)
		x.body.mem, x.in = nil, x.body.small
	}
	if keep && cap(x.in) <= maxKept && cap(x.out) <= maxKept {
		c.s.spare.Put(x)
	}
	return leading
}
