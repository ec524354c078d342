package visitors_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFunnelsCompleteAndTheLedgerAgrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := visitors.Config{Rate: visitors.Constant(5), Duration: time.Minute, Drain: 10 * time.Minute, Seed: 1, BotShare: .1}
		report, verdict := site{}.visit(t, cfg)
		t.Logf("\n%s%s", report, verdict)
		// Poisson with mean 300: five standard deviations are 87.
		if report.Arrivals < 213 || report.Arrivals > 387 {
			t.Errorf("%d arrivals, want about 300", report.Arrivals)
		}
		if report.OrdersConfirmed < 15 || report.OrdersTried != report.OrdersConfirmed {
			t.Errorf("%d of %d orders confirmed, want all of at least 15", report.OrdersConfirmed, report.OrdersTried)
		}
		if !verdict.OK() || verdict.Kept != int(report.OrdersConfirmed) || len(verdict.Phantoms) > 0 || verdict.Written > 0 {
			t.Errorf("verdict: %s", verdict)
		}
		if len(report.Errors) > 0 || report.ByClass[4]+report.ByClass[5] > 0 || report.HoldersRefused > 0 || report.GaveUp > 0 {
			t.Errorf("a site without faults gave %v, %v", report.Errors, report.ByClass)
		}
		if report.Returning == 0 || report.Bots == 0 || report.NotModified == 0 || report.FromBrowser == 0 {
			t.Errorf("returning %d, bots %d, not modified %d, from browsers' caches %d: want some of each",
				report.Returning, report.Bots, report.NotModified, report.FromBrowser)
		}
		if report.Baskets < report.OrdersConfirmed || report.ByCluster["home"] == 0 {
			t.Errorf("%d baskets, answers by cluster %v", report.Baskets, report.ByCluster)
		}
		if report.Pages.P50 < 2*time.Millisecond || report.Answers.Count != report.Requests {
			t.Errorf("latency %+v of %d requests", report.Pages, report.Requests)
		}
	})
}

func TestSameSeedSameVisitors(t *testing.T) {
	run := func(seed uint64) (s visitors.Stats) {
		synctest.Test(t, func(t *testing.T) {
			cfg := visitors.Config{Rate: visitors.Spike(2, 4, 3*time.Second, 6*time.Second), Duration: 10 * time.Second, Drain: 10 * time.Minute, Seed: seed, ReturnShare: -1}
			report, _ := site{}.visit(t, cfg)
			s = report.Stats
		})
		return s
	}
	first, again, other := run(3), run(3), run(4)
	if !reflect.DeepEqual(first, again) {
		t.Errorf("two runs with one seed:\n%+v\n%+v", first, again)
	}
	if reflect.DeepEqual(first, other) {
		t.Error("another seed gave the same run")
	}
}

// checkouts wraps a shop so that the n-th try of an order under one key goes to do.
func checkouts(do func(try int, w http.ResponseWriter, r *http.Request, next http.Handler)) func(http.Handler) http.Handler {
	var mu sync.Mutex
	tries := map[string]int{}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost || r.URL.Path != "/checkout" {
				next.ServeHTTP(w, r)
				return
			}
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			_, key, _ := strings.Cut(string(body), "idempotency_key=")
			key, _, _ = strings.Cut(key, "&")
			mu.Lock()
			tries[key]++
			try := tries[key]
			mu.Unlock()
			do(try, w, r, next)
		})
	}
}

func TestOrderIsTriedThreeTimesUnderOneKey(t *testing.T) {
	busy := func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, c := range []struct {
		name  string
		do    func(try int, w http.ResponseWriter, r *http.Request, next http.Handler)
		state visitors.OrderState
		tries int
		kept  bool
	}{
		{"503 twice", func(try int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if try < 3 {
				busy(w)
				return
			}
			next.ServeHTTP(w, r)
		}, visitors.Confirmed, 3, true},
		{"connection cut", func(try int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if try < 2 {
				_, _ = w.Write([]byte("half an ans"))
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		}, visitors.Confirmed, 2, true},
		{"written, then the answer is cut", func(try int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if try < 3 {
				next.ServeHTTP(httptest.NewRecorder(), r)
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write([]byte("<html>"))
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		}, visitors.Confirmed, 3, true},
		{"a waiting room with status 200", func(try int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if try < 2 {
				_, _ = w.Write([]byte("<h1>Please wait</h1>"))
				return
			}
			next.ServeHTTP(w, r)
		}, visitors.Confirmed, 2, true},
		{"503 for ever", func(_ int, w http.ResponseWriter, _ *http.Request, _ http.Handler) { busy(w) }, visitors.Failed, 3, false},
		{"no answer ever", func(_ int, _ http.ResponseWriter, r *http.Request, _ http.Handler) {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}, visitors.Failed, 3, false},
		{"a final no", func(_ int, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}, visitors.Failed, 1, false},
		{"the basket is lost", func(_ int, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "/basket", http.StatusSeeOther)
		}, visitors.Failed, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				report, verdict := site{wrap: checkouts(c.do)}.visit(t, buyers(1, 10))
				if len(report.Orders) < 3 {
					t.Fatalf("only %d orders were tried", len(report.Orders))
				}
				for _, o := range report.Orders {
					if o.State != c.state || o.Tries != c.tries || o.Took > 30*time.Second || o.Key == "" {
						t.Errorf("%+v; want it %s after %d tries in 30s", o, c.state, c.tries)
					}
				}
				if !verdict.OK() || c.kept != (verdict.Kept == len(report.Orders)) || len(verdict.Phantoms) > 0 {
					t.Errorf("of %d orders: %s", len(report.Orders), verdict)
				}
				if strings.HasPrefix(c.name, "503") && (report.HoldersRefused == 0 || report.RefusedBy[503] != report.HoldersRefused) {
					t.Errorf("holders refused %d %v", report.HoldersRefused, report.RefusedBy)
				}
			})
		})
	}
}

func TestLyingServerIsCaught(t *testing.T) {
	for _, c := range []struct {
		name string
		lie  func(w http.ResponseWriter, r *http.Request, next http.Handler)
	}{
		{"confirmed, not written", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Location", "/order/F-TRUSTME")
			w.WriteHeader(http.StatusOK)
		}},
		{"another's order number", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			w.Header().Set("Location", "/order/F-SOMEBODYELSE")
			w.WriteHeader(http.StatusCreated)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lies atomic.Int64
			wrap := checkouts(func(_ int, w http.ResponseWriter, r *http.Request, next http.Handler) {
				if lies.Add(1)%2 == 0 {
					next.ServeHTTP(w, r)
					return
				}
				c.lie(w, r, next)
			})
			synctest.Test(t, func(t *testing.T) {
				report, verdict := site{wrap: wrap}.visit(t, buyers(2, 10))
				want := int(lies.Load()+1) / 2
				if verdict.OK() || len(verdict.Lost) != want || verdict.Kept != len(report.Orders)-want {
					t.Errorf("%d lies in %d orders: %s", want, len(report.Orders), verdict)
				}
			})
		})
	}
}

func TestBrokenSiteIsReportedNotHidden(t *testing.T) {
	for _, c := range []struct {
		name, trouble string
		do            http.HandlerFunc
	}{
		{"truncated", "truncated answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("short"))
		}},
		{"cut", "connection broken", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"stalled", "timeout", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"endless page", "too large", func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = w.Write(make([]byte, 64<<10))
			}
		}},
		{"unknown coding", "malformed answer or other", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte("xyz"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wrap := func(http.Handler) http.Handler { return c.do }
				report, _ := site{wrap: wrap}.visit(t, buyers(1, 5))
				if report.Arrivals == 0 || report.GaveUp != report.Arrivals || report.Errors[c.trouble] != report.Requests {
					t.Errorf("%d arrivals, %d gave up, %d requests, errors %v; want all %q",
						report.Arrivals, report.GaveUp, report.Requests, report.Errors, c.trouble)
				}
			})
		})
	}
}

func TestClosedKeepAliveConnectionIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := buyers(1, 20)
		cfg.Funnel.Think = 10 * time.Second
		report, verdict := site{idle: time.Second}.visit(t, cfg)
		if len(report.Errors) > 0 || report.GaveUp > 0 || verdict.Kept == 0 || verdict.Kept != len(report.Orders) {
			t.Errorf("errors %v, %d gave up; %s", report.Errors, report.GaveUp, verdict)
		}
	})
	// Too short a time to look before use: the request is sent again, but that of an order
	// counts as a try.
	synctest.Test(t, func(t *testing.T) {
		cfg := buyers(1, 20)
		cfg.Funnel.Think, cfg.Funnel.Spread = 100*time.Millisecond, 1e-9
		report, verdict := site{idle: 50 * time.Millisecond}.visit(t, cfg)
		failed := int(report.Requests - report.Answers.Count)
		if failed != len(report.Orders) || report.GaveUp > 0 || verdict.Kept == 0 || verdict.Kept != len(report.Orders) {
			t.Errorf("%d failed requests, %d gave up; %s", failed, report.GaveUp, verdict)
		}
	})
}

func TestEncodedPagesAreRead(t *testing.T) {
	for _, coding := range []string{"gzip", "deflate", "br"} {
		t.Run(coding, func(t *testing.T) {
			var asked atomic.Value
			wrap := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked.Store(r.Header.Get("Accept-Encoding"))
					plain := httptest.NewRecorder()
					next.ServeHTTP(plain, r)
					for name, values := range plain.Header() {
						w.Header()[name] = values
					}
					var out bytes.Buffer
					var z io.WriteCloser
					if coding == "gzip" {
						z, _ = gzip.NewWriterLevel(&out, gzip.NoCompression)
					} else {
						z, _ = zlib.NewWriterLevel(&out, zlib.NoCompression)
					}
					_, _ = z.Write(plain.Body.Bytes())
					_ = z.Close()
					w.Header().Del("Content-Length")
					if plain.Body.Len() == 0 || !strings.HasPrefix(plain.Header().Get("Content-Type"), "text/html") {
						out = *plain.Body
					} else {
						w.Header().Set("Content-Encoding", coding)
					}
					w.WriteHeader(plain.Code)
					_, _ = w.Write(out.Bytes())
				})
			}
			synctest.Test(t, func(t *testing.T) {
				cfg := buyers(1, 5)
				want := "gzip, deflate"
				if coding == "br" { // any decoder will do for this name
					cfg.Decoders = map[string]func(io.Reader) (io.Reader, error){"br": func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }}
					want += ", br"
				}
				report, verdict := site{wrap: wrap}.visit(t, cfg)
				if asked.Load() != want || verdict.Kept == 0 || verdict.Kept != len(report.Orders) || len(report.Errors) > 0 {
					t.Errorf("asked for %q; errors %v; %s", asked.Load(), report.Errors, verdict)
				}
			})
		})
	}
}

func TestVisitorsBeyondTheLimitAreDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := buyers(20, 10)
		cfg.MaxLive = 5
		var most atomic.Int64
		var now atomic.Int64
		wrap := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				defer now.Add(-1)
				next.ServeHTTP(w, r)
			})
		}
		report, _ := site{wrap: wrap}.visit(t, cfg)
		if report.Dropped == 0 || report.Arrivals-report.Dropped < 5 || most.Load() > 5*2 {
			t.Errorf("%d of %d arrivals dropped, at most %d requests at once", report.Dropped, report.Arrivals, most.Load())
		}
	})
}

func TestEndOfContextFinishesOrdersAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var g *visitors.Generator
		first := make(chan struct{})
		var once sync.Once
		slow := checkouts(func(_ int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			once.Do(func() { close(first) })
			time.Sleep(3 * time.Second)
			next.ServeHTTP(w, r)
		})
		house, err := shop.New(shop.Config{DataDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer house.Close()
		wire := newPipes()
		server := &http.Server{Handler: slow(plainImages(house.Handler()))}
		go func() { _ = server.Serve(wire) }()
		defer server.Close()
		cfg := buyers(3, 3600)
		cfg.Target, cfg.Dial = "http://shop.example", wire.dial
		if g, err = visitors.New(cfg); err != nil {
			t.Fatal(err)
		}
		go func() { <-first; cancel() }()
		report, err := g.Run(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if report.OrdersConfirmed == 0 || report.OrdersFailed > 0 {
			t.Errorf("%d orders confirmed and %d failed; want those that were being placed to be confirmed", report.OrdersConfirmed, report.OrdersFailed)
		}
		if _, err := g.Run(t.Context()); err == nil {
			t.Error("a second Run is no error")
		}
	})
}

func TestVisitorsComeFromManyAddressesOverTLS(t *testing.T) {
	house, err := shop.New(shop.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer house.Close()
	var mu sync.Mutex
	seen := map[string]bool{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address, _, _ := net.SplitHostPort(r.RemoteAddr)
		mu.Lock()
		seen[address] = true
		mu.Unlock()
		if r.Host != "example.com" || r.TLS == nil || r.TLS.ServerName != "example.com" {
			t.Errorf("Host %q, TLS %v", r.Host, r.TLS)
		}
		plainImages(house.Handler()).ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	pool := netip.MustParsePrefix("127.77.3.0/24")
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	cfg := buyers(60, 1)
	cfg.Target, cfg.Host, cfg.RootCAs, cfg.Sources, cfg.Funnel.Think = server.URL, "example.com", roots, pool, -1
	cfg.Duration = 500 * time.Millisecond
	g, err := visitors.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	report, err := g.Run(t.Context())
	if err != nil || len(report.Errors) > 0 || report.OrdersConfirmed == 0 || report.OrdersFailed > 0 {
		t.Errorf("%v: %s", err, report)
	}
	if len(seen) < 5 {
		t.Errorf("only %d source addresses", len(seen))
	}
	for address := range seen {
		if a := netip.MustParseAddr(address); !pool.Contains(a) || a == pool.Addr() {
			t.Errorf("a visitor came from %s", address)
		}
	}

	cfg.RootCAs, cfg.Duration = nil, 100*time.Millisecond
	if g, err = visitors.New(cfg); err != nil {
		t.Fatal(err)
	}
	if report, err = g.Run(t.Context()); err != nil || report.Arrivals == 0 || report.Errors["TLS handshake"] != report.Requests {
		t.Errorf("an unknown authority: %v, %s", err, report)
	}
}

func TestAttacksAreBlockableAndHarmless(t *testing.T) {
	house, err := shop.New(shop.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer house.Close()
	server := httptest.NewServer(house.Handler())
	defer server.Close()
	names, classes := map[string]bool{}, map[string]bool{}
	for _, a := range visitors.Attacks() {
		if names[a.Name] {
			t.Errorf("two attacks are called %s", a.Name)
		}
		names[a.Name], classes[a.Class] = true, true
		r, err := a.Request(t.Context(), server.URL)
		if err != nil {
			t.Fatal(err)
		}
		if r.URL.RequestURI() != a.Target {
			t.Errorf("%s is sent as %s, want %s", a.Name, r.URL.RequestURI(), a.Target)
		}
		out, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = out.Body.Close()
		if out.StatusCode >= 500 {
			t.Errorf("%s breaks the shop: status %d", a.Name, out.StatusCode)
		}
	}
	for _, class := range []string{"sqli", "xss", "traversal", "log4j"} {
		if !classes[class] {
			t.Errorf("no attack of class %s", class)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		cfg := buyers(2, 20)
		cfg.AttackShare = .5
		wall := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.RawQuery, "%27") {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
		report, _ := site{wrap: wall}.visit(t, cfg)
		if report.Attackers == 0 || report.AttacksBlocked == 0 || report.AttacksBlocked >= report.Attacks || report.HoldersRefused > 0 {
			t.Errorf("%d attackers, %d attacks, %d blocked, %d holders refused", report.Attackers, report.Attacks, report.AttacksBlocked, report.HoldersRefused)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]visitors.Config{
		"no target":       {},
		"no scheme":       {Target: "127.0.0.1:80"},
		"strange scheme":  {Target: "ftp://127.0.0.1"},
		"too many conns":  {Target: "http://127.0.0.1", Conns: 7},
		"field injection": {Target: "http://127.0.0.1", Host: "a\r\nX-Evil: 1"},
		"negative limit":  {Target: "http://127.0.0.1", MaxLive: -1},
	} {
		if _, err := visitors.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
