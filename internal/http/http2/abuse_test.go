package http2

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// TestAbuseEndsTheConnection shows for each kind of abuse that it ends with ENHANCE_YOUR_CALM,
// is counted, and does no harm to another connection.
func TestAbuseEndsTheConnection(t *testing.T) {
	limits := AbuseLimits{
		Resets: 20, Errors: 20, Refused: 20, Heads: 5, Continuations: 10, Settings: 10, Pings: 20,
		Priorities: 20, Empty: 20, Windows: 100, Small: 50,
	}
	blocked := make(chan struct{})
	kinds := make(chan Abuse, 100)
	cfg := ServerConfig{Streams: 30, Abuse: limits, WriteTimeout: 600 * time.Millisecond}
	cfg.OnAbuse = func(_ *message.Conn, k Abuse) { kinds <- k }
	s, addr := serve(t, cfg, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		switch string(r.Path()) {
		case "/wait":
			r.Control.MayBlock()
			select {
			case <-ctx.Done():
			case <-blocked:
			}
		case "/big":
			return text(strings.Repeat("x", 200_000))
		}
		return text("ok")
	}), nil)
	defer close(blocked)
	many := func(n int, do func(p *peer, i uint32)) func(p *peer) {
		return func(p *peer) {
			for i := range n {
				do(p, uint32(2*i+1))
			}
		}
	}
	bomb := func(p *peer, id uint32) { // a field of 4 KB in the table, and references to it
		b := []byte{0x40, 1, 'a'}
		b = append(hpack.AppendInt(b, 0, 7, 4000), strings.Repeat("b", 4000)...)
		b = append(get("/"), b...)
		for range 8000 {
			b = append(b, 0xbe)
		}
		p.headers(id, true, b)
	}
	for _, c := range []struct {
		kind     Abuse
		settings []setting
		do       func(p *peer)
	}{
		{AbuseReset, nil, many(50, func(p *peer, id uint32) {
			p.headers(id, true, get("/wait"))
			p.out = appendReset(p.out, id, Cancel)
		})},
		{AbuseReset, nil, many(50, func(p *peer, id uint32) {
			p.headers(id, true, get("/"))
			p.out = appendReset(p.out, id, Cancel)
		})},
		{AbuseError, nil, many(50, func(p *peer, id uint32) { // MadeYouReset
			p.headers(id, true, get("/wait"))
			p.out = appendWindowUpdate(p.out, id, 0)
		})},
		{AbuseError, nil, many(50, func(p *peer, id uint32) { p.headers(id, true, get("/", "Upper", "case")) })},
		{AbuseRefused, nil, many(60, func(p *peer, id uint32) { p.headers(id, true, get("/wait")) })},
		{AbuseHead, nil, many(10, bomb)},
		{AbuseContinuation, nil, func(p *peer) {
			p.out = appendHead(p.out, 0, typeHeaders, 0, 1)
			for range 20 {
				p.out = appendHead(p.out, 0, typeContinuation, 0, 1)
			}
		}},
		{AbuseContinuation, nil, func(p *peer) {
			p.out = appendHead(p.out, 0, typeHeaders, 0, 1)
			for range 6 {
				p.out = appendHead(p.out, minMaxFrame, typeContinuation, 0, 1)
				p.out = append(p.out, make([]byte, minMaxFrame)...)
			}
		}},
		{AbuseSettings, nil, many(20, func(p *peer, _ uint32) { p.out = appendSettings(p.out) })},
		{AbusePing, nil, many(50, func(p *peer, _ uint32) { p.out = appendPing(p.out, [8]byte{}, false) })},
		{AbusePriority, nil, many(50, func(p *peer, _ uint32) {
			p.out = append(appendHead(p.out, 5, typePriority, 0, 1), 0, 0, 0, 0, 9)
		})},
		{AbusePriority, nil, many(50, func(p *peer, _ uint32) {
			p.out = append(appendHead(p.out, 7, typePriorityUpdate, 0, 0), 0, 0, 0, 9, 'u', '=', '1')
		})},
		{AbuseEmpty, nil, func(p *peer) {
			p.headers(1, false, get("/wait"))
			for range 50 {
				p.out = appendData(p.out, 1, nil, false)
			}
		}},
		{AbuseEmpty, nil, many(50, func(p *peer, _ uint32) { p.out = appendHead(p.out, 0, 0xbe, 0, 0) })},
		{AbuseWindow, nil, many(200, func(p *peer, _ uint32) { p.out = appendWindowUpdate(p.out, 0, 1) })},
		{AbuseSmall, []setting{{settingInitialWindow, 1}}, func(p *peer) {
			p.headers(1, true, get("/big"))
			p.send()
			for range limits.Small {
				p.until(typeData)
				p.out = appendWindowUpdate(p.out, 1, 1)
				p.send()
			}
		}},
		{AbuseStall, []setting{{settingInitialWindow, 1 << 20}}, func(p *peer) {
			p.headers(1, true, get("/big"))
			p.send()
		}},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			before := s.Stats().Abuse[c.kind]
			honest := dial(t, addr)
			p := dial(t, addr, c.settings...)
			c.do(p)
			p.send()
			if got := p.goAway(); got != EnhanceYourCalm {
				t.Fatalf("GOAWAY with %v", got)
			}
			if k := <-kinds; k != c.kind {
				t.Errorf("counted as %v", k)
			}
			if n := s.Stats().Abuse[c.kind] - before; n != 1 {
				t.Errorf("counted %d times", n)
			}
			honest.headers(1, true, get("/"))
			honest.send()
			if a := honest.responses(1)[1]; a.body != "ok" {
				t.Errorf("another connection got %+v", a)
			}
		})
	}
}

func TestOrdinaryClientsAreNotAbusive(t *testing.T) {
	s, addr := serve(t, ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
		return text(strings.Repeat("x", 20_000))
	}), nil)
	p := dial(t, addr)
	for i := range 2000 { // updates for each frame of data, a ping for each request
		id := uint32(2*i + 1)
		p.headers(id, true, get("/"))
		p.out = appendPing(p.out, [8]byte{}, false)
		p.send()
		p.responses(1)
		p.out = appendWindowUpdate(p.out, 0, 20_000)
	}
	if got := s.Stats(); got.Requests != 2000 || got.Abuse != [numAbuse]uint64{} {
		t.Errorf("%+v", got)
	}
}
