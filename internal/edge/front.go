// Package edge is the data plane of one place: it joins the stages in their one order, keeps what
// outlives a change, and swaps sites while requests are served.
package edge

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/meter"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// front is the door between the protocols and the stages: it makes an exchange of a request,
// asks the chain, turns an error into a page, and records the end.
type front struct {
	chain  stage.Handler
	client func(*message.Request) client
	record recorder
	meter  *meter.Meter
	panics observe.Counter
	report func(msg string, args ...any)
	encode func(*stage.Exchange, *message.Response) // compresses a page
	tokens challenges
	tarpit *tarpit
	blame  func(netip.Addr) // is told of clients that send what no browser does; nil for nobody
	turns  sync.Pool
	base   atomic.Pointer[time.Time]
}

// client is what the listener knows of a request.
type client struct {
	addr    netip.Addr // the visitor's
	trusted bool       // a trusted proxy stands in between
	takeID  bool       // that proxy may choose the request id
	altSvc  string     // how HTTP/3 is to be had
	field   string     // the listener's own field for a visitor's address; empty for none
	// identity says that the listener asks for client certificates, so that it alone fills Client-Cert.
	identity bool
}

// recorder is what the front needs of edge/record.
type recorder interface {
	Watch(x *stage.Exchange)
	Record(x *stage.Exchange, o message.Outcome)
	Refused(conn *message.Conn, id stage.RequestID, status int, code, detail string)
}

// challenges knows the answers for ACME authorities that check a name by HTTP-01.
type challenges interface {
	KeyAuthorization(token string) (string, bool)
}

// challengePath is where an authority comes (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// challenge answers an ACME authority before any site does; nil for what is none of ours, as an
// origin may do its own.
func (f *front) challenge(x *stage.Exchange) *message.Response {
	path := x.In.Path()
	if len(path) <= len(challengePath) || path[1] != '.' || string(path[:len(challengePath)]) != challengePath || x.In.Method != message.GET {
		return nil
	}
	text, ok := f.tokens.KeyAuthorization(string(path[len(challengePath):]))
	if !ok {
		return nil
	}
	resp := &x.Response
	resp.Reset()
	resp.Status = 200
	resp.AddString(message.ContentType, "application/octet-stream")
	resp.SetBytes([]byte(text))
	x.Mark("acme", "http-01")
	return resp
}

// turn is one exchange and the way back to the pool.
type turn struct {
	stage.Exchange
	front  *front
	altSvc string // how HTTP/3 is to be had, where the listener offers it
	second int64
	date   [29]byte
}

// Serve answers a request; the protocols call it.
func (f *front) Serve(ctx context.Context, req *message.Request) *message.Response {
	t := f.turn()
	x := &t.Exchange
	x.Start, x.In = f.now(), req
	c := f.client(req)
	x.Client, x.PeerTrusted, x.ClientField, t.altSvc = c.addr, c.trusted, c.field, c.altSvc
	x.ID = idFor(req, c)
	f.meter.Watch(x)
	f.record.Watch(x)
	if t := req.Conn; t != nil && t.TLS != nil && c.identity {
		identify(req, t.TLS.ClientCert)
	}
	resp, err := f.ask(ctx, x)
	if err != nil {
		x.Failure = stage.AsError(err)
		room := f.tarpit.hold(ctx, x, x.Failure)
		resp = page(x, x.Failure)
		if !room {
			resp.Set(message.Connection, []byte("close"))
		}
		f.encode(x, resp)
	}
	t.finish(resp)
	f.meter.Answered(x, resp.Status)
	resp.Ender = t
	return resp
}

// now is the time with one reading of the clock, where time.Now needs one for the wall and one
// that is monotonic. The wall's is read once a second, so that a step of it is followed.
func (f *front) now() time.Time {
	if b := f.base.Load(); b != nil {
		if d := time.Since(*b); d < time.Second {
			return b.Add(d)
		}
	}
	t := time.Now()
	f.base.Store(&t)
	return t
}

// ask runs the chain; a panic in it ends this request only.
func (f *front) ask(ctx context.Context, x *stage.Exchange) (resp *message.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			f.panics.Inc()
			f.report("panic while serving a request", "id", x.ID.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			resp, err = nil, &stage.Error{Code: "proxy_internal_error", Side: stage.SideEdge, Status: 500, Err: fmt.Errorf("panic: %v", p)}
		}
	}()
	if resp := f.challenge(x); resp != nil {
		return resp, nil
	}
	return f.chain.Serve(ctx, x)
}

// Refuse gives the page for bytes that are no acceptable request.
func (f *front) Refuse(_ context.Context, conn *message.Conn, status int, code, detail string) *message.Response {
	id := newID()
	f.record.Refused(conn, id, status, code, detail)
	if f.blame != nil && conn != nil && nonsense(status) {
		f.blame(conn.Client)
	}
	return refusal(id, status)
}

// nonsense says whether what was refused is nothing that a browser sends. A browser may send too much.
func nonsense(status int) bool {
	return status == 400 || status == 408 || status == 501 || status == 505
}

func (f *front) turn() *turn {
	if t, ok := f.turns.Get().(*turn); ok {
		return t
	}
	return &turn{front: f}
}

// End implements message.Ender.
func (t *turn) End(o message.Outcome) {
	t.Exchange.End(o)
	t.front.record.Record(&t.Exchange, o)
	t.front.meter.Count(&t.Exchange, o)
	t.Exchange.Reset()
	t.front.turns.Put(t)
}

// finish adds to every answer what only the front can know.
func (t *turn) finish(resp *message.Response) {
	resp.Set(message.XRequestId, t.IDText())
	if (t.Spill != "" || t.Full != "") && t.Failure == nil { // RFC 9209; a page says why it is one
		t.addDetails(resp)
	}
	if !resp.Has(message.Date) { // RFC 9110 section 6.6.1
		if s := t.Start.Unix(); s != t.second {
			t.second = s
			t.Start.UTC().AppendFormat(t.date[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
		}
		resp.Add(message.Date, t.date[:])
	}
	if t.altSvc != "" && t.In.Proto != message.HTTP3 && !resp.Has(message.AltSvc) {
		resp.AddString(message.AltSvc, t.altSvc)
	}
	mannersFor(&t.Exchange).secure(&t.Exchange, resp)
	if t.In.Lookup(timingField) != nil {
		t.addTiming(resp)
	}
}

// addDetails says in Proxy-Status why the request is not in the first tier, and what became of it when no
// tier had room.
func (t *turn) addDetails(resp *message.Response) {
	resp.Begin(message.ProxyStatus)
	resp.Append(`relais; details="`)
	if t.Spill != "" {
		resp.Append("spill=")
		resp.Append(t.Spill)
	}
	if t.Full != "" {
		if t.Spill != "" {
			resp.Append(", ")
		}
		resp.Append("full=")
		resp.Append(t.Full)
	}
	resp.Append(`"`)
	resp.End()
}

// identify puts the verified client certificate where RFC 9440 says, before any rule and the cache's
// key see the request, and takes out what the client wrote there.
func identify(req *message.Request, cert string) {
	req.DelLine("Client-Cert")
	req.DelLine("Client-Cert-Chain")
	if cert != "" {
		req.SetLine("Client-Cert", []byte(cert))
	}
}

// timingField asks for Server-Timing on the answer.
const timingField = "Relais-Timing"

// addTiming says what each stage decided and when, in milliseconds since the request's head.
func (t *turn) addTiming(resp *message.Response) {
	resp.Begin(message.ServerTiming)
	var b [24]byte
	for _, m := range t.Trail.Marks() {
		resp.Append(m.Stage)
		resp.Append(`;desc="`)
		resp.Append(m.Code)
		resp.Append(`";dur=`)
		resp.AppendBytes(strconv.AppendFloat(b[:0], float64(m.At.Microseconds())/1000, 'f', 3, 64))
		resp.Append(", ")
	}
	resp.Append("total;dur=")
	resp.AppendBytes(strconv.AppendFloat(b[:0], float64(time.Since(t.Start).Microseconds())/1000, 'f', 3, 64))
	resp.End()
}

// idFor takes the id that a trusted proxy chose, where the listener says so, or makes one.
func idFor(req *message.Request, c client) stage.RequestID {
	if c.takeID && req.Count(message.XRequestId) == 1 {
		if id, ok := stage.ParseRequestID(string(req.Get(message.XRequestId))); ok {
			return id
		}
	}
	return newID()
}

func newID() (id stage.RequestID) {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	return id
}
