package visitors

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestRequestsLookLikeTheirBrowsers(t *testing.T) {
	var out bytes.Buffer
	for _, p := range append(browsers(), crawlers()...) {
		for _, o := range []origin{{"https", "shop.example", true}, {"http", "shop.example", false}} {
			p := pickPersona([]persona{p}, rand.New(rand.NewPCG(1, 1)), "gzip, deflate, br")
			for _, r := range []request{
				{method: "GET", target: "/", kind: navigation},
				{method: "GET", target: "/img/a.jpg", kind: picture, referer: "/", cookie: "basket=1", etag: `"a"`, modified: "Mon, 05 Jan 2026 08:00:00 GMT"},
				{method: "GET", target: "/a.css", kind: stylesheet, referer: "/"},
				{method: "POST", target: "/basket", kind: submission, referer: "/p/1", cookie: "basket=1", form: "action=add", media: "application/x-www-form-urlencoded"},
			} {
				fmt.Fprintf(&out, "# %s %s\n%s", p.name, o.scheme, p.appendHead(nil, &o, &r))
			}
		}
	}
	got := strings.ReplaceAll(out.String(), "\r\n", "\n")
	const file = "testdata/requests.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("requests differ from %s; look at the change and run with -update", file)
	}
}

func TestHeaderSetsAreCoherent(t *testing.T) {
	secure := &origin{"https", "shop.example", true}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range browsers() {
		p := pickPersona([]persona{p}, rng, "gzip")
		head := string(p.appendHead(nil, secure, &request{method: "GET", target: "/"}))
		chrome := strings.Contains(p.agent, "Chrome/")
		if chrome != strings.Contains(head, "sec-ch-ua:") {
			t.Errorf("%s: client hints are of Chromium alone", p.name)
		}
		if chrome && strings.Contains(head, "sec-ch-ua-mobile: ?1") != strings.Contains(p.agent, "Mobile") {
			t.Errorf("%s: mobile hint and User-Agent differ", p.name)
		}
		for _, must := range []string{"Accept-Language: ", "Accept-Encoding: gzip", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none"} {
			if !strings.Contains(head, "\r\n"+must) {
				t.Errorf("%s lacks %q", p.name, must)
			}
		}
		plain := string(p.appendHead(nil, &origin{"http", "shop.example", false}, &request{method: "GET", target: "/"}))
		if strings.Contains(strings.ToLower(plain), "\r\nsec-") {
			t.Errorf("%s sends fetch metadata to an origin that is not secure", p.name)
		}
	}
}

func TestArrivalsFollowTheRate(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	count := func(r Rate, from, to time.Duration) (n int) {
		for at := from; ; {
			var arrives bool
			if at, arrives = r.nextArrival(at, rng); at >= to {
				return n
			} else if arrives {
				n++
			}
		}
	}
	spike := Spike(10, 8, time.Minute, 2*time.Minute)
	ramp := Ramp(0, 100, 100*time.Second)
	for _, c := range []struct {
		name     string
		rate     Rate
		from, to time.Duration
		mean     float64
	}{
		{"constant", Constant(50), 0, 100 * time.Second, 5000},
		{"rare", Constant(.1), 0, 10000 * time.Second, 1000},
		{"more than one in a step", Constant(5000), 0, time.Second, 5000},
		{"before the spike", spike, 0, time.Minute, 600},
		{"in the spike", spike, time.Minute, 2 * time.Minute, 4800},
		{"after the spike", spike, 2 * time.Minute, 3 * time.Minute, 600},
		{"ramp", ramp, 0, 100 * time.Second, 5000},
		{"after the ramp", ramp, 100 * time.Second, 150 * time.Second, 5000},
		{"nobody", Constant(0), 0, time.Hour, 0},
	} {
		got := float64(count(c.rate, c.from, c.to))
		// Five standard deviations of a Poisson count.
		if d := got - c.mean; d*d > 25*c.mean {
			t.Errorf("%s: %.0f arrivals, want about %.0f", c.name, got, c.mean)
		}
	}
}

func TestQuantilesAreWithinAThirtySecond(t *testing.T) {
	var h histogram
	rng := rand.New(rand.NewPCG(9, 9))
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(rng.ExpFloat64()*float64(20*time.Millisecond)) + time.Microsecond
		all = append(all, d)
		h.record(d)
	}
	slices.Sort(all)
	got := h.summary()
	for _, c := range []struct {
		q   float64
		got time.Duration
	}{{.5, got.P50}, {.9, got.P90}, {.99, got.P99}, {.999, got.P999}} {
		want := all[int(c.q*float64(len(all)-1))].Truncate(time.Microsecond)
		if c.got < want || float64(c.got) > float64(want)*(1+1./subBuckets) {
			t.Errorf("quantile %v is %s, want %s or at most 1/32 more", c.q, c.got, want)
		}
	}
	if got.Count != 20_000 || got.Most != all[len(all)-1].Truncate(time.Microsecond) {
		t.Errorf("%+v", got)
	}
	for _, us := range []int64{0, 1, 31, 32, 33, 63, 64, 1000, 1 << 20, 1 << 35} {
		b := bucketOf(us)
		if ceiling(b) < us || b > 0 && ceiling(b-1) >= us {
			t.Errorf("%d us is in bucket %d, which ends at %d", us, b, ceiling(b))
		}
	}
	h.record(1 << 62)
	h.record(-1)
}

func TestAddressesStayInThePool(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, pool := range []string{"127.5.0.0/16", "127.0.0.8/30", "127.0.0.8/31", "127.0.0.9/32", "127.0.0.0/8", "fd00::/64"} {
		prefix := netip.MustParsePrefix(pool)
		seen := map[netip.Addr]bool{}
		for range 200 {
			a := pickAddress(prefix, rng)
			if !prefix.Contains(a) || prefix.Bits() < 31 && a == prefix.Addr() {
				t.Fatalf("%s from %s", a, pool)
			}
			seen[a] = true
		}
		if prefix.Bits() < 24 && len(seen) < 100 {
			t.Errorf("%s gave only %d addresses", pool, len(seen))
		}
	}
}

type entry struct {
	id, key string
	placed  time.Time
}

type book []entry

func (b book) EachOrder(_ context.Context, visit func(id, key string, placed time.Time) error) error {
	for _, e := range b {
		if err := visit(e.id, e.key, e.placed); err != nil {
			return err
		}
	}
	return nil
}

func TestVerifyFindsEveryKindOfLoss(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	during := start.Add(time.Second)
	order := func(key, id string, state OrderState) Order { return Order{Key: key, ID: id, State: state} }
	for _, c := range []struct {
		name                                              string
		orders                                            []Order
		ledger                                            book
		kept, lost, duplicates, failed, written, phantoms int
	}{
		{"whole", []Order{order("k1", "o1", Confirmed), order("k2", "o2", Confirmed)}, book{{"o1", "k1", during}, {"o2", "k2", during}}, 2, 0, 0, 0, 0, 0},
		{"missing", []Order{order("k1", "o1", Confirmed)}, nil, 0, 1, 0, 0, 0, 0},
		{"twice under one key", []Order{order("k1", "o1", Confirmed)}, book{{"o1", "k1", during}, {"o2", "k1", during}}, 0, 1, 1, 0, 0, 0},
		{"twice, not confirmed", []Order{order("k1", "", Failed)}, book{{"o1", "k1", during}, {"o2", "k1", during}}, 0, 0, 1, 1, 1, 0},
		{"another number", []Order{order("k1", "o1", Confirmed)}, book{{"o9", "k1", during}}, 0, 1, 0, 0, 0, 0},
		{"one number for two buyers", []Order{order("k1", "o1", Confirmed), order("k2", "o1", Confirmed)}, book{{"o1", "k1", during}, {"o1", "k2", during}}, 1, 1, 0, 0, 0, 0},
		{"failed", []Order{order("k1", "", Failed)}, nil, 0, 0, 0, 1, 0, 0},
		{"failed without a key", []Order{order("", "", Failed)}, book{{"o1", "", start.Add(-1)}}, 0, 0, 0, 1, 0, 0},
		{"failed and written", []Order{order("k1", "", Failed), order("k2", "", Abandoned)}, book{{"o1", "k1", during}, {"o2", "k2", during}}, 0, 0, 0, 1, 2, 0},
		{"phantom", nil, book{{"o0", "k0", start.Add(-time.Second)}, {"o1", "k1", during}}, 0, 0, 0, 0, 0, 1},
	} {
		v, err := Report{Started: start, Orders: c.orders}.Verify(t.Context(), c.ledger)
		got := []int{v.Kept, len(v.Lost), len(v.Duplicates), len(v.Failed), v.Written, len(v.Phantoms)}
		want := []int{c.kept, c.lost, c.duplicates, c.failed, c.written, c.phantoms}
		if err != nil || !slices.Equal(got, want) || v.OK() != (c.lost+c.duplicates == 0) {
			t.Errorf("%s: %s (%v), want %v", c.name, v, err, want)
		}
	}
}

func FuzzLinks(f *testing.F) {
	f.Add([]byte(`<a href="/a?x=1&amp;y=2#z"> <img src="/b"> <a href="//evil/"> <a href="/c d">`))
	f.Add([]byte(` href="`))
	f.Add([]byte(` href="&#13;&#10;/x"`))
	f.Fuzz(func(t *testing.T, page []byte) {
		for _, target := range append(links(page, "href"), stylesheets(page)...) {
			if !safeTarget(target) || strings.ContainsAny(target, " \r\n") {
				t.Errorf("link %q", target)
			}
		}
		field(page, "sku")
	})
}

// FuzzAnswer lets a hostile server say anything: a client must neither panic, nor hang, nor
// take a broken answer for whole.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "nonsense", "",
		"HTTP/1.0 302 Found\r\nLocation: /order/x\r\nSet-Cookie: a=b\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		near, far := net.Pipe()
		c := &client{timeout: 5 * time.Second, dial: func(context.Context, netip.Addr, string, string) (net.Conn, error) { return near, nil }}
		w, err := c.open(t.Context(), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		said := make(chan struct{})
		go func() {
			defer close(said)
			_, _ = io.ReadFull(far, make([]byte, 3))
			_, _ = far.Write(answer)
			_ = far.Close()
		}()
		var page bytes.Buffer
		out, keep, err := c.exchange(t.Context(), w, "GET", []byte("GET"), &page)
		if err == nil && (out.status < 200 || out.status > 999 || page.Len() > maxPageBytes) {
			t.Errorf("status %d with %d bytes", out.status, page.Len())
		}
		if err != nil && (keep || trouble(t.Context(), err) == troubleTimeout) {
			t.Errorf("after %v: keep %v", err, keep)
		}
		_, _, _ = verdictOf(out, err, page.Bytes())
		c.close(w)
		<-said
	})
}
