package mirror

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// got is a copy as the other pool saw it.
type got struct{ pool, method, path, body, field string }

// shadow is the other pool.
type shadow struct {
	copies chan got
	hold   chan struct{}
	err    error
}

func (s *shadow) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	if s.hold != nil {
		<-s.hold
	}
	if s.err != nil {
		return nil, s.err
	}
	s.copies <- got{x.Pool, string(x.Out.MethodName()), string(x.Out.Path()), read(ctx, x.Out.Body), string(x.Out.Lookup(Field))}
	x.Response.Status = 500
	x.Response.Body = &content{b: []byte("nobody reads this")}
	return &x.Response, nil
}

func read(ctx context.Context, b message.Body) string {
	var out []byte
	for b != nil {
		chunk, err := b.Next(ctx)
		out = append(out, chunk...)
		if err != nil {
			break
		}
	}
	return string(out)
}

// primary is the route's own origin; it reads as many chunks of the body as it is told.
type primary struct{ reads int }

func (p primary) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	for range p.reads {
		if x.Out.Body == nil {
			break
		}
		if _, err := x.Out.Body.Next(ctx); err != nil {
			break
		}
	}
	x.Response.Reset()
	x.Response.Status = 200
	return &x.Response, nil
}

// chunks is a body in parts.
type chunks struct{ list []string }

func (c *chunks) Next(context.Context) ([]byte, error) {
	if len(c.list) == 0 {
		return nil, io.EOF
	}
	b := []byte(c.list[0])
	c.list = c.list[1:]
	return b, nil
}
func (c *chunks) Close(error) {}

type rig struct {
	*Stage
	site *snapshot.Site
	far  *shadow
}

func newRig(t *testing.T, cfg Config, m v1.Mirror) *rig {
	t.Helper()
	far := &shadow{copies: make(chan got, 100)}
	if m.MaxBody == nil {
		m.MaxBody = new(v1.Size(64))
	}
	m.Pool = "next"
	r := &rig{New(cfg, far, observe.New()), &snapshot.Site{Parts: make([]any, stage.Slots)}, far}
	r.site.Routes = []snapshot.Route{{Spec: &v1.Route{Mirror: &m}}}
	p, err := r.Compile(r.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.site.Parts[0] = p
	return r
}

// ask sends a request, ends it, and returns its mark.
func (r *rig) ask(t *testing.T, x *stage.Exchange, method string, body message.Body, reads int) string {
	t.Helper()
	x.Reset()
	x.In, x.Site, x.Route = &message.Request{}, r.site, &r.site.Routes[0]
	x.In.SetMethod([]byte(method))
	x.In.SetPath([]byte("/a"))
	x.Visitor.Class = stage.Protected
	x.Out.CopyFrom(x.In)
	x.Out.SetPath([]byte("/rewritten"))
	if body != nil {
		x.Out.Body, x.Out.ContentLength = body, -1
	}
	resp, err := r.Stage.Serve(t.Context(), x, primary{reads})
	if err != nil || resp.Status != 200 {
		t.Fatal(resp, err)
	}
	mark := ""
	if m := x.Trail.Marks(); len(m) > 0 {
		mark = m[0].Code
	}
	x.End(message.Outcome{Status: 200})
	return mark
}

func TestACopyIsSentAsItsOriginalWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, v1.Mirror{Unsafe: true})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		x := &stage.Exchange{}
		if m := r.ask(t, x, "GET", nil, 0); m != "copied" {
			t.Errorf("mark %q", m)
		}
		if c := <-r.far.copies; c != (got{"next", "GET", "/rewritten", "", "1"}) {
			t.Errorf("%+v", c)
		}
		r.ask(t, x, "POST", &chunks{[]string{"one ", "two"}}, 9)
		if c := <-r.far.copies; c != (got{"next", "POST", "/rewritten", "one two", "1"}) {
			t.Errorf("%+v", c)
		}
		cancel()
		synctest.Wait()
		if n := r.bytes.Load(); n != 0 {
			t.Errorf("%d bytes are still counted", n)
		}
	})
}

func TestWhatMustNotBeMirroredIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		m      v1.Mirror
		method string
		body   message.Body
		reads  int
		copies int
	}{
		"an order":          {v1.Mirror{}, "POST", &chunks{[]string{"x"}}, 9, 0},
		"an allowed order":  {v1.Mirror{Unsafe: true}, "POST", &chunks{[]string{"x"}}, 9, 1},
		"nobody's share":    {v1.Mirror{Percent: new(v1.Percent(0))}, "GET", nil, 0, 0},
		"all":               {v1.Mirror{Percent: new(v1.Percent(100))}, "GET", nil, 0, 1},
		"a body too large":  {v1.Mirror{Unsafe: true}, "POST", &chunks{[]string{strings.Repeat("x", 60), "12345"}}, 9, 0},
		"a body just right": {v1.Mirror{Unsafe: true}, "POST", &chunks{[]string{strings.Repeat("x", 60), "1234"}}, 9, 1},
		"half a body":       {v1.Mirror{Unsafe: true}, "POST", &chunks{[]string{"x", "y"}}, 1, 0},
	} {
		r := newRig(t, Config{}, c.m)
		r.ask(t, &stage.Exchange{}, c.method, c.body, c.reads)
		if n := len(r.queue); n != c.copies {
			t.Errorf("%s: %d copies, want %d", name, n, c.copies)
		}
		if n := r.bytes.Load(); c.copies == 0 && n != 0 {
			t.Errorf("%s: %d bytes are still counted", name, n)
		}
	}
}

func TestTheQueueIsBoundedAndNobodyWaits(t *testing.T) {
	r := newRig(t, Config{Queue: 3, MaxBytes: 10}, v1.Mirror{Unsafe: true})
	x := &stage.Exchange{}
	for range 10 { // nobody takes copies out
		r.ask(t, x, "GET", nil, 0)
	}
	if len(r.queue) != 3 {
		t.Errorf("%d copies wait", len(r.queue))
	}
	for range 3 {
		r.free(<-r.queue)
	}
	r.ask(t, x, "POST", &chunks{[]string{"12345678"}}, 9)
	r.ask(t, x, "POST", &chunks{[]string{"12345678"}}, 9)
	if len(r.queue) != 1 || r.bytes.Load() != 8 {
		t.Errorf("%d copies with %d bytes wait", len(r.queue), r.bytes.Load())
	}
}

func TestACopyThatFailsOrHangsIsNobodysTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Workers: 1}, v1.Mirror{})
		r.far.hold = make(chan struct{})
		r.far.err = errors.New("the other pool is down")
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		x := &stage.Exchange{}
		for range 5 {
			r.ask(t, x, "GET", nil, 0)
		}
		synctest.Wait()
		if len(r.queue) != 4 {
			t.Errorf("%d copies wait, want 4 behind the one that hangs", len(r.queue))
		}
		close(r.far.hold)
		synctest.Wait()
		if len(r.queue) != 0 {
			t.Errorf("%d copies still wait", len(r.queue))
		}
		cancel()
		synctest.Wait()
	})
}
