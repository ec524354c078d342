package meter

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
	"github.com/relais-edge/relais/internal/usage"
)

const slot stage.Slot = 3

var noon = time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)

func siteOf(t *testing.T, m *Meter, name string) *snapshot.Site {
	t.Helper()
	s := &snapshot.Site{Organization: "acme", Name: name, Parts: make([]any, stage.Slots)}
	p, err := m.Compile(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Parts[slot] = p
	return s
}

// totals adds up records by site and hour.
func totals(into map[usage.Slot]usage.Counts, list []usage.Record) {
	for _, r := range list {
		c := into[r.Slot]
		c.Add(&r.Counts)
		into[r.Slot] = c
	}
}

func TestWhatIsCounted(t *testing.T) {
	m := New(slot)
	shop := siteOf(t, m, "shop")
	count := func(body int64, set func(x *stage.Exchange)) {
		x := &stage.Exchange{Start: noon, In: &message.Request{}, Site: shop}
		set(x)
		m.Watch(x)
		m.Count(x, message.Outcome{Status: 200, Head: 500, Body: body})
	}
	count(100, func(x *stage.Exchange) { x.CacheStatus = "hit" })
	count(20, func(x *stage.Exchange) { x.CacheStatus, x.Tries = "miss", 1 })
	count(3, func(x *stage.Exchange) { x.Tries, x.Visitor.Ordered = 1, true })
	count(7, func(x *stage.Exchange) {
		x.Failure = &stage.Error{Code: "http_response_timeout", Side: stage.SideOrigin}
	})
	count(1, func(x *stage.Exchange) { x.Site = nil })
	want := usage.Counts{Requests: 4, BytesOut: 130, CacheHits: 1, Orders: 1}
	for _, code := range []string{"http_request_denied", "bot_denied", "challenge_limit", "connection_limit_reached", "waf_over_budget"} {
		count(10, func(x *stage.Exchange) { x.Failure = &stage.Error{Code: code, Side: stage.SideTenant, Status: 403} })
		want.Refused++
		want.RefusedBytesOut += 10
	}
	count(10, func(x *stage.Exchange) { x.Mark("challenge", "asked") })
	want.Refused++
	want.RefusedBytesOut += 10
	// What passed a challenge, or what an edge does not know how to do, is a request like another.
	count(0, func(x *stage.Exchange) { x.Mark("challenge", "passed"); x.CacheStatus = "hit" })
	count(0, func(x *stage.Exchange) {
		x.Failure = &stage.Error{Code: "http_request_denied", Side: stage.SideEdge, Status: 501}
	})
	want.Requests += 2
	want.CacheHits++

	list := m.Take(noon.Add(time.Minute))
	if len(list) != 1 || list[0].Counts != want || list[0].Slot != (usage.Slot{Organization: "acme", Site: "shop", Hour: usage.HourOf(noon)}) {
		t.Errorf("%+v\nwant %+v", list, want)
	}
	if list := m.Take(noon); len(list) != 0 || len(m.live) != 0 {
		t.Errorf("taken twice: %+v, %d sites listed", list, len(m.live))
	}
	count(5, func(*stage.Exchange) {}) // a site that was quiet is found again
	if list := m.Take(noon); len(list) != 1 || list[0].BytesOut != 5 {
		t.Errorf("%+v", list)
	}
}

func TestAnHourEnds(t *testing.T) {
	m := New(slot)
	shop := siteOf(t, m, "shop")
	for i := range 60 {
		x := &stage.Exchange{Start: noon.Add(time.Duration(i) * time.Minute), In: &message.Request{}, Site: shop}
		m.Count(x, message.Outcome{Body: 1})
	}
	// The Take's clock may be read just before the hour ends, and requests end after that.
	sum := map[usage.Slot]usage.Counts{}
	totals(sum, m.Take(noon.Add(30*time.Minute-time.Nanosecond)))
	at := func(h usage.Hour) int64 { return sum[usage.Slot{Organization: "acme", Site: "shop", Hour: h}].Requests }
	if h := usage.HourOf(noon); at(h) != 30 || at(h+1) != 30 || len(sum) != 2 {
		t.Errorf("%+v", sum)
	}
}

// fakeBody gives so many pieces of ten bytes.
type fakeBody struct{ left int }

func (b *fakeBody) Next(context.Context) ([]byte, error) {
	if b.left == 0 {
		return nil, io.EOF
	}
	b.left--
	return make([]byte, 10), nil
}
func (b *fakeBody) Close(error) { b.left = -1 }

type readyBody struct{ fakeBody }

func (readyBody) Ready() bool { return true }

func TestBodiesAreCountedAsTheyPass(t *testing.T) {
	m := New(slot)
	shop := siteOf(t, m, "shop")
	x := &stage.Exchange{}
	for i, b := range []message.Body{&fakeBody{3}, &readyBody{fakeBody{5}}, nil, &fakeBody{9}} {
		x.Reset()
		x.Start, x.In, x.Site = noon, &message.Request{Body: b}, shop
		m.Watch(x)
		if _, prompt := x.In.Body.(message.Prompt); prompt != (i == 1) {
			t.Errorf("body %d is prompt: %t", i, prompt)
		}
		if b != nil {
			for {
				if _, err := x.In.Body.Next(t.Context()); err != nil || i == 3 {
					break // of the last one a piece is read
				}
			}
			x.In.Body.Close(nil)
		}
		m.Count(x, message.Outcome{})
	}
	if list := m.Take(noon); len(list) != 1 || list[0].BytesIn != 30+50+10 || list[0].Requests != 4 {
		t.Errorf("%+v", list)
	}
}

type handler func(context.Context, *stage.Exchange) (*message.Response, error)

func (h handler) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	return h(ctx, x)
}

func TestTriesAreCountedWhoeverAsks(t *testing.T) {
	m := New(slot)
	x := &stage.Exchange{Start: noon, In: &message.Request{}, Site: siteOf(t, m, "shop"), Tries: 1}
	_, err := m.Fetches().Serve(t.Context(), x, handler(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
		x.Tries += 2
		return nil, io.ErrUnexpectedEOF
	}))
	if list := m.Take(noon); err == nil || len(list) != 1 || list[0].Counts != (usage.Counts{Fetches: 2}) {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestServices(t *testing.T) {
	m := New(slot)
	for range 3 {
		m.Connection("acme", "mail", 10, 20, noon)
	}
	list := m.Take(noon)
	if len(list) != 1 || list[0].Site != "service/mail" || list[0].Counts != (usage.Counts{Requests: 3, BytesIn: 30, BytesOut: 60}) || list[0].Check() != nil {
		t.Errorf("%+v", list)
	}
	if m.Take(noon); len(m.services) != 0 {
		t.Errorf("%d services are kept that are quiet", len(m.services))
	}
}

// No count is lost or taken twice, whoever takes while others count, sites come and go and are found again.
func TestNothingIsLostBetweenTakes(t *testing.T) {
	m := New(slot)
	const workers, rounds, sites = 8, 4000, 3
	list := make([]*snapshot.Site, sites)
	for i := range list {
		list[i] = siteOf(t, m, []string{"a", "b", "c"}[i])
	}
	sum := map[usage.Slot]usage.Counts{}
	done, taken := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(taken)
		for {
			totals(sum, m.Take(noon))
			select {
			case <-done:
				totals(sum, m.Take(noon))
				return
			default:
			}
		}
	}()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				x := &stage.Exchange{Start: noon, In: &message.Request{}, Site: list[(i+w)%sites]}
				m.Count(x, message.Outcome{Body: 2})
				m.Connection("acme", "mail", 1, 0, noon)
			}
		})
	}
	wg.Wait()
	close(done)
	<-taken
	var all usage.Counts
	for _, c := range sum {
		all.Add(&c)
	}
	if want := (usage.Counts{Requests: 2 * workers * rounds, BytesOut: 2 * workers * rounds, BytesIn: workers * rounds}); all != want {
		t.Errorf("%+v\nwant %+v", all, want)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := New(slot)
	x := &stage.Exchange{Start: noon, In: &message.Request{}, Site: siteOf(t, m, "shop"), CacheStatus: "hit"}
	b := &fakeBody{1 << 30}
	n := testing.AllocsPerRun(1000, func() {
		x.In.Body = b
		m.Watch(x)
		m.Count(x, message.Outcome{Status: 200, Body: 100})
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
