package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// crowd sends n requests at once and returns their answers.
func (r *rig) crowd(n int, line string, headers ...string) []*got {
	out := make([]*got, n)
	var wg sync.WaitGroup
	for i := range n {
		x := r.exchange(line, headers...)
		wg.Go(func() { out[i] = r.send(context.Background(), x) })
	}
	wg.Wait()
	return out
}

func bubble(t *testing.T, spec v1.CachePolicySpec, f func(t *testing.T, r *rig), replies ...reply) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, newRigWith(t, Config{Clock: time.Now}, spec, replies...))
		synctest.Wait()
	})
}

func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

func TestRFC9111_4_CollapsedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := ok("Cache-Control: max-age=60")
		rep.wait, rep.slow = after(time.Second), after(3*time.Second)
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, rep)
		led, collapsed := 0, 0
		for i, g := range r.crowd(100, "GET /a") {
			if g.err != nil || g.body != "hello world" {
				t.Fatalf("%d: %v %q", i, g.err, g.body)
			}
			switch g.header("Cache-Status") {
			case "relais; fwd=uri-miss; stored":
				led++
			case "relais; fwd=uri-miss; stored; collapsed":
				collapsed++
			default:
				t.Errorf("%s", g.header("Cache-Status"))
			}
			if g.x.Origin != "origin" || g.x.Tries != 1 || !marked(g.x, "origin", "sent") {
				t.Errorf("%d: nothing is known of the origin", i)
			}
		}
		if led != 1 || collapsed != 99 || len(r.origin.asked) != 1 {
			t.Errorf("%d led, %d collapsed, origin asked %d times", led, collapsed, len(r.origin.asked))
		}
	})
}

func marked(x *stage.Exchange, st, code string) bool {
	for _, m := range x.Trail.Marks() {
		if m.Stage == st && m.Code == code {
			return true
		}
	}
	return false
}

func TestFlightASlowFirstClientDelaysNobody(t *testing.T) {
	big := reply{headers: []string{"Cache-Control: max-age=60"}, body: strings.Repeat("x", 1<<20)}
	bubble(t, v1.CachePolicySpec{}, func(t *testing.T, r *rig) {
		x := r.exchange("GET /a")
		resp, err := r.chain.Serve(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for _, g := range r.crowd(10, "GET /a") {
			if g.err != nil || len(g.body) != 1<<20 {
				t.Fatalf("%v, %d bytes", g.err, len(g.body))
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("the others took %v", d)
		}
		if g := read(t.Context(), x, resp, nil); g.err != nil || len(g.body) != 1<<20 {
			t.Errorf("the slow one: %v, %d bytes", g.err, len(g.body))
		}
	}, big)
}

func TestFlightWaitersStreamAsTheBodyGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := reply{headers: []string{"Cache-Control: max-age=60"}, body: "abcdef", slow: after(time.Hour)}
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, rep)
		for i := range 3 {
			x := r.exchange("GET /a")
			resp, err := r.chain.Serve(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			chunk, err := resp.Body.Next(t.Context())
			if string(chunk) != "abc" || err != nil {
				t.Errorf("%d: first bytes %q, %v", i, chunk, err)
			}
			defer func() {
				g := read(t.Context(), x, resp, nil)
				if g.body != "def" {
					t.Errorf("the rest is %q, %v", g.body, g.err)
				}
			}()
		}
	})
}

func TestFlightFillOutlivesItsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := ok("Cache-Control: max-age=60")
		rep.wait = after(time.Second)
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, rep)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if g := r.send(ctx, r.exchange("GET /a")); errStatus(g.err) != 504 {
			t.Errorf("out of time: %v", g.err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if g := r.send(ctx, r.exchange("GET /a")); stage.AsError(g.err).Side != stage.SideClient {
			t.Errorf("gone: %v", g.err)
		}
		time.Sleep(2 * time.Second)
		if g := r.do("GET /a"); g.cache != "hit" || len(r.origin.asked) != 1 {
			t.Errorf("%s, asked %d times", g.cache, len(r.origin.asked))
		}
	})
}

func TestFlightOriginDiesInTheMiddle(t *testing.T) {
	for name, rep := range map[string]reply{
		"error":    {chunked: true, bodyErr: errors.New("reset")},
		"too few":  {length: 100},
		"too many": {length: 3},
	} {
		t.Run(name, func(t *testing.T) {
			rep.headers, rep.body = []string{"Cache-Control: max-age=60"}, "half of it"
			bubble(t, v1.CachePolicySpec{}, func(t *testing.T, r *rig) {
				for i, g := range r.crowd(5, "GET /a") {
					if g.err == nil && name != "too many" {
						t.Errorf("%d took %q for whole", i, g.body)
					}
				}
				synctest.Wait()
				if st := r.s.Stats(); st.Memory.Index.Objects != 0 {
					t.Errorf("%d entries are stored", st.Memory.Index.Objects)
				}
				r.origin.replies = []reply{ok()}
				if g := r.do("GET /a"); g.err != nil || g.body != "hello world" {
					t.Errorf("later: %v %q", g.err, g.body)
				}
			}, rep)
		})
	}
}

func TestFlightAnErrorIsSharedAndAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := reply{wait: after(time.Second), err: &stage.Error{Code: "connection_refused", Side: stage.SideOrigin, Status: 502}}
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, down)
		for _, g := range r.crowd(50, "GET /a") {
			if errStatus(g.err) != 502 {
				t.Errorf("%v", g.err)
			}
		}
		if len(r.origin.asked) != 1 {
			t.Errorf("asked %d times", len(r.origin.asked))
		}
		// An error page is for those who waited, and not stored.
		r.origin.replies = []reply{{status: 503, body: "busy", wait: after(time.Second)}, ok("Cache-Control: max-age=60")}
		for _, g := range r.crowd(50, "GET /b") {
			if g.status != 503 || g.body != "busy" {
				t.Errorf("%d %q %v", g.status, g.body, g.err)
			}
		}
		if g := r.do("GET /b"); g.status != 200 || len(r.origin.asked) != 3 {
			t.Errorf("later %d, asked %d times", g.status, len(r.origin.asked))
		}
	})
}

func TestFlightAProtectedVisitorDoesNotShareARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := reply{wait: after(time.Second), err: &stage.Error{Code: "no_capacity", Side: stage.SideEdge, Status: 503}}
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, full, ok("Cache-Control: max-age=60"))
		var wg sync.WaitGroup
		wg.Go(func() {
			if g := r.do("GET /a"); errStatus(g.err) != 503 {
				t.Errorf("anonymous: %v", g.err)
			}
		})
		synctest.Wait()
		var good atomic.Int32
		for range 10 {
			x := r.exchange("GET /a")
			x.Visitor.Class = stage.Protected
			wg.Go(func() {
				if g := r.send(context.Background(), x); g.err == nil && g.status == 200 {
					good.Add(1)
				}
			})
		}
		wg.Wait()
		if good.Load() != 10 || len(r.origin.asked) != 2 {
			t.Errorf("%d of 10 served, origin asked %d times", good.Load(), len(r.origin.asked))
		}
	})
}

func TestFlightWhatIsForOneIsNotShared(t *testing.T) {
	for _, h := range []string{"Cache-Control: private", "Cache-Control: no-store", "Set-Cookie: sid=1", "Vary: *"} {
		synctest.Test(t, func(t *testing.T) {
			rep := ok(h, "Last-Modified: @-864000")
			if h == "Cache-Control: private" {
				rep.wait = after(time.Second)
			}
			r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, rep)
			for _, g := range r.crowd(20, "GET /a") {
				if g.err != nil || g.body != "hello world" || strings.Contains(g.header("Cache-Status"), "collapsed") {
					t.Errorf("%s: %v %q %s", h, g.err, g.body, g.header("Cache-Status"))
				}
			}
			if len(r.origin.asked) != 20 {
				t.Errorf("%s: asked %d times for 20 clients", h, len(r.origin.asked))
			}
			// From now on nobody waits for another: all are sent at once.
			r.origin.replies = []reply{{body: "x", headers: []string{h}, wait: after(time.Second)}}
			start := time.Now()
			r.crowd(20, "GET /a")
			if d := time.Since(start); d != time.Second {
				t.Errorf("%s: 20 passes took %v", h, d)
			}
			// And what may be stored again ends that: the next one fetches for all.
			r.origin.replies = []reply{ok("Cache-Control: max-age=60")}
			r.do("GET /a")
			if g := r.do("GET /a"); g.cache != "miss" {
				t.Errorf("%s: %s", h, g.cache)
			}
			synctest.Wait() // a client has its last byte a moment before the answer is stored
			if g := r.do("GET /a"); g.cache != "hit" {
				t.Errorf("%s: %s", h, g.cache)
			}
		})
	}
}

func TestFlightNoCacheIsValidatedForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, ok("Cache-Control: no-cache", `ETag: "1"`))
		r.do("GET /a")
		synctest.Wait()
		r.origin.replies = []reply{{status: 304, headers: []string{`ETag: "1"`}, wait: after(time.Second)}}
		start := time.Now()
		for _, g := range r.crowd(10, "GET /a") {
			if g.cache != "revalidated" || g.body != "hello world" {
				t.Errorf("%s %q", g.cache, g.body)
			}
		}
		if len(r.origin.asked) != 11 || time.Since(start) != time.Second {
			t.Errorf("asked %d times, in %v", len(r.origin.asked), time.Since(start))
		}
	})
}

func TestFlightVariantsDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := ok("Cache-Control: max-age=60", "Vary: Foo")
		rep.wait = after(time.Second)
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, rep)
		var wg sync.WaitGroup
		for i := range 30 {
			x := r.exchange("GET /a", fmt.Sprintf("Foo: %d", i%3))
			wg.Go(func() { r.send(context.Background(), x) })
		}
		wg.Wait()
		for i := range 3 {
			if g := r.do("GET /a", fmt.Sprintf("Foo: %d", i)); g.cache != "hit" {
				t.Errorf("variant %d: %s", i, g.cache)
			}
		}
		if n := len(r.origin.asked); n != 3 {
			t.Errorf("asked %d times for 3 variants", n)
		}
	})
}

func TestRFC5861_3_OneBackgroundValidation(t *testing.T) {
	bubble(t, v1.CachePolicySpec{}, func(t *testing.T, r *rig) {
		r.do("GET /a")
		time.Sleep(5 * time.Second)
		r.origin.replies = []reply{{body: "new", headers: []string{"Cache-Control: max-age=60"}, wait: after(time.Second)}}
		for _, g := range r.crowd(50, "GET /a") {
			if g.cache != "stale" || g.body != "hello world" {
				t.Errorf("%s %q", g.cache, g.body)
			}
		}
		time.Sleep(2 * time.Second)
		if g := r.do("GET /a"); g.cache != "hit" || g.body != "new" || len(r.origin.asked) != 2 {
			t.Errorf("%s %q, asked %d times", g.cache, g.body, len(r.origin.asked))
		}
	}, ok("Cache-Control: max-age=1, stale-while-revalidate=60"))
}

func TestBackgroundValidationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigWith(t, Config{Clock: time.Now, MaxBackground: 2}, v1.CachePolicySpec{}, ok("Cache-Control: max-age=1, stale-while-revalidate=60"))
		for i := range 5 {
			r.do(fmt.Sprintf("GET /%d", i))
		}
		time.Sleep(5 * time.Second)
		rep := ok()
		rep.wait = after(time.Second)
		r.origin.replies = []reply{rep}
		for i := range 5 {
			if g := r.do(fmt.Sprintf("GET /%d", i)); g.cache != "stale" {
				t.Errorf("%d: %s", i, g.cache)
			}
		}
		synctest.Wait()
		if n := len(r.origin.asked) - 5; n != 2 {
			t.Errorf("%d validations at once", n)
		}
		time.Sleep(time.Minute)
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		if r.s.background != 0 {
			t.Errorf("%d are still counted", r.s.background)
		}
	})
}

func TestRFC9111_4_4_InvalidationBeatsAFetchUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := reply{body: "old", headers: []string{"Cache-Control: max-age=60"}, wait: after(time.Second)}
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, old, ok(), reply{body: "new", headers: []string{"Cache-Control: max-age=60"}})
		var wg sync.WaitGroup
		wg.Go(func() { r.do("GET /a") })
		synctest.Wait()
		r.do("POST /a")
		if g := r.do("GET /a"); g.body != "new" {
			t.Errorf("after the change: %q", g.body)
		}
		wg.Wait()
		if g := r.do("GET /a"); g.cache != "hit" || g.body != "new" {
			t.Errorf("later: %s %q", g.cache, g.body)
		}
	})
}

func TestRFC9110_15_2_InterimAnswersPassThrough(t *testing.T) {
	bubble(t, v1.CachePolicySpec{}, func(t *testing.T, r *rig) {
		x := r.exchange("GET /a")
		c := &control{}
		x.In.Control = c
		r.send(t.Context(), x)
		if c.status != 103 || c.link != "</a.css>; rel=preload" || c.blocked == 0 {
			t.Errorf("%+v", c)
		}
		synctest.Wait()
		if g := r.do("GET /a"); g.cache != "hit" {
			t.Errorf("%s", g.cache)
		}
	}, reply{body: "x", early: []string{"Link: </a.css>; rel=preload"}, headers: []string{"Cache-Control: max-age=60"}})
}

type control struct {
	status, blocked int
	link            string
}

func (c *control) Inform(status int, f *message.Fields) {
	c.status, c.link = status, string(f.Get(message.Link))
}
func (c *control) MayBlock() { c.blocked++ }

func TestFlightAPanicIsAnError(t *testing.T) {
	bubble(t, v1.CachePolicySpec{}, func(t *testing.T, r *rig) {
		r.chain = stage.Chain(panicking{}, r.s)
		if g := r.do("GET /a"); errStatus(g.err) != 500 {
			t.Errorf("%v", g.err)
		}
	})
}

type panicking struct{}

func (panicking) Serve(context.Context, *stage.Exchange) (*message.Response, error) { panic("x") }

func TestCloseCancelsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := ok("Cache-Control: max-age=60")
		rep.wait = make(chan struct{})
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, rep)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if g := r.send(ctx, r.exchange("GET /a")); g.err == nil {
			t.Fatal("answered")
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if err := r.s.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
		r.origin.replies = []reply{ok()}
		if g := r.do("GET /a"); g.cache != "pass" || g.err != nil {
			t.Errorf("after Close: %s %v", g.cache, g.err)
		}
	})
}

func TestMaxFillsMakesClientsFetchAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := ok("Cache-Control: max-age=60")
		rep.wait = after(time.Second)
		r := newRigWith(t, Config{Clock: time.Now, MaxFills: 1}, v1.CachePolicySpec{}, rep)
		var wg sync.WaitGroup
		for i := range 3 {
			x := r.exchange(fmt.Sprintf("GET /%d", i))
			wg.Go(func() {
				if g := r.send(context.Background(), x); g.body != "hello world" {
					t.Errorf("%d: %v", i, g.err)
				}
			})
		}
		wg.Wait()
		for i := range 3 {
			if g := r.do(fmt.Sprintf("GET /%d", i)); g.cache != "hit" {
				t.Errorf("%d: %s", i, g.cache)
			}
		}
	})
}

// TestAnErrorPageForWhoHasCookiesIsShownToNobodyElse: others who waited get a page of ours, and the origin is asked once.
func TestAnErrorPageForWhoHasCookiesIsShownToNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, reply{status: 503, body: "sorry, anna", wait: after(time.Second)})
		pages := 0
		for i, g := range r.crowd(20, "GET /a", "Cookie: sid=anna") {
			switch {
			case g.err == nil && g.status == 503 && g.body == "sorry, anna":
				pages++
			case errStatus(g.err) != 503 || stage.AsError(g.err).Code != "origin_error":
				t.Errorf("%d: %d %q %v", i, g.status, g.body, g.err)
			}
		}
		if pages != 1 || len(r.origin.asked) != 1 {
			t.Errorf("%d got the page, and the origin was asked %d times", pages, len(r.origin.asked))
		}
	})
}
