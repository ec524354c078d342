package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/waf"
	"github.com/relais-edge/relais/internal/edge/waf/regression"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// slot is the stage's place in a site; any would do.
const slot = stage.Slot(5)

// subject is what is asked about requests: the product's stage or an engine.
type subject interface {
	// ask judges the requests, on as many goroutines as there are CPUs, and returns the CPU time of all of them and
	// how many were refused. What can be made ready before is not in the time.
	ask(cases []regression.Case) (cpu time.Duration, denied int, err error)
}

// bed is the edge's own stage with a site, driven as the edge drives it.
type bed struct {
	st     *waf.Stage
	reg    *observe.Registry
	site   *snapshot.Site
	client netip.Addr // who sends all requests; without one each comes from another address
	sent   uint32
}

// visitor sends what needs no source of its own.
const visitor = "203.0.113.7"

// newStage makes a stage; memory is that of the screen for values.
func newStage(memory int) *bed {
	reg := observe.New()
	return &bed{st: waf.New(slot, waf.Config{ScreenMemory: memory}, reg), reg: reg, client: netip.MustParseAddr(visitor)}
}

// level gives the stage of b a site at a paranoia level.
func (b *bed) level(paranoia int) (*bed, error) {
	site, err := b.compile(fmt.Sprint("bench/level", paranoia), v1.WafPolicySpec{Paranoia: paranoia}, nil)
	if err != nil {
		return nil, err
	}
	return &bed{st: b.st, reg: b.reg, site: site, client: b.client}, nil
}

// compile makes a site of one route under a policy; old is the site that it replaces.
func (b *bed) compile(key string, spec v1.WafPolicySpec, old *snapshot.Site) (*snapshot.Site, error) {
	if spec.BodyBytes == nil {
		spec.BodyBytes = new(v1.Size(128 << 10))
	}
	site := &snapshot.Site{
		Key: bundle.Key(key), Spec: &bundle.Site{WAF: map[string]*v1.WafPolicySpec{"w": &spec}},
		Routes: []snapshot.Route{{Spec: &v1.Route{Policies: v1.Policies{WAF: "w"}}}},
		Parts:  make([]any, stage.Slots),
	}
	var before stage.Part
	if old != nil {
		before = old.Parts[slot]
	}
	part, err := b.st.Compile(site, before)
	if err != nil {
		return nil, err
	}
	site.Parts[slot] = part
	return site, nil
}

// oneChunk is a body in one piece.
type oneChunk struct {
	b    []byte
	done bool
}

// Next implements message.Body.
func (c *oneChunk) Next(context.Context) ([]byte, error) {
	if c.done {
		return nil, io.EOF
	}
	c.done = true
	return c.b, io.EOF
}

// Close implements message.Body.
func (*oneChunk) Close(error) {}

// exchange is a request as the protocol would hand it to the stages.
func (b *bed) exchange(c *regression.Case) *stage.Exchange {
	r := &message.Request{Proto: message.HTTP11, Secure: true}
	r.SetMethod([]byte(c.Method))
	path, query, has := strings.Cut(c.Target, "?")
	r.SetPath([]byte(path))
	if has {
		r.SetQuery([]byte(query))
	}
	host := ""
	for _, f := range c.Fields {
		r.AddLine([]byte(f.Name), []byte(f.Value))
		if strings.EqualFold(f.Name, "host") {
			host = f.Value
		}
	}
	r.SetAuthority([]byte(host))
	if c.Body != "" {
		r.Body, r.ContentLength = &oneChunk{b: []byte(c.Body)}, int64(len(c.Body))
	}
	x := &stage.Exchange{In: r, Site: b.site, Route: &b.site.Routes[0], Start: time.Now(), Client: b.client}
	if !b.client.IsValid() {
		b.sent++
		x.Client = netip.AddrFrom4([4]byte{10, byte(b.sent >> 16), byte(b.sent >> 8), byte(b.sent)})
	}
	x.SetHost([]byte(host))
	x.SetPath([]byte(path))
	return x
}

// backend answers what the stage lets pass, after it has read the body.
type backend struct{ passed atomic.Int64 }

func (h *backend) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	h.passed.Add(1)
	if in := x.In; in.Body != nil {
		for {
			if _, err := in.Body.Next(ctx); err == io.EOF {
				break
			} else if err != nil {
				return nil, err
			}
		}
		in.Body.Close(nil)
	}
	x.Response.Status = 200
	return &x.Response, nil
}

// ask implements subject.
func (b *bed) ask(cases []regression.Case) (time.Duration, int, error) {
	exchanges := make([]*stage.Exchange, len(cases))
	for i := range cases {
		exchanges[i] = b.exchange(&cases[i])
	}
	next := &backend{}
	var failed atomic.Pointer[error]
	cpu := onAllCPUs(len(cases), func(i int) {
		x := exchanges[i]
		_, err := b.st.Serve(context.Background(), x, next)
		x.End(message.Outcome{})
		var e *stage.Error
		if err != nil && !(errors.As(err, &e) && e.Code == "http_request_denied") {
			failed.Store(&err)
		}
	})
	if err := failed.Load(); err != nil {
		return 0, 0, fmt.Errorf("the stage: %w", *err)
	}
	return cpu, len(cases) - int(next.passed.Load()), nil
}

// proved is how many requests the stage's screen has looked at, and how many of them it proved clean.
func (b *bed) proved() (all, clean int) {
	w := httptest.NewRecorder()
	b.reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for l := range strings.Lines(w.Body.String()) {
		rest, ok := strings.CutPrefix(l, `relais_waf_screen_total{verdict="`)
		if !ok {
			continue
		}
		verdict, value, _ := strings.Cut(rest, `"} `)
		n, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
		all += int(n)
		if verdict == "clean" {
			clean += int(n)
		}
	}
	return all, clean
}

// onAllCPUs does f for 0 to n-1 on a goroutine for each CPU and returns the CPU time that the process used meanwhile,
// collections of garbage and all.
func onAllCPUs(n int, f func(i int)) time.Duration {
	const batch = 4
	var at atomic.Int64
	var wg sync.WaitGroup
	runtime.GC()
	from := cpuTime()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				end := int(at.Add(batch))
				for i := end - batch; i < min(end, n); i++ {
					f(i)
				}
				if end >= n {
					return
				}
			}
		})
	}
	wg.Wait()
	return cpuTime() - from
}

// cpuTime is what this process has used: on a busy machine it says more than a clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
