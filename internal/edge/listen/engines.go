package listen

import (
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/http2"
	"github.com/relais-edge/relais/internal/http/http3"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/std"
)

// bounds are a listener's limits as all engines take them. Each engine has a type of its own for
// them, with the fields that it knows, so this is where a limit of the document becomes a limit of
// a server.
type bounds struct {
	head, fields, target      int
	requests, streams         int
	bodyBytes                 int64
	bodyRate, writeRate       int64
	handshake, header, body   time.Duration
	write, idle, tunnelSilent time.Duration
}

// tunnelTimeout ends a WebSocket or another tunnel in which neither side says anything.
const tunnelTimeout = time.Hour

func boundsOf(s *v1.ListenerSpec) bounds {
	l, t := &s.Limits, &s.Timeouts
	return bounds{
		head: int(l.HeaderBytes), fields: l.HeaderFields, target: int(l.TargetBytes),
		requests: l.Requests, streams: l.Streams,
		bodyBytes: int64(v1.Value(l.BodyBytes)), bodyRate: int64(v1.Value(l.BodyRate)), writeRate: int64(v1.Value(l.WriteRate)),
		handshake: t.Handshake.Std(), header: t.Header.Std(), body: t.Body.Std(),
		write: t.Write.Std(), idle: t.Idle.Std(),
	}
}

func (b *bounds) std() std.Config {
	return std.Config{
		Limits:   std.Limits{HeadBytes: b.head, Fields: b.fields, TargetBytes: b.target, BodyBytes: b.bodyBytes, Streams: b.streams, Requests: b.requests},
		Timeouts: std.Timeouts{Header: b.header, Body: b.body, Write: b.write, Idle: b.idle, Tunnel: b.tunnelSilent},
	}
}

func (b *bounds) http1() http1.ServerConfig {
	return http1.ServerConfig{
		Limits:    http1.Limits{HeadBytes: b.head, Fields: b.fields, TargetBytes: b.target},
		BodyBytes: b.bodyBytes, Requests: b.requests,
		HeaderTimeout: b.header, BodyTimeout: b.body, WriteTimeout: b.write, IdleTimeout: b.idle, TunnelTimeout: b.tunnelSilent,
		BodyRate: b.bodyRate, WriteRate: b.writeRate,
	}
}

func (b *bounds) http2() http2.ServerConfig {
	return http2.ServerConfig{
		Limits:    http2.Limits{HeadBytes: b.head, Fields: b.fields, TargetBytes: b.target},
		BodyBytes: b.bodyBytes, Requests: b.requests, Streams: b.streams,
		HeaderTimeout: b.header, BodyTimeout: b.body, WriteTimeout: b.write, IdleTimeout: b.idle, TunnelTimeout: b.tunnelSilent,
		BodyRate: b.bodyRate, WriteRate: b.writeRate,
	}
}

func (b *bounds) http3() http3.ServerConfig {
	return http3.ServerConfig{
		Limits:    http3.Limits{HeadBytes: b.head, Fields: b.fields, TargetBytes: b.target},
		BodyBytes: b.bodyBytes, Requests: b.requests,
		HeaderTimeout: b.header, BodyTimeout: b.body, WriteTimeout: b.write, IdleTimeout: b.idle, TunnelTimeout: b.tunnelSilent,
		BodyRate: b.bodyRate, WriteRate: b.writeRate,
	}
}

// blame tells of a client that did what no browser does.
func (a *Active) blame(c *message.Conn) {
	if a.m.cfg.Abuse != nil && c != nil {
		a.m.cfg.Abuse(c.Client)
	}
}

// engines makes the servers of all versions of HTTP.
func (a *Active) engines() {
	b, h := boundsOf(a.Spec), a.m.cfg.Handler
	b.tunnelSilent = a.m.tunnel
	c := b.std()
	c.Logger = a.m.cfg.Logger.With("listener", a.Key)
	a.std, a.quic = std.NewServer(c, h), std.NewAdapter(c, h)
	if a.Spec.Engine == v1.EngineStd {
		return
	}
	one, two, three := b.http1(), b.http2(), b.http3()
	one.Preface, one.OnSlow, two.OnSlow = a.h2c, a.blame, a.blame
	two.OnAbuse = func(c *message.Conn, kind http2.Abuse) {
		a.series.abuse[kind.String()].Inc()
		a.blame(c)
	}
	three.OnAbuse, three.OnSlow = a.blame, a.blame
	a.own, a.own2, a.own3 = http1.NewServer(one, h), http2.NewServer(two, h), http3.NewServer(three, h)
}
