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
	resp := &x.Response
	resp.Reset()
	resp.Fields.CopyFrom(&o.fields)
	resp.Status = o.status
	age := o.Age(l.now)
	addAge(&resp.Fields, age)
	s.addStatus(&resp.Fields, &status{ttl: floorSeconds(o.Lifetime - age), detail: detail})
	first := shape(resp, x.In, o, int64(len(o.body)), l.now)
	setBody(resp, x.In.Method, o.body, first)
	s.done(x, r, detail)
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

// shape makes of a whole answer, whose fields are in resp and whose body has size bytes (-1 when
// that is not known yet), what the request asks for: a 304, a part, or the whole. Of the body
// ContentLength bytes are sent, from first on.
func shape(resp *message.Response, in *message.Request, o *object, size int64, now time.Time) (first int64) {
	resp.ContentLength = size
	if o.status != 200 {
		return 0
	}
	if semantics.Conditional(&in.Fields) && semantics.NotModified(&in.Fields, &o.fields, time.Unix(0, o.Came), now) {
		resp.Status = 304
		// What describes the body belongs to an answer with a body (RFC 9110 section 15.4.5).
		resp.Del(message.ContentType)
		resp.Del(message.ContentEncoding)
		resp.Del(message.ContentLanguage)
		resp.Del(message.ContentRange)
		return 0
	}
	if size < 0 || in.Method != message.GET || !in.Has(message.Range) {
		return 0
	}
	kind, first, last := semantics.Range(&in.Fields, &o.fields, size, now)
	switch kind {
	case semantics.Part:
		resp.Status, resp.ContentLength = 206, last-first+1
		setContentRange(&resp.Fields, first, last, size)
	case semantics.Unsatisfiable:
		resp.Status, resp.ContentLength = 416, 0
		resp.Del(message.ContentType)
		resp.Del(message.ContentEncoding)
		setContentRange(&resp.Fields, -1, -1, size)
		return 0
	}
	return first
}

// setContentRange sets Content-Range (RFC 9110 section 14.4); a first of -1 means none.
func setContentRange(f *message.Fields, first, last, size int64) {
	f.Del(message.ContentRange)
	f.Begin(message.ContentRange)
	f.Append("bytes ")
	if first < 0 {
		f.Append("*")
	} else {
		f.AppendInt(first)
		f.Append("-")
		f.AppendInt(last)
	}
	f.Append("/")
	f.AppendInt(size)
	f.End()
}

// setBody gives resp, which shape made, its part of a whole body.
func setBody(resp *message.Response, m message.Method, body []byte, first int64) {
	if resp.ContentLength < 0 {
		resp.ContentLength = int64(len(body))
	}
	if !message.NoBody(m, resp.Status) && resp.ContentLength > 0 {
		resp.Bytes = body[first : first+resp.ContentLength]
	}
}
