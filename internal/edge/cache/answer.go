package cache

import (
	"math"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// hit answers from the store (RFC 9111 section 4).
func (s *Stage) hit(x *stage.Exchange, l *local, o *object, r result, detail string) *message.Response {
	s.m.tier(o)
	resp := &x.Response
	resp.Reset()
	f := formOf(x.In, o, o.length(), l.now)
	if f.several {
		f.divide(x.In)
	}
	if l.rule.watched {
		s.watch(x, l, o, l.born) // before its fields go to the response
	}
	f.start(resp, o)
	age := o.Age(l.now)
	addAge(&resp.Fields, age)
	s.addStatus(&resp.Fields, &status{ttl: floorSeconds(o.Lifetime - age), detail: detail, key: l.told()})
	s.setContent(x, l, &f, o)
	s.done(x, r, detail)
	sent := int64(0)
	if x.In.Method != message.HEAD {
		sent = max(resp.ContentLength, 0)
	}
	l.rule.site.saved.Add(sent)
	if x.ID[0]%sampled == 1 && !x.Visitor.Background {
		s.top.note(l.key, sent, true, l.now)
	}
	return resp
}

// addAge appends Age in whole seconds (RFC 9111 section 5.1).
func addAge(f *message.Fields, age time.Duration) {
	f.Begin(message.Age)
	f.AppendInt(min(int64(age/time.Second), semantics.MaxDelta))
	f.End()
}

// floorSeconds rounds towards the past, so that a stale answer never shows a ttl of 0 or more.
func floorSeconds(d time.Duration) int64 {
	return int64(math.Floor(d.Seconds()))
}

// form is what a request gets of a stored answer: the whole, a part, or a 304. Of the body
// length bytes are sent, from first on; a length of -1 is not known yet.
type form struct {
	status              int
	first, length, size int64
	// several says that the request asks for several parts, which divide finds; until then the form
	// is that of the whole.
	several bool
	multi   *multipart
}

// formOf judges the conditions and ranges of a request (RFC 9111 section 4.3.2, RFC 9110
// section 13.2.2). Size is that of the whole body, -1 when it is not known yet.
func formOf(in *message.Request, o *object, size int64, now time.Time) form {
	f := form{status: o.status, length: size, size: size}
	if o.status != 200 {
		return f
	}
	if semantics.Conditional(&in.Fields) && semantics.NotModified(&in.Fields, &o.fields, time.Unix(0, o.Came), now) {
		f.status = 304
		return f
	}
	if size < 0 || in.Method != message.GET || !in.Has(message.Range) {
		return f
	}
	kind, first, last := semantics.Range(&in.Fields, &o.fields, size, now)
	switch kind {
	case semantics.Part:
		f.status, f.first, f.length = 206, first, last-first+1
	case semantics.Several:
		f.several = true
	case semantics.Unsatisfiable:
		f.status, f.length = 416, 0
	}
	return f
}

// start gives resp its status and the stored fields. A 304 and a 416 have none that describe
// a body which they do not have (RFC 9110 section 15.4.5).
func (f *form) start(resp *message.Response, o *object) {
	resp.Status, resp.ContentLength = f.status, f.length
	switch f.status {
	case o.status:
		if o.hold != nil && o.hold.n.Load() == 1 && &o.hold.own.fields == &o.fields {
			resp.Fields, o.fields = o.fields, resp.Fields // nobody else reads them, and o is at its end
			return
		}
		resp.Fields.CopyFrom(&o.fields)
		return
	case 206, 416:
		defer f.setRange(&resp.Fields)
	}
	for i := range o.fields.Len() {
		id, name, value := o.fields.At(i)
		switch id {
		case message.ContentRange:
			continue
		case message.ContentEncoding:
			if f.status != 206 {
				continue
			}
		case message.ContentType, message.ContentLanguage:
			// In a 304 they guide the caches between us and the client (RFC 9110 section 15.4.5).
			if f.status == 416 || id == message.ContentType && f.multi != nil {
				continue
			}
		}
		resp.AddLine(name, value)
	}
}

// setRange says which part, or parts, an answer has.
func (f *form) setRange(to *message.Fields) {
	if f.multi != nil {
		f.multi.setType(to)
		return
	}
	setContentRange(to, f)
}

// setContentRange sets Content-Range (RFC 9110 section 14.4).
func setContentRange(to *message.Fields, f *form) {
	to.Begin(message.ContentRange)
	to.Append("bytes ")
	if f.status == 416 {
		to.Append("*")
	} else {
		to.AppendInt(f.first)
		to.Append("-")
		to.AppendInt(f.first + f.length - 1)
	}
	to.Append("/")
	to.AppendInt(f.size)
	to.End()
}

// setContent gives x's response what the form says of a stored answer, which x holds.
func (s *Stage) setContent(x *stage.Exchange, l *local, f *form, o *object) {
	resp, m := &x.Response, x.In.Method
	switch {
	case message.NoBody(m, resp.Status) || f.length == 0:
		return
	case f.multi != nil:
		l.body = piecewise{rest: f.multi.pieces(o)}
		resp.ContentLength = l.body.length()
	case !o.partial() && (o.body != nil || o.hold == nil):
		f.setBody(resp, m, o.body)
		return
	default:
		l.body = piecewise{}
		l.body.rest = o.pieces(l.body.one[:0], semantics.Span{First: f.first, Last: f.first + f.length - 1})
	}
	l.body.hold, l.body.bufs, l.body.sent = o.hold, &s.blocks, &s.sentFiles
	if o.hold != nil && !o.hold.ref.InMemory() {
		x.MayBlock()
	}
	resp.Body = &l.body
}

// setBody gives resp its part of a whole body.
func (f *form) setBody(resp *message.Response, m message.Method, body []byte) {
	if f.length < 0 {
		f.length = int64(len(body))
		resp.ContentLength = f.length
	}
	if !message.NoBody(m, resp.Status) && f.length > 0 {
		resp.Bytes = body[f.first : f.first+f.length]
	}
}
