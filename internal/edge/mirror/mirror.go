// Package mirror sends copies of requests to another pool, after their own.
//
// The stage stands before the balancer and sees what is sent to an origin, with all rewrites.
// It notes the request, and gathers its body as that is sent, up to a bound. When the
// visitor's answer has left, the copy is put into a bounded queue; when that is full it is
// dropped and counted. The answers are read and thrown away. So a copy never delays the
// visitor, never fails it, and is never made of half a body.
//
// Copies bear the field Relais-Mirror: 1. Methods that change things are mirrored only where
// the document says so: an order must not be made twice. A copy belongs to no visitor: it
// takes nothing of what a pool keeps for those with a basket.
package mirror

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"

	v1 "github.com/relais-edge/relais/api/v1"
)

// Config of a Stage. The zero value of a field but Slot means its default.
type Config struct {
	// Slot is the stage's place in sites and exchanges.
	Slot stage.Slot
	// Queue is how many copies wait at most, 512 by default.
	Queue int
	// Workers is how many copies are under way at once, 32 by default.
	Workers int
	// MaxBytes bounds the bodies of all copies together, 32 MiB by default.
	MaxBytes int64
	// Timeout is the time for one copy and its answer, 30 s by default.
	Timeout time.Duration
}

// Field marks a copy.
const Field = "Relais-Mirror"

// Stage mirrors requests. It implements stage.Stage and stage.Compiler.
type Stage struct {
	cfg    Config
	send   stage.Handler
	queue  chan *clone
	clones sync.Pool
	bytes  atomic.Int64 // of the bodies of copies

	sent, failed, dropped, tooLarge, incomplete observe.Counter
}

var (
	_ stage.Stage    = (*Stage)(nil)
	_ stage.Compiler = (*Stage)(nil)
)

// New returns a stage that sends copies with send. It starts nothing; Run sends.
func New(cfg Config, send stage.Handler, m *observe.Registry) *Stage {
	cfg.Queue = cmp.Or(cfg.Queue, 512)
	cfg.Workers = cmp.Or(cfg.Workers, 32)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 32<<20)
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	f := m.Counters("relais_mirror_requests_total", "Copies of requests, by what became of them.", 5, "outcome")
	return &Stage{
		cfg: cfg, send: send, queue: make(chan *clone, cfg.Queue),
		sent: f.With("sent"), failed: f.With("failed"), dropped: f.With("dropped"),
		tooLarge: f.With("too-large"), incomplete: f.With("incomplete"),
	}
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "mirror" }

// rule is a v1.Mirror as it runs.
type rule struct {
	pool    string
	share   float64
	unsafe  bool
	maxBody int64
}

type part struct{ routes []*rule }

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	p, some := &part{make([]*rule, len(site.Routes))}, false
	for i := range site.Routes {
		if m := site.Routes[i].Spec.Mirror; m != nil {
			r := &rule{pool: m.Pool, share: 1, unsafe: m.Unsafe, maxBody: int64(v1.Value(m.MaxBody))}
			if m.Percent != nil {
				r.share = m.Percent.Fraction()
			}
			p.routes[i], some = r, true
		}
	}
	if !some {
		return nil, nil
	}
	return p, nil
}

// clone is a copy on its way. It goes back to the pool of them.
type clone struct {
	x    stage.Exchange
	body []byte
}

// local is what the stage keeps in an exchange: the copy that is made of it, and the body that
// is gathered.
type local struct {
	s     *Stage
	clone *clone // nil when no copy is made
	inner message.Body
	max   int64
	whole bool // there is no body, or it was read to its end
	large bool
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p, _ := x.Site.Parts[s.cfg.Slot].(*part)
	if p == nil || p.routes[x.Route.Index] == nil {
		return next.Serve(ctx, x)
	}
	r := p.routes[x.Route.Index]
	l, _ := x.Local[s.cfg.Slot].(*local)
	if l == nil {
		l = &local{s: s}
		x.Local[s.cfg.Slot] = l
	}
	if l.clone == nil && r.takes(x) {
		if x.Out.ContentLength > r.maxBody {
			s.tooLarge.Inc()
			x.Mark("mirror", "too-large")
		} else {
			l.begin(x, r)
		}
	}
	return next.Serve(ctx, x)
}

// takes says whether a request is one to copy. What becomes a tunnel is none.
func (r *rule) takes(x *stage.Exchange) bool {
	if !r.unsafe && !x.Out.Method.Safe() || x.Out.Has(message.Upgrade) {
		return false
	}
	return r.share >= 1 || float64(x.Chance()>>11)/(1<<53) < r.share
}

// begin notes the request as it is sent.
func (l *local) begin(x *stage.Exchange, r *rule) {
	c, _ := l.s.clones.Get().(*clone)
	if c == nil {
		c = new(clone)
	}
	x.ForkInto(&c.x)
	c.x.Visitor = stage.Visitor{}
	c.x.Pool = r.pool
	out := &c.x.Out
	out.CopyFrom(&x.Out)
	out.Body, out.Trailer, out.Control = nil, nil, nil
	out.SetLine(Field, []byte("1"))
	out.Del(message.Expect)
	c.x.Forwarding = true
	l.clone, l.max, l.large = c, r.maxBody, false
	if l.whole = x.Out.Body == nil; !l.whole {
		l.inner, x.Out.Body = x.Out.Body, l
	}
	x.OnEnd(l)
	x.Mark("mirror", "copied")
}

// Next implements message.Body: what is sent is gathered.
func (l *local) Next(ctx context.Context) ([]byte, error) {
	if l.inner == nil {
		return nil, io.ErrUnexpectedEOF
	}
	b, err := l.inner.Next(ctx)
	if c := l.clone; c != nil && !l.large {
		n := int64(len(b))
		if int64(len(c.body))+n > l.max || l.s.bytes.Add(n) > l.s.cfg.MaxBytes {
			if int64(len(c.body))+n <= l.max {
				l.s.bytes.Add(-n)
			}
			l.large = true
		} else {
			c.body = append(c.body, b...)
		}
	}
	l.whole = l.whole || err == io.EOF
	return b, err
}

// Close implements message.Body.
func (l *local) Close(cause error) {
	if l.inner != nil {
		l.inner.Close(cause)
		l.inner = nil
	}
}

// End implements message.Ender: the visitor is served, now the copy may go.
func (l *local) End(message.Outcome) {
	c, s := l.clone, l.s
	l.clone, l.inner = nil, nil
	switch {
	case c == nil:
		return
	case l.large:
		s.tooLarge.Inc()
	case !l.whole:
		s.incomplete.Inc()
	default:
		select {
		case s.queue <- c:
			return
		default:
			s.dropped.Inc()
		}
	}
	s.free(c)
}

// free gives a copy's memory back.
func (s *Stage) free(c *clone) {
	s.bytes.Add(-int64(len(c.body)))
	c.body = c.body[:0]
	if cap(c.body) > 64<<10 {
		c.body = nil
	}
	c.x.Reset()
	s.clones.Put(c)
}

// Run sends copies until ctx ends. What waits then is dropped.
func (s *Stage) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range s.cfg.Workers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case c := <-s.queue:
					s.one(ctx, c)
				}
			}
		})
	}
	return nil
}

// one sends a copy and throws its answer away.
func (s *Stage) one(ctx context.Context, c *clone) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	out := message.Outcome{}
	defer func() {
		if p := recover(); p != nil {
			out.Err = fmt.Errorf("panic: %v", p)
		}
		c.x.End(out)
		if out.Err != nil {
			s.failed.Inc()
		} else {
			s.sent.Inc()
		}
		s.free(c)
	}()
	if len(c.body) > 0 {
		c.x.Out.Body = &content{b: c.body}
		c.x.Out.ContentLength = int64(len(c.body))
	} else {
		c.x.Out.ContentLength = 0
	}
	c.x.Start = time.Now()
	resp, err := s.send.Serve(ctx, &c.x)
	if err != nil {
		out.Err = err
		return
	}
	out.Status = resp.Status
	if resp.Body != nil {
		resp.Body.Close(discard(ctx, resp.Body))
	}
}

// maxDiscard is what is read of an answer to have its connection again.
const maxDiscard = 256 << 10

// discard reads a body to its end, if that is near; nil means that it did.
func discard(ctx context.Context, b message.Body) error {
	for n := 0; n < maxDiscard; {
		chunk, err := b.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		n += len(chunk)
	}
	return errUnread
}

var errUnread = fmt.Errorf("the answer to a copy is not read beyond %d bytes", maxDiscard)

// content is a body in memory.
type content struct{ b []byte }

// Next implements message.Body.
func (c *content) Next(context.Context) ([]byte, error) {
	b := c.b
	c.b = nil
	return b, io.EOF
}

// Close implements message.Body.
func (c *content) Close(error) {}
