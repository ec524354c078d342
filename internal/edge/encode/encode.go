package encode

import (
	"cmp"
	"context"
	"io"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Config of a Stage. The zero value of a field but Slot means its default.
type Config struct {
	// Slot is the stage's place in sites and exchanges.
	Slot stage.Slot
	// MaxMemory bounds the memory of encoders in use, in bytes, and with it how many answers are
	// compressed at once; beyond it they pass as they are. Streams of events get half of it.
	MaxMemory int64
}

// DefaultMaxMemory is enough for about 130 answers at once with zstd, 85 with br or 230 with gzip.
const DefaultMaxMemory = 256 << 20

// Stage compresses answers. It implements stage.Stage and stage.Compiler.
type Stage struct {
	slot     stage.Slot
	encoders encoders
	answers  [codings]observe.Counter
	in, out  [codings]observe.Counter
	busy     observe.Counter
}

var (
	_ stage.Stage    = (*Stage)(nil)
	_ stage.Compiler = (*Stage)(nil)
)

// New returns a stage. It starts nothing.
func New(cfg Config, m *observe.Registry) *Stage {
	s := &Stage{slot: cfg.Slot}
	s.encoders.max = cmp.Or(cfg.MaxMemory, DefaultMaxMemory)
	answers := m.Counters("relais_encode_answers_total", "Answers that were compressed.", int(codings), "coding")
	volume := m.Counters("relais_encode_bytes_total", "Bytes before (in) and after (out) compression.", 2*int(codings), "coding", "direction")
	for c := zstdCoding; c < codings; c++ {
		s.answers[c] = answers.With(codingNames[c])
		s.in[c], s.out[c] = volume.With(codingNames[c], "in"), volume.With(codingNames[c], "out")
	}
	s.busy = m.Counters("relais_encode_busy_total", "Answers that were not compressed because too many were at once.", 1).With()
	return s
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "encode" }

// rule is a v1.Compression as it runs.
type rule struct {
	prefer []coding
	types  types
	min    int64
	level  level
	shared bool // answers may be stored, and given to clients with other weights
	made   made
}

// part is what the stage makes of a site: a rule for each route that has one.
type part struct {
	routes []*rule
	first  *rule // of them; for the pages of requests that found no route
}

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	p := &part{routes: make([]*rule, len(site.Routes))}
	for i := range site.Routes {
		spec := site.Routes[i].Spec
		if enabled(spec.Compression) {
			p.routes[i] = newRule(spec.Compression, spec.Cache != "")
			if p.first == nil {
				p.first = p.routes[i]
			}
		}
	}
	if p.first == nil {
		return nil, nil
	}
	return p, nil
}

func enabled(c *v1.Compression) bool { return c != nil && (c.Enabled == nil || *c.Enabled) }

func newRule(c *v1.Compression, shared bool) *rule {
	r := &rule{types: compileTypes(c.Types), min: int64(v1.Value(c.MinLength)), level: levelOf(c.Level), shared: shared}
	for _, name := range c.Algorithms {
		for k := zstdCoding; k < codings; k++ {
			if codingNames[k] == name {
				r.prefer = append(r.prefer, k)
			}
		}
	}
	if len(r.prefer) == 0 {
		r.prefer = []coding{zstdCoding, brCoding, gzipCoding}
	}
	return r
}

// local is what the stage keeps in an exchange from one request to the next.
type local struct {
	buf  []byte
	body body
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p, _ := x.Site.Parts[s.slot].(*part)
	if p == nil || p.routes[x.Route.Index] == nil {
		return next.Serve(ctx, x)
	}
	r := p.routes[x.Route.Index]
	l, _ := x.Local[s.slot].(*local)
	if l == nil {
		l = new(local)
		x.Local[s.slot] = l
	}
	l.restore(&x.Out.Fields, message.IfNoneMatch)
	l.restore(&x.Out.Fields, message.IfMatch)
	resp, err := next.Serve(ctx, x)
	if err != nil {
		return nil, err
	}
	if resp.Status == 304 {
		l.remark(&resp.Fields, &x.In.Fields)
		if resp.Has(message.Vary) {
			addVary(&resp.Fields) // it takes the place of a stored one
		}
		return resp, nil
	}
	if resp.Status == 206 {
		if r.may(resp) {
			addVary(&resp.Fields) // it is a part of the plain one of several
		}
		return resp, nil
	}
	if !r.fits(resp) {
		return resp, nil
	}
	addVary(&resp.Fields)
	if c := choose(&x.In.Fields, r.prefer, r.shared); c != identity {
		s.encode(x, l, r, resp, c)
	}
	return resp, nil
}

// fits says whether an answer is one to compress, whoever asks: other clients get it with the
// same Vary.
func (r *rule) fits(resp *message.Response) bool {
	switch {
	case resp.Status < 200, resp.Status == 204, resp.Status == 205, resp.Status == 206, resp.Upgrade != nil:
		return false
	case resp.ContentLength >= 0 && resp.ContentLength < max(r.min, 1):
		return false
	case resp.Has(message.ContentRange):
		return false
	}
	return r.may(resp)
}

// may says whether the representation that an answer is of, or of a part of, may be compressed.
func (r *rule) may(resp *message.Response) bool {
	if encoded(&resp.Fields) || resp.Lists(message.CacheControl, "no-transform") {
		return false
	}
	return r.types.holds(resp.Get(message.ContentType))
}

// encoded says whether an answer has a coding already.
func encoded(f *message.Fields) bool {
	v := f.Get(message.ContentEncoding)
	return v != nil && !message.EqualFold(syntax.Trim(v), "identity")
}

// addVary adds Accept-Encoding to Vary (RFC 9110 section 12.5.5).
func addVary(f *message.Fields) {
	if !f.Lists(message.Vary, "accept-encoding") && !f.Lists(message.Vary, "*") {
		f.AddString(message.Vary, "Accept-Encoding")
	}
}

// encode puts an answer into a coding. An answer to HEAD gets the fields only.
func (s *Stage) encode(x *stage.Exchange, l *local, r *rule, resp *message.Response, c coding) {
	head := x.In.Method == message.HEAD
	if !head {
		events := isEventStream(resp.Get(message.ContentType))
		b := &l.body
		memory := b.out.b[:0]
		if cap(memory) > 4*maxOutput {
			memory = nil
		}
		*b = body{s: s, coding: c, level: r.level, events: events}
		b.out.b = memory
		b.enc = s.encoders.take(c, r.level, events, &b.out)
		if b.enc == nil {
			s.busy.Inc()
			x.Mark("encode", "busy")
			return
		}
		b.take(resp)
		s.answers[c].Inc()
	}
	x.Mark("encode", codingNames[c])
	resp.ContentLength = -1
	resp.Del(message.ContentLength)
	resp.Del(message.AcceptRanges)
	for _, name := range [...]string{"Content-Digest", "Repr-Digest", "Digest", "Content-MD5"} {
		resp.DelLine(name) // of other bytes
	}
	resp.Del(message.ContentEncoding)
	resp.AddString(message.ContentEncoding, codingNames[c])
	if tag := resp.Get(message.ETag); tag != nil {
		l.buf = appendMarked(l.buf[:0], tag, c)
		resp.Set(message.ETag, l.buf)
	}
}

// take makes b the body of resp. Chunks that are at hand are sent together only where the
// length of the whole is known: of others, what is at hand may be the beginning of a chunk
// whose end comes late.
func (b *body) take(resp *message.Response) {
	if resp.Body == nil {
		b.inner = &whole{resp.Bytes}
		resp.Bytes = nil
	} else {
		b.inner = resp.Body
		if p, ok := resp.Body.(message.Prompt); ok && resp.ContentLength >= 0 {
			b.prompt = p
		}
	}
	resp.Body = b
}

// whole is a body in memory.
type whole struct{ b []byte }

func (w *whole) Next(context.Context) ([]byte, error) { return w.b, io.EOF }
func (w *whole) Close(error)                          {}
func (w *whole) Ready() bool                          { return true }

func (s *Stage) count(c coding, in, out int) {
	s.in[c].Add(float64(in))
	s.out[c].Add(float64(out))
}
