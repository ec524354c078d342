package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestFlightTooLargeGoesOnInBoundedMemory(t *testing.T) {
	const size = 8 << 20
	body := strings.Repeat("0123456789abcdef", size/16)
	synctest.Test(t, func(t *testing.T) {
		rep := reply{headers: []string{"Cache-Control: max-age=60"}, body: body, chunked: true, slow: after(time.Second)}
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{MaxObject: 1 << 20}, rep)
		var xs []*stage.Exchange
		var rs []*message.Response
		for range 2 {
			x := r.exchange("GET /a")
			resp, err := r.chain.Serve(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			xs, rs = append(xs, x), append(rs, resp)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := r.s.buffered.Load(); n > 1<<20+window+64<<10 {
			t.Errorf("%d bytes are held for two who do not read", n)
		}
		var wg sync.WaitGroup
		for i := range xs {
			wg.Go(func() {
				if g := read(t.Context(), xs[i], rs[i], nil); g.err != nil || g.body != body {
					t.Errorf("%d: %v, %d bytes", i, g.err, len(g.body))
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if n := r.s.buffered.Load(); n != 0 {
			t.Errorf("%d bytes are still counted", n)
		}
		if g := r.do("GET /a"); g.cache != "pass" || g.body != body {
			t.Errorf("later: %s, %d bytes", g.cache, len(g.body))
		}
		if st := r.s.Stats(); st.Memory.Index.Objects > 0 {
			t.Errorf("stored: %+v", st)
		}
	})
}

func TestFlightTooLargeDropsWhoHoldsOthersUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := reply{headers: []string{"Cache-Control: max-age=60"}, body: strings.Repeat("x", 8<<20), chunked: true, slow: after(time.Second)}
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{MaxObject: 1 << 20}, rep)
		x := r.exchange("GET /a")
		slow, err := r.chain.Serve(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if g := r.do("GET /a"); g.err != nil || len(g.body) != len(rep.body) || g.cache != "collapsed" {
			t.Errorf("%v, %d bytes, %s", g.err, len(g.body), g.cache)
		}
		if d := time.Since(start); d < slowAfter || d > time.Second+2*slowAfter {
			t.Errorf("took %v", d)
		}
		if g := read(t.Context(), x, slow, nil); g.err == nil {
			t.Error("the slow one took a part for the whole")
		}
	})
}

func TestFlightTooLargeEndsWhenAllLeft(t *testing.T) {
	rep := reply{headers: []string{"Cache-Control: max-age=60"}, body: strings.Repeat("x", 8<<20), chunked: true}
	bubble(t, v1.CachePolicySpec{MaxObject: 1 << 20}, func(t *testing.T, r *rig) {
		x := r.exchange("GET /a")
		resp, err := r.chain.Serve(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close(io.ErrClosedPipe)
		x.End(message.Outcome{})
		synctest.Wait()
		if len(r.s.running) != 0 || r.s.buffered.Load() != 0 {
			t.Errorf("%d fetches, %d bytes", len(r.s.running), r.s.buffered.Load())
		}
	}, rep)
}

// Run with -race: many clients, keys, variants, leavers and changes at once.
func TestManyAtOnce(t *testing.T) {
	r := newRigWith(t, Config{Clock: time.Now, MaxBytes: 1 << 20}, v1.CachePolicySpec{MaxObject: 64 << 10})
	r.chain = stage.Chain(busy{}, r.s)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			x := new(stage.Exchange)
			for i := range 300 {
				k := (i*7 + w) % 23
				method := "GET"
				if i%41 == 0 {
					method = "POST"
				}
				r.fill(x, fmt.Sprintf("%s /%d", method, k), fmt.Sprintf("Foo: %d", i%3))
				ctx, cancel := context.WithCancel(context.Background())
				if i%13 == 0 {
					cancel()
				}
				g := r.send(ctx, x)
				cancel()
				if g.err == nil && method == "GET" && !strings.HasPrefix(g.body, fmt.Sprintf("/%d ", k)) {
					t.Errorf("/%d got %.20q", k, g.body)
				}
			}
		})
	}
	wg.Wait()
	if err := r.s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if n := r.s.buffered.Load(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

// busy answers by the path: storable, not storable, varied, large and failing answers.
type busy struct{}

func (busy) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	var k int
	fmt.Sscanf(string(x.In.Path()), "/%d", &k)
	if k == 22 {
		return nil, &stage.Error{Code: "connection_refused", Side: stage.SideOrigin, Status: 502}
	}
	resp := &x.Response
	resp.Reset()
	resp.Status, resp.ContentLength = 200, -1
	resp.AddString(message.CacheControl, [...]string{"max-age=60", "private", "max-age=0", "max-age=60"}[k%4])
	if k%4 != 2 {
		resp.AddString(message.ETag, `"x"`)
	}
	if k%3 == 0 {
		resp.AddString(message.Vary, "Foo")
	}
	n := 1000
	if k%5 == 0 {
		n = 200 << 10
	}
	resp.Body = &replyBody{r: reply{body: string(x.In.Path()) + " " + string(bytes.Repeat([]byte{'x'}, n))}, rest: string(x.In.Path()) + " " + string(bytes.Repeat([]byte{'x'}, n))}
	return resp, nil
}

func TestTheLastPieceIsReadOnlyOnceTheAnswerIsStored(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{})
	fl := &flight{s: r.s, rule: &rule{maxObject: 1 << 20}, storing: true, body: body{total: 5, stored: true}}
	rd := &reader{fl: fl, end: 5}
	for _, piece := range []string{"ab", "cde"} {
		if err := fl.add(t.Context(), []byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if chunk, err := rd.Next(t.Context()); string(chunk) != "ab" || err != nil {
		t.Fatalf("%q, %v", chunk, err)
	}
	if rd.Ready() {
		t.Error("the last piece is ready")
	}
	fl.mu.Lock()
	fl.body.done = true
	fl.changed()
	fl.mu.Unlock()
	if chunk, err := rd.Next(t.Context()); string(chunk) != "cde" || err != io.EOF {
		t.Errorf("%q, %v", chunk, err)
	}
	fl.s.charge(-fl.body.charged)
}

func TestWhoHasAnAnswerFindsItStored(t *testing.T) {
	for name, rep := range map[string]reply{
		"with a body":    {status: 200, headers: []string{"Cache-Control: max-age=60"}, body: "hello"},
		"without a body": {status: 301, headers: []string{"Cache-Control: max-age=60", "Location: /b", "Content-Length: 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, v1.CachePolicySpec{}, rep)
			r.real = true // nobody waits until the fetch is over
			for i := range 300 {
				line := fmt.Sprintf("GET /a?%d", i)
				r.do(line)
				if g := r.do(line); g.cache != "hit" {
					t.Fatalf("%d: %s", i, g.cache)
				}
			}
		})
	}
}
