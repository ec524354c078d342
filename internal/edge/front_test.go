package edge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/meter"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

type chainFunc func(x *stage.Exchange) (*message.Response, error)

func (f chainFunc) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	return f(x)
}

type records struct {
	ended   []stage.RequestID
	failure *stage.Error
	refused string
}

func (r *records) Watch(*stage.Exchange) {}

func (r *records) Record(x *stage.Exchange, _ message.Outcome) {
	r.ended, r.failure = append(r.ended, x.ID), x.Failure
}

func (r *records) Refused(_ *message.Conn, _ stage.RequestID, _ int, code, _ string) {
	r.refused = code
}

func newFront(c client, f chainFunc) (*front, *records) {
	r := &records{}
	return &front{
		chain: f, record: r, meter: meter.New(slotMeter), client: func(*message.Request) client { return c }, report: func(string, ...any) {},
		panics: observe.New().Counters("panics", "", 1).With(), tokens: tokens{"abc": "abc.thumb"},
		encode: func(*stage.Exchange, *message.Response) {}, tarpit: newTarpit(observe.New()),
	}, r
}

type tokens map[string]string

func (t tokens) KeyAuthorization(token string) (string, bool) {
	v, ok := t[token]
	return v, ok
}

func request(fields ...string) *message.Request {
	req := &message.Request{Proto: message.HTTP11, Conn: &message.Conn{}}
	req.SetMethod([]byte("GET"))
	for i := 0; i < len(fields); i += 2 {
		req.AddLine([]byte(fields[i]), []byte(fields[i+1]))
	}
	return req
}

func answers(status int) chainFunc {
	return func(x *stage.Exchange) (*message.Response, error) {
		x.Response.Reset()
		x.Response.Status = status
		x.Mark("route", "all")
		return &x.Response, nil
	}
}

func TestEveryAnswerHasAnIDAndADate(t *testing.T) {
	f, r := newFront(client{altSvc: `h3=":443"`}, answers(200))
	resp := f.Serve(t.Context(), request("Relais-Timing", "1"))
	id := string(resp.Get(message.XRequestId))
	date, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", string(resp.Get(message.Date)))
	if len(id) != stage.IDLen || err != nil || time.Since(date) > time.Minute {
		t.Errorf("id %q, date %v (%v)", id, date, err)
	}
	if got := string(resp.Get(message.AltSvc)); got != `h3=":443"` {
		t.Errorf("Alt-Svc %q", got)
	}
	if got := string(resp.Get(message.ServerTiming)); !strings.HasPrefix(got, `route;desc="all";dur=`) || !strings.Contains(got, "total;dur=") {
		t.Errorf("Server-Timing %q", got)
	}
	resp.Ender.End(message.Outcome{Status: 200})
	if len(r.ended) != 1 || r.ended[0].String() != id {
		t.Errorf("recorded %v, want %s once", r.ended, id)
	}
	if resp := f.Serve(t.Context(), request()); resp.Has(message.ServerTiming) || string(resp.Get(message.XRequestId)) == id {
		t.Error("timing unasked, or the id of another request")
	}
}

func TestAnIDIsTakenOnlyFromATrustedProxyWhereTheListenerSaysSo(t *testing.T) {
	theirs := stage.RequestID{1, 2, 3}.String()
	for _, c := range []struct {
		take  bool
		sent  string
		taken bool
	}{{true, theirs, true}, {false, theirs, false}, {true, "not-an-id", false}, {true, "", false}} {
		f, _ := newFront(client{addr: netip.MustParseAddr("192.0.2.1"), takeID: c.take}, answers(200))
		resp := f.Serve(t.Context(), request("X-Request-Id", c.sent))
		if got := string(resp.Get(message.XRequestId)); (got == theirs) != c.taken || len(got) != stage.IDLen {
			t.Errorf("take %v, sent %q: got %q", c.take, c.sent, got)
		}
	}
}

func TestAPanicEndsOneRequestOnly(t *testing.T) {
	f, r := newFront(client{}, func(*stage.Exchange) (*message.Response, error) { panic("a bug") })
	resp := f.Serve(t.Context(), request())
	if resp.Status != 500 || !strings.Contains(string(resp.Bytes), string(resp.Get(message.XRequestId))) || strings.Contains(string(resp.Bytes), "a bug") {
		t.Errorf("%d %s", resp.Status, resp.Bytes)
	}
	resp.Ender.End(message.Outcome{Status: 500})
	if r.failure == nil || r.failure.Side != stage.SideEdge {
		t.Errorf("recorded %+v", r.failure)
	}
}

func TestAnErrorBecomesThePageThatTheVisitorTakes(t *testing.T) {
	limits := &message.Fields{}
	limits.AddString(message.RateLimit, `"a";r=0`)
	limited := &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 429, RetryAfter: 1500 * time.Millisecond, Fields: limits, Err: errors.New("secret")}
	f, _ := newFront(client{}, func(*stage.Exchange) (*message.Response, error) { return nil, limited })
	for _, c := range []struct{ accept, language, kind, want string }{
		{"text/html,*/*", "en", "text/html; charset=utf-8", "Too many requests"},
		{"text/html", "fr-CH, en", "text/html; charset=utf-8", "Trop de requêtes"},
		{"application/json", "", "application/problem+json", `"status":429`},
		{"*/*", "", "text/plain; charset=utf-8", "429 Too many requests"},
	} {
		resp := f.Serve(t.Context(), request("Accept", c.accept, "Accept-Language", c.language))
		body := string(resp.Bytes)
		if resp.Status != 429 || string(resp.Get(message.ContentType)) != c.kind || !strings.Contains(body, c.want) || strings.Contains(body, "secret") ||
			!strings.Contains(body, string(resp.Get(message.XRequestId))) {
			t.Errorf("%s: %d %s %s", c.accept, resp.Status, resp.Get(message.ContentType), body)
		}
		for id, want := range map[message.ID]string{
			message.RetryAfter: "2", message.RateLimit: `"a";r=0`, message.CacheControl: "no-store", message.ProxyStatus: "relais; error=http_request_denied",
		} {
			if got := string(resp.Get(id)); got != want {
				t.Errorf("%s: %s is %q, want %q", c.accept, id, got, want)
			}
		}
	}
}

func TestWhatIsNoRequestIsRefusedWithAnID(t *testing.T) {
	f, r := newFront(client{}, answers(200))
	resp := f.Refuse(t.Context(), nil, 400, "bare_lf", "a detail")
	if resp.Status != 400 || len(resp.Get(message.XRequestId)) != stage.IDLen || string(resp.Get(message.ProxyStatus)) != "relais; error=http_request_error" || r.refused != "bare_lf" {
		t.Errorf("%d %s, refused %q", resp.Status, resp.Get(message.ProxyStatus), r.refused)
	}
}

func TestRFC8555HTTP01IsAnsweredBeforeSites(t *testing.T) {
	f, _ := newFront(client{}, answers(299))
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/.well-known/acme-challenge/abc", "abc.thumb", 200},
		{"GET", "/.well-known/acme-challenge/other", "", 299}, // perhaps the origin's own
		{"GET", "/.well-known/acme-challenge/", "", 299},
		{"POST", "/.well-known/acme-challenge/abc", "", 299},
		{"GET", "/.well-known/acme-challenge", "", 299},
		{"GET", "/", "", 299},
		{"GET", "", "", 299},
	} {
		req := request()
		req.SetMethod([]byte(c.method))
		req.SetPath([]byte(c.path))
		resp := f.Serve(t.Context(), req)
		if resp.Status != c.status || c.body != "" && string(resp.Bytes) != c.body {
			t.Errorf("%s %s: %d %q", c.method, c.path, resp.Status, resp.Bytes)
		}
	}
}

func TestRFC9440ClientCertIsTheListenersWord(t *testing.T) {
	var got []string
	see := func(x *stage.Exchange) (*message.Response, error) {
		got = nil
		for i := range x.In.Len() {
			_, name, value := x.In.At(i)
			got = append(got, string(name)+"="+string(value))
		}
		return answers(200)(x)
	}
	f, _ := newFront(client{identity: true}, see)
	for cert, want := range map[string]string{":AAAA:": "[Accept=a Client-Cert=:AAAA:]", "": "[Accept=a]"} {
		req := request("Client-Cert", ":forged:", "client-cert", ":again:", "Client-Cert-Chain", ":forged:", "Accept", "a")
		req.Conn.TLS = &message.TLS{ClientCert: cert}
		f.Serve(t.Context(), req)
		if fmt.Sprint(got) != want {
			t.Errorf("with %q: %v, want %s", cert, got, want)
		}
	}
}
