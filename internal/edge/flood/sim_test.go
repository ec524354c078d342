package flood

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/visitor"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// world is a shop behind the stage in a synctest bubble: visitors over pipes, bots called directly.
type world struct {
	t     *testing.T
	stage *Stage
	chain stage.Handler
	site  *snapshot.Site
	house *shop.Shop
	calls chan net.Conn
	done  chan struct{}

	slots            int64
	inFlight         atomic.Int64
	mu               sync.Mutex
	top              Step          // highest
	reached          time.Duration // when step limit was, or the first one
	began            time.Time
	distance         float64
	people, peopleNo int // of those that came after from: all, refused
	bots, botsNo     int
	from             time.Duration
	tape             *tape // records what comes; nil for no record
}

const (
	visitorSlot = stage.Slot(1)
	floodSlot   = stage.Slot(2)
)

func newWorld(t *testing.T, dir string, slots int, spec v1.FloodPolicySpec) *world {
	t.Helper()
	house, err := shop.New(shop.Config{DataDir: dir, Capacity: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, house: house, calls: make(chan net.Conn), done: make(chan struct{}), slots: int64(slots), began: time.Now(), from: time.Hour}
	reg := observe.New()
	w.stage = New(Config{Slot: floodSlot, Tiers: w, Load: func() (l observe.Load) { return l }}, reg)
	buyers := visitor.New(visitorSlot, visitor.Config{}, nil, reg)
	w.site = testSite(&spec)
	for slot, c := range map[stage.Slot]stage.Compiler{visitorSlot: buyers, floodSlot: w.stage} {
		if w.site.Parts[slot], err = c.Compile(w.site, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.chain = stage.Chain(w, buyers, w.stage, cached{}, w.stage.Gate())
	return w
}

func testSite(spec *v1.FloodPolicySpec) *snapshot.Site {
	return &snapshot.Site{
		Key: "demo/shop",
		Spec: &bundle.Site{
			Visitors: map[string]*v1.VisitorPolicySpec{"v": {
				Cookie: "rv", Secret: "0123456789abcdef", Lifetime: v1.Duration(2 * time.Hour), Grace: new(v1.Duration(5 * time.Minute)),
				Basket: []v1.StageMatch{{Path: "/basket"}}, Ordered: []v1.StageMatch{{Path: "/checkout"}},
			}},
			Pools: map[string]*v1.OriginPoolSpec{"shop": {Tiers: []v1.Tier{{Name: "home"}}}},
			Flood: spec,
		},
		Routes: []snapshot.Route{{Spec: &v1.Route{Policies: v1.Policies{Visitor: "v"}, Pool: "shop"}}},
		Parts:  make([]any, stage.Slots),
	}
}

// Busy implements Tiers.
func (w *world) Busy(*snapshot.Site) float64 { return float64(w.inFlight.Load()) / float64(w.slots) }

// cached stands where the cache does: files of pages are stored.
type cached struct{}

func (cached) Name() string { return "cache" }

func (cached) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	if isFile(x) {
		x.Response.Reset()
		x.Response.Status = 200
		x.Response.AddString(message.CacheControl, "max-age=86400")
		x.Response.SetBytes([]byte("a file"))
		return &x.Response, nil
	}
	return next.Serve(ctx, x)
}

// service is how long the shop works on a page.
const service = 100 * time.Millisecond

// Serve implements stage.Handler: the tier with its slots, and the shop.
func (w *world) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	n := w.inFlight.Add(1)
	defer w.inFlight.Add(-1)
	if n > w.slots && x.Visitor.Class != stage.Protected {
		return nil, &stage.Error{Code: "destination_unavailable", Side: stage.SideEdge, Status: 503, RetryAfter: time.Second, Err: stage.ErrFull}
	}
	time.Sleep(service)
	x.Pool, x.Tier, x.Tries = "shop", "home", 1
	x.Lap()
	body, _ := x.In.Body.(*textBody)
	text := ""
	if body != nil {
		text = body.text
	}
	target := string(x.In.Path())
	if q := x.Query(); len(q) > 0 {
		target += "?" + string(q)
	}
	r := httptest.NewRequest(string(x.In.MethodName()), target, strings.NewReader(text))
	r.Host = "shop.example"
	for i := range x.In.Len() {
		_, name, value := x.In.At(i)
		r.Header.Add(string(name), string(value))
	}
	rec := httptest.NewRecorder()
	w.house.Handler().ServeHTTP(rec, r)
	x.Response.Reset()
	x.Response.Status = rec.Code
	for name, values := range rec.Header() {
		for _, v := range values {
			x.Response.AddLine([]byte(name), []byte(v))
		}
	}
	x.Response.SetBytes(rec.Body.Bytes())
	return &x.Response, nil
}

type textBody struct{ text string }

func (b *textBody) Next(context.Context) ([]byte, error) { return []byte(b.text), io.EOF }
func (b *textBody) Close(error)                          {}

// exchange makes one of a request's parts.
func (w *world) exchange(x *stage.Exchange, in *message.Request, source netip.Addr, method, target, body string, fields [][2]string) {
	x.Reset()
	in.Reset()
	path, query, has := strings.Cut(target, "?")
	in.SetMethod([]byte(method))
	in.SetPath([]byte(path))
	if has {
		in.SetQuery([]byte(query))
	}
	in.Proto = message.HTTP11
	for _, f := range fields {
		in.AddLine([]byte(f[0]), []byte(f[1]))
	}
	if body != "" {
		in.Body = &textBody{body}
	}
	x.In, x.Client, x.Site, x.Route, x.Start = in, source, w.site, &w.site.Routes[0], time.Now()
	x.SetPath([]byte(path))
	x.SetHost([]byte("shop.example"))
}

// ask sends x through the chain and counts what became of it.
func (w *world) ask(ctx context.Context, x *stage.Exchange, bot bool) (status int, header http.Header, body []byte) {
	resp, err := w.chain.Serve(ctx, x)
	refused := false
	header = http.Header{}
	if err != nil {
		e := stage.AsError(err)
		refused = errors.Is(err, w.stage.refusal[Limit]) || errors.Is(err, w.stage.refusal[Drop])
		status = e.Status
		header.Set("Retry-After", strconv.Itoa(int(e.RetryAfter/time.Second)))
	} else {
		status, body = resp.Status, resp.Bytes
		for i := range resp.Len() {
			_, n, v := resp.At(i)
			header.Add(string(n), string(v))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tape.request(x, time.Since(w.began), bot, status, err)
	if time.Since(w.began) < w.from {
		return status, header, body
	}
	if bot {
		w.bots++
		w.botsNo += count01(refused)
	} else {
		w.people++
		w.peopleNo += count01(refused)
	}
	return status, header, body
}

func count01(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ticks has the stage look twice a second, and keeps what it saw at worst.
func (w *world) ticks() {
	for {
		select {
		case <-w.done:
			return
		case <-time.After(tickEvery):
		}
		w.mu.Lock()
		w.tape.tick(time.Since(w.began), w.Busy(nil))
		w.mu.Unlock()
		w.stage.look(time.Now())
		st := w.stage.Status("")[0]
		step, _ := stepOf(st.Step)
		w.mu.Lock()
		if step >= Limit && w.top < Limit || w.top == Calm && step > Calm {
			w.reached = time.Since(w.began)
		}
		w.top = max(w.top, step)
		if st.Learned {
			w.distance = max(w.distance, st.Distance)
		}
		w.mu.Unlock()
	}
}

// dial gives a visitor a connection.
func (w *world) dial(ctx context.Context, source netip.Addr, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	go w.serve(ctx, far, source)
	return near, nil
}

// serve reads HTTP/1.1 as far as visitors write it, so that the order of the fields is kept.
func (w *world) serve(ctx context.Context, c net.Conn, source netip.Addr) {
	defer c.Close()
	r := bufio.NewReader(c)
	var x stage.Exchange
	var in message.Request
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		start := strings.Fields(line)
		var fields [][2]string
		length := 0
		for {
			l, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if l = strings.TrimRight(l, "\r\n"); l == "" {
				break
			}
			name, value, _ := strings.Cut(l, ": ")
			if name == "Content-Length" {
				length, _ = strconv.Atoi(value)
			}
			fields = append(fields, [2]string{name, value})
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		w.exchange(&x, &in, source, start[0], start[1], string(body), fields)
		status, header, text := w.ask(ctx, &x, false)
		var out bytes.Buffer
		header.Set("Content-Length", strconv.Itoa(len(text)))
		out.WriteString("HTTP/1.1 " + strconv.Itoa(status) + " Answer\r\n")
		_ = header.Write(&out)
		out.WriteString("\r\n")
		out.Write(text)
		if _, err := c.Write(out.Bytes()); err != nil {
			return
		}
	}
}

// flood has bots ask, each at intervals around its own, from a time until another.
func (w *world) flood(bots []*visitors.Bot, every time.Duration, from, until time.Duration) {
	var wg sync.WaitGroup
	for i, b := range bots {
		wg.Go(func() {
			var x stage.Exchange
			var in message.Request
			time.Sleep(from + every*time.Duration(i)/time.Duration(len(bots)) - time.Since(w.began))
			for time.Since(w.began) < until {
				h := b.Next()
				w.exchange(&x, &in, b.Source, h.Method, h.Target, h.Body, h.Fields)
				_, header, _ := w.ask(w.t.Context(), &x, true)
				b.Learn(header)
				time.Sleep(every)
			}
		})
	}
	wg.Wait()
}

// run lets visitors come at a rate, with bots beside them, and returns what the visitors say.
func (w *world) run(dir string, rate visitors.Rate, length time.Duration, flood func()) (visitors.Report, visitors.Verdict) {
	t := w.t
	go w.ticks()
	g, err := visitors.New(visitors.Config{
		Target: "http://shop.example", Rate: rate, Duration: length, Drain: 10 * time.Minute, Seed: 3, MaxLive: 100_000,
		Sources: netip.MustParsePrefix("127.4.0.0/16"), Dial: w.dial, Conns: 1,
		Funnel: visitors.Funnel{Pages: 5, Product: .9, Basket: .5, Checkout: .9, Order: .9, Think: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	if flood != nil {
		wg.Go(flood)
	}
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	close(w.done)
	time.Sleep(time.Minute)
	if err := w.house.Close(); err != nil {
		t.Fatal(err)
	}
	ledger, err := shop.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	verdict, err := report.Verify(t.Context(), ledger)
	if err != nil {
		t.Fatal(err)
	}
	return report, verdict
}
