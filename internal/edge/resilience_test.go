package edge

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crew is several origins of which each says its number.
type crew struct {
	addresses []string
	play      func(i int, w http.ResponseWriter, r *http.Request)
	mu        sync.Mutex
	checks    []*http.Request
}

func newCrew(t *testing.T, n int) *crew {
	c := &crew{}
	for i := range n {
		c.addresses = append(c.addresses, newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Origin", fmt.Sprint(i))
			if r.UserAgent() == "relais-health" {
				c.mu.Lock()
				c.checks = append(c.checks, r)
				c.mu.Unlock()
			}
			if c.play != nil {
				c.play(i, w, r)
			}
		}))
	}
	return c
}

// poolOf is a site whose pool has the spec, in which A0, A1 … are the crew's addresses.
func (c *crew) poolOf(route, spec string) string {
	for i, a := range slices.Backward(c.addresses) {
		spec = strings.ReplaceAll(spec, fmt.Sprintf("A%d", i), `"`+a+`"`)
	}
	return `
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec: {hostnames: ["*"], routes: [{pool: shop` + route + `}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec: ` + spec + "\n"
}

// asks sends n requests one after another and counts by origin; those that fail count at -1.
func (b *bed) asks(n int, path string, fields ...string) map[string]int {
	b.t.Helper()
	c := clientOf(b.t, "http1")
	counts := map[string]int{}
	for range n {
		req, _ := http.NewRequestWithContext(b.t.Context(), "GET", b.base("http1")+path, nil)
		for i := 0; i < len(fields); i += 2 {
			req.Header.Set(fields[i], fields[i+1])
		}
		resp, err := c.Do(req)
		if err != nil {
			b.t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		counts[resp.Header.Get("X-Origin")]++
	}
	return counts
}

// until waits for something that other goroutines do.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// state is an origin's, as the status tells it.
func (b *bed) state(i int) string { return b.balance.Status()[0].Tiers[0].Origins[i].State }

func TestPoolAlgorithmPeakEWMAAvoidsASlowOrigin(t *testing.T) {
	c := newCrew(t, 3)
	var n [3]atomic.Int64
	c.play = func(i int, _ http.ResponseWriter, _ *http.Request) {
		n[i].Add(1)
		time.Sleep([]time.Duration{10, 200, 10}[i] * time.Millisecond)
	}
	b := newBed(t, nil, c.poolOf("", `{algorithm: peak-ewma, tiers: [{origins: [{address: A0}, {address: A1}, {address: A2}]}]}`))
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() { b.asks(30, "/") })
	}
	wg.Wait()
	if n[1].Load() < 1 || n[1].Load() > 40 || n[0].Load() < 30 || n[2].Load() < 30 {
		t.Errorf("%d %d %d", n[0].Load(), n[1].Load(), n[2].Load())
	}
	if st := b.balance.Status()[0].Tiers[0].Origins; st[1].LatencyMS < 50 {
		t.Errorf("%+v", st)
	}
}

func TestPoolHashTableRingKeepsKeys(t *testing.T) {
	c := newCrew(t, 4)
	spec := `{algorithm: consistent-hash, hash: {on: header, name: X-Key, table: ring}, tiers: [{origins: [{address: A0}, {address: A1}, {address: A2}%s]}]}`
	b := newBed(t, nil, c.poolOf("", fmt.Sprintf(spec, "")))
	where := func() (list []string) {
		for k := range 60 {
			for o := range b.asks(1, "/", "X-Key", fmt.Sprint(k)) {
				list = append(list, o)
			}
		}
		return list
	}
	before := where()
	if len(slices.Compact(slices.Sorted(slices.Values(before)))) != 3 {
		t.Errorf("not all are used: %v", before)
	}
	b.apply(c.poolOf("", fmt.Sprintf(spec, ", {address: A3}")))
	moved := 0
	for k, o := range where() {
		if o != before[k] {
			if moved++; o != "3" {
				t.Errorf("key %d moved from %s to %s", k, before[k], o)
			}
		}
	}
	if moved == 0 || moved > 35 {
		t.Errorf("%d of 60 keys moved", moved)
	}
}

func TestPoolSlowStartOfANewOrigin(t *testing.T) {
	c := newCrew(t, 3)
	spec := `{algorithm: random, slowStart: 1h, tiers: [{origins: [{address: A0}, {address: A1}%s]}]}`
	b := newBed(t, nil, c.poolOf("", fmt.Sprintf(spec, "")))
	b.asks(1, "/")
	b.apply(c.poolOf("", fmt.Sprintf(spec, ", {address: A2}")))
	if n := b.asks(150, "/"); n["2"] > 20 || n["0"] < 40 || n["1"] < 40 {
		t.Errorf("%v", n)
	}
	if s := b.state(2); s != "starting" {
		t.Error(s)
	}
}

func TestPoolZonesAndSubsets(t *testing.T) {
	c := newCrew(t, 4)
	in := func(zone string, number uint64) func(*Config) {
		return func(cfg *Config) { cfg.Zone, cfg.Number = zone, number }
	}
	zones := `{zones: {prefer: own, least: 100%}, health: {passive: {ejection: 1h}}, algorithm: round-robin,
 tiers: [{origins: [{address: A0, zone: a}, {address: A1, zone: a}, {address: A2, zone: b}, {address: A3, zone: b}]}]}`
	b := newBed(t, nil, c.poolOf("", zones), in("a", 0))
	if n := b.asks(20, "/"); n["0"] != 10 || n["1"] != 10 {
		t.Errorf("of zone a: %v", n)
	}
	var down atomic.Bool
	c.play = func(i int, w http.ResponseWriter, _ *http.Request) {
		if i == 0 && down.Load() {
			w.WriteHeader(503)
		}
	}
	down.Store(true)
	until(t, "the origin is not ejected", func() bool { b.asks(5, "/"); return b.state(0) == "ejected" })
	// Half of the zone is out and all of it must be well: half goes to the others by weight.
	if n := b.asks(120, "/"); n["1"] < 50 || n["1"] > 105 || n["2"] == 0 || n["3"] == 0 || n["0"] > 0 {
		t.Errorf("with half of zone a: %v", n)
	}
	if n := newBed(t, nil, c.poolOf("", zones), in("c", 0)).asks(20, "/"); n["2"] == 0 || n["3"] == 0 {
		t.Errorf("of zone c: %v", n)
	}

	used := map[string]int{}
	for number := range uint64(4) {
		n := newBed(t, nil, c.poolOf("", `{tiers: [{subset: 2, origins: [{address: A0}, {address: A1}, {address: A2}, {address: A3}]}]}`), in("", number)).asks(20, "/")
		if len(n) != 2 {
			t.Errorf("edge %d uses %v", number, n)
		}
		for o := range n {
			used[o]++
		}
	}
	for _, o := range []string{"0", "1", "2", "3"} {
		if used[o] != 2 {
			t.Errorf("of 4 edges %d use origin %s, want 2", used[o], o)
		}
	}
}

func TestPoolOriginInFlight(t *testing.T) {
	c := newCrew(t, 2)
	entered, leave := make(chan int, 10), make(chan struct{})
	c.play = func(i int, _ http.ResponseWriter, r *http.Request) {
		entered <- i
		<-leave
	}
	b := newBed(t, nil, c.poolOf("", `{tiers: [{capacity: {softMark: 100%}, origins: [{address: A0, inFlight: 2}, {address: A1, inFlight: 1}]}]}`))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { b.get("http1", "/") })
	}
	n := [2]int{}
	for range 3 {
		n[<-entered]++
	}
	if n != [2]int{2, 1} {
		t.Errorf("%v", n)
	}
	resp, _ := b.get("http1", "/")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	close(leave)
	wg.Wait()
}

func TestPoolChecksByStatusBodyHostAndHeaders(t *testing.T) {
	c := newCrew(t, 4)
	c.play = func(i int, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.UserAgent() != "relais-health":
		case i == 1:
			w.WriteHeader(200) // not one of the statuses
			_, _ = io.WriteString(w, "all is ready")
		case i == 2:
			w.WriteHeader(222)
			_, _ = io.WriteString(w, "not yet")
		case i == 3:
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "this is ready too")
		default:
			w.WriteHeader(222)
			_, _ = io.WriteString(w, strings.Repeat("x", 40_000)+" is ready")
		}
	}
	b := newBed(t, nil, c.poolOf("", `{health: {path: /up, host: check.test, headers: [{name: X-Token, value: abc}, {name: User-Agent, value: relais-health}], statuses: ["222", 4xx], body: "ready", interval: 100ms, unhealthyAfter: 1},
 tiers: [{origins: [{address: A0}, {address: A1}, {address: A2}, {address: A3}]}]}`))
	b.asks(1, "/")
	until(t, "the checks find nothing", func() bool { return b.state(1) == "down" && b.state(2) == "down" })
	if b.state(0) != "well" || b.state(3) != "well" {
		t.Errorf("%s %s", b.state(0), b.state(3))
	}
	if n := b.asks(12, "/"); n["1"]+n["2"] > 0 {
		t.Errorf("%v", n)
	}
	st := b.balance.Status()[0].Tiers[0].Origins
	if !strings.Contains(st[1].Why, "status 200") || !strings.Contains(st[2].Why, "ready") || st[0].Why != "" {
		t.Errorf("%+v", st)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.checks[0]; r.URL.Path != "/up" || r.Host != "check.test" || r.Header.Get("X-Token") != "abc" {
		t.Errorf("%s %s %v", r.URL, r.Host, r.Header)
	}
}

func TestPoolChecksByGRPC(t *testing.T) {
	var serving, ill, asked atomic.Value
	serving.Store(byte(1))
	ill.Store("0")
	asked.Store("")
	h := func(good bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/grpc.health.v1.Health/Check" {
				w.Header().Set("X-Origin", map[bool]string{true: "0", false: "1"}[good])
				return
			}
			body, _ := io.ReadAll(r.Body)
			if len(body) > 7 && r.Header.Get("Content-Type") == "application/grpc" && r.Header.Get("Te") == "trailers" {
				asked.Store(string(body[7:]))
			}
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			status := byte(1)
			if !good {
				status = serving.Load().(byte)
			}
			msg := []byte{0, 0, 0, 0, 0, 8, status}
			binary.BigEndian.PutUint32(msg[1:], 2)
			_, _ = w.Write(msg)
			w.Header().Set("Grpc-Status", ill.Load().(string))
		}
	}
	c := &crew{}
	for _, good := range []bool{true, false} {
		s := httptest.NewUnstartedServer(h(good))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		c.addresses = append(c.addresses, strings.TrimPrefix(s.URL, "http://"))
	}
	b := newBed(t, nil, c.poolOf("", `{connection: {protocol: h2c}, health: {grpc: {service: shop.Cart}, interval: 100ms, unhealthyAfter: 1, healthyAfter: 1}, tiers: [{origins: [{address: A0}, {address: A1}]}]}`))
	b.asks(1, "/")
	until(t, "no check came", func() bool { return asked.Load() == "shop.Cart" })
	if b.state(0) != "well" || b.state(1) != "well" {
		t.Errorf("%+v", b.balance.Status()[0].Tiers[0])
	}
	serving.Store(byte(2))
	until(t, "NOT_SERVING is taken for well", func() bool { return b.state(1) == "down" })
	if why := b.balance.Status()[0].Tiers[0].Origins[1].Why; !strings.Contains(why, "NOT_SERVING") {
		t.Error(why)
	}
	if n := b.asks(10, "/"); n["0"] != 10 {
		t.Errorf("%v", n)
	}
	serving.Store(byte(1))
	until(t, "it does not come back", func() bool { return b.state(1) == "well" })
	ill.Store("12")
	until(t, "an error of the call is taken for well", func() bool { return b.state(0) == "down" && b.state(1) == "down" })
}

// A status that no class has is passed on, as other proxies do, and counts as a failure: it is not
// stored, and what is stored of before takes its place where that may.
func TestRFC9110Section15AStatusAbove599IsAnError(t *testing.T) {
	var failing atomic.Bool
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=0, stale-if-error=60")
		if strings.HasPrefix(r.URL.Path, "/new") {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		if failing.Load() {
			w.WriteHeader(799)
		}
		_, _ = io.WriteString(w, "an answer")
	}, siteHead+`
  cache: pages
  routes: [{pool: shop}]
`+pages+pool)
	b.get("http1", "/old")
	failing.Store(true)
	for _, proto := range []string{"http1", "h2", "h3"} {
		for range 2 {
			resp, text := b.get(proto, "/new/"+proto)
			if resp.StatusCode != 799 || text != "an answer" || strings.Contains(resp.Header.Get("Cache-Status"), "; hit") {
				t.Errorf("%s: %d %q, %s", proto, resp.StatusCode, text, resp.Header.Get("Cache-Status"))
			}
		}
	}
	if resp, _ := b.get("http1", "/old"); resp.StatusCode != 200 {
		t.Errorf("what is stored: %d, %s", resp.StatusCode, resp.Header.Get("Cache-Status"))
	}
}
