package shop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/demo/shop"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}

func newShop(t testing.TB, cfg shop.Config) *shop.Shop {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	s, err := shop.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask sends one request to the handler. Headers come as "Name: value".
func ask(h http.Handler, method, target, body string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fill puts something into a new basket and returns its Cookie field.
func fill(t testing.TB, h http.Handler) string {
	t.Helper()
	r := ask(h, "POST", "/basket", "action=add&sku=LMP-0100&quantity=2")
	if r.StatusCode != http.StatusSeeOther || len(r.Cookies()) != 1 {
		t.Fatalf("adding to the basket: status %d, %d cookies", r.StatusCode, len(r.Cookies()))
	}
	return "Cookie: basket=" + r.Cookies()[0].Value
}

const buyerForm = "name=Ada+Lovelace&email=ada%40example.org&address=12+Harbour+Street"

func TestCacheFieldsSayWhatMayBeShared(t *testing.T) {
	h := newShop(t, shop.Config{}).Handler()
	basket := fill(t, h)
	const page = "public, max-age=10, stale-while-revalidate=30"
	for _, c := range []struct{ target, control string }{
		{"/", page},
		{"/c/lamps", page},
		{"/c/lamps?page=2", page},
		{"/search?q=oak", page},
		{"/p/LMP-0100", page},
		{"/api/products", page},
		{"/api/products/LMP-0100", page},
		{"/img/LMP-0100-160.jpg", "public, max-age=86400"},
		{"/img/LMP-0100-160.png", "public, max-age=86400"},
		{"/assets/style.css", "public, max-age=604800"},
		{"/assets/icon.svg", "public, max-age=604800"},
		{"/basket", "private, no-store"},
		{"/checkout", "private, no-store"},
		{"/api/basket", "private, no-store"},
		{"/healthz", "no-store"},
		{"/stats", "no-store"},
	} {
		t.Run(c.target, func(t *testing.T) {
			r := ask(h, "GET", c.target, "", basket)
			if r.StatusCode != http.StatusOK {
				t.Fatalf("status %d", r.StatusCode)
			}
			if got := r.Header.Get("Cache-Control"); got != c.control {
				t.Errorf("Cache-Control %q, want %q", got, c.control)
			}
			if got := r.Header.Get("X-Shop-Cluster"); got != "home" {
				t.Errorf("X-Shop-Cluster %q", got)
			}
			if !strings.HasPrefix(c.control, "public") {
				return
			}
			if r.Header["Set-Cookie"] != nil {
				t.Error("an answer that caches may share sets a cookie")
			}
			if got, want := text(t, ask(h, "GET", c.target, "")), text(t, r); got != want {
				t.Error("an answer that caches may share differs with a cookie")
			}
			again := ask(h, "GET", c.target, "", "If-None-Match: "+r.Header.Get("Etag"))
			if again.StatusCode != http.StatusNotModified || text(t, again) != "" {
				t.Errorf("revalidation (RFC 9110 section 13.1.2) gave %d", again.StatusCode)
			}
			if again.Header.Get("Etag") == "" || again.Header.Get("Cache-Control") != c.control {
				t.Errorf("304 lacks Etag or Cache-Control (RFC 9110 section 15.4.5): %v", again.Header)
			}
			if other := ask(h, "GET", c.target, "", `If-None-Match: "other"`); other.StatusCode != http.StatusOK {
				t.Errorf("another entity tag gave %d", other.StatusCode)
			}
		})
	}
}

func TestEveryLinkOfTheShopLeadsSomewhere(t *testing.T) {
	h := newShop(t, shop.Config{}).Handler()
	link := regexp.MustCompile(` (?:href|src)="(/[^"]*)"`)
	seen := map[string]bool{"/": true}
	for queue := []string{"/"}; len(queue) > 0; queue = queue[1:] {
		target := strings.ReplaceAll(queue[0], "&amp;", "&")
		if strings.HasPrefix(target, "/img/") && !strings.Contains(target, "-0101-") {
			continue // painting all of them takes seconds
		}
		r := ask(h, "GET", target, "")
		if r.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", target, r.StatusCode)
		}
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(text(t, r), -1) {
			if !seen[m[1]] {
				seen[m[1]] = true
				queue = append(queue, m[1])
			}
		}
	}
	products := 0
	for target := range seen {
		if strings.HasPrefix(target, "/p/") {
			products++
		}
	}
	if products != 504 {
		t.Errorf("the shop's pages link %d products, want all 504", products)
	}
}

func TestSearchTermIsEscapedInThePage(t *testing.T) {
	h := newShop(t, shop.Config{}).Handler()
	for _, attack := range []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onfocus='alert(1)`} {
		r := ask(h, "GET", "/search?q="+url.QueryEscape(attack), "")
		body := text(t, r)
		if r.StatusCode != http.StatusOK || strings.Contains(body, attack) || strings.Contains(body, "<img src=x") {
			t.Errorf("%q: status %d, or it is in the page as it came", attack, r.StatusCode)
		}
		if !strings.Contains(body, "alert(1)") {
			t.Errorf("%q: the page does not show what was searched for", attack)
		}
	}
}

func TestBadInputIsRefused(t *testing.T) {
	s := newShop(t, shop.Config{})
	h := s.Handler()
	basket := fill(t, h)
	long := strings.Repeat("x", 20<<10)
	for _, c := range []struct {
		name, method, target, body string
		status                     int
		headers                    []string
	}{
		{"unknown page", "GET", "/nothing", "", 404, nil},
		{"unknown product", "GET", "/p/XXX-1", "", 404, nil},
		{"unknown category", "GET", "/c/ships", "", 404, nil},
		{"page of no list", "GET", "/c/lamps?page=99", "", 404, nil},
		{"page that is no number", "GET", "/c/lamps?page=x", "", 404, nil},
		{"image of no product", "GET", "/img/XXX-1-320.jpg", "", 404, nil},
		{"image of no size", "GET", "/img/LMP-0100-9999.jpg", "", 404, nil},
		{"image of no format", "GET", "/img/LMP-0100-320.gif", "", 404, nil},
		{"order of no number", "GET", "/order/F-NONE", "", 404, nil},
		{"method of no page", "DELETE", "/p/LMP-0100", "", 405, nil},
		{"basket: unknown product", "POST", "/basket", "action=add&sku=XXX-1", 422, nil},
		{"basket: unknown action", "POST", "/basket", "action=steal&sku=LMP-0100", 422, nil},
		{"basket: too many", "POST", "/basket", "action=add&sku=LMP-0100&quantity=100", 422, nil},
		{"basket: fewer than none", "POST", "/basket", "action=set&sku=LMP-0100&quantity=-1", 422, nil},
		{"basket: too large", "POST", "/basket", "action=add&sku=" + long, 413, nil},
		{"basket: broken form", "POST", "/basket", "action=%zz", 400, nil},
		{"basket: from another site", "POST", "/basket", "action=add&sku=LMP-0100", 403, []string{"Sec-Fetch-Site: cross-site"}},
		{"order: no key", "POST", "/checkout", buyerForm, 400, []string{basket}},
		{"order: short key", "POST", "/checkout", buyerForm + "&idempotency_key=abc", 400, []string{basket}},
		{"order: strange key", "POST", "/checkout", buyerForm + "&idempotency_key=%3Cscript%3E1234", 400, []string{basket}},
		{"order: two keys", "POST", "/checkout", buyerForm + "&idempotency_key=abcdefgh1", 400, []string{basket, "Idempotency-Key: abcdefgh2"}},
		{"order: no buyer", "POST", "/checkout", "idempotency_key=abcdefgh1", 422, []string{basket}},
		{"order: bad address", "POST", "/checkout", "idempotency_key=abcdefgh1&name=Ada&email=nobody&address=12345", 422, []string{basket}},
		{"order: no basket", "POST", "/checkout", buyerForm + "&idempotency_key=abcdefgh1", 303, nil},
		{"api: form instead of JSON", "POST", "/api/basket", "action=add", 415, nil},
		{"api: broken JSON", "POST", "/api/basket", "{", 400, []string{"Content-Type: application/json"}},
		{"api: unknown field", "POST", "/api/basket", `{"price":1}`, 400, []string{"Content-Type: application/json"}},
		{"api: two values", "POST", "/api/basket", `{"action":"add","sku":"LMP-0100"} {}`, 400, []string{"Content-Type: application/json"}},
		{"api: too large", "POST", "/api/basket", `{"sku":"` + long + `"}`, 413, []string{"Content-Type: application/json"}},
		{"api: order without key", "POST", "/api/orders", `{"name":"Ada","email":"a@example.org","address":"12345"}`, 400, []string{basket, "Content-Type: application/json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ask(h, c.method, c.target, c.body, c.headers...)
			if r.StatusCode != c.status {
				t.Errorf("status %d, want %d: %s", r.StatusCode, c.status, text(t, r))
			}
			if strings.HasPrefix(c.target, "/api/") && r.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("Content-Type %q, want a problem (RFC 9457)", r.Header.Get("Content-Type"))
			}
		})
	}
	if n := s.Stats().Orders; n != 0 {
		t.Errorf("bad input placed %d orders", n)
	}
}

func TestBasketAddsSetsAndRemoves(t *testing.T) {
	h := newShop(t, shop.Config{}).Handler()
	first := ask(h, "POST", "/basket", "action=add&sku=LMP-0100", "X-Forwarded-Proto: https")
	cookie := first.Cookies()[0]
	if !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || first.Header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("the basket's cookie is %v with Cache-Control %q", cookie, first.Header.Get("Cache-Control"))
	}
	with := "Cookie: basket=" + cookie.Value
	for _, c := range []struct {
		form string
		want string // lines of the basket as SKU:quantity
	}{
		{"action=add&sku=LMP-0100&quantity=2", "LMP-0100:3"},
		{"action=add&sku=MUG-0101", "LMP-0100:3 MUG-0101:1"},
		{"action=add&sku=LMP-0100&quantity=99", "LMP-0100:99 MUG-0101:1"},
		{"action=set&sku=LMP-0100&quantity=4", "LMP-0100:4 MUG-0101:1"},
		{"action=set&sku=MUG-0101&quantity=0", "LMP-0100:4"},
		{"action=remove&sku=LMP-0100", ""},
	} {
		if r := ask(h, "POST", "/basket", c.form, with); r.StatusCode != http.StatusSeeOther || r.Header["Set-Cookie"] != nil {
			t.Fatalf("%s: status %d, Set-Cookie %v", c.form, r.StatusCode, r.Header["Set-Cookie"])
		}
		var got struct {
			Lines []struct {
				SKU      string
				Quantity int
			}
		}
		if err := json.NewDecoder(ask(h, "GET", "/api/basket", "", with).Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, l := range got.Lines {
			lines = append(lines, fmt.Sprintf("%s:%d", l.SKU, l.Quantity))
		}
		if strings.Join(lines, " ") != c.want {
			t.Errorf("after %s the basket is %v, want %s", c.form, lines, c.want)
		}
	}
}

func TestBasketHasALimitOfLines(t *testing.T) {
	h := newShop(t, shop.Config{}).Handler()
	basket := fill(t, h)
	var statuses []int
	for i := range 51 {
		r := ask(h, "POST", "/basket", fmt.Sprintf("action=add&sku=%s-%04d", []string{"MUG", "CHR"}[i/42], 100+i%42), basket)
		statuses = append(statuses, r.StatusCode)
	}
	if slices.Index(statuses, http.StatusConflict) != 49 {
		t.Errorf("statuses %v, want 409 from the 51st line on", statuses)
	}
}

func TestImagesAreTheSameInEveryShop(t *testing.T) {
	one, two := newShop(t, shop.Config{}).Handler(), newShop(t, shop.Config{}).Handler()
	for i, prefix := range []string{"LMP", "MUG", "CHR", "PLT", "BAG", "CLK", "NTB", "VAS", "CND", "UMB", "HDP", "CSH"} {
		target := fmt.Sprintf("/img/%s-01%02d-160.%s", prefix, i, []string{"jpg", "png"}[i%2])
		a, b := ask(one, "GET", target, ""), ask(two, "GET", target, "")
		if a.StatusCode != http.StatusOK || a.Header.Get("Last-Modified") == "" || text(t, a) != text(t, b) {
			t.Errorf("%s: status %d, or it differs between shops", target, a.StatusCode)
		}
	}
}

func TestImageCacheIsBounded(t *testing.T) {
	s := newShop(t, shop.Config{ImageCacheBytes: 20_000})
	for i := range 30 {
		ask(s.Handler(), "GET", fmt.Sprintf("/img/VAS-01%02d-160.jpg", i), "")
		if got := s.Stats().Images.Bytes; got > 20_000 {
			t.Fatalf("%d bytes of images are kept, the limit is 20,000", got)
		}
	}
	if got := s.Stats().Images; got.Made != 30 || got.Evicted == 0 || got.Bytes == 0 {
		t.Errorf("%+v, want 30 made and some evicted", got)
	}
}

func TestCapacityIsReal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := shop.New(shop.Config{
			DataDir: t.TempDir(), Cluster: "overflow", Capacity: 2, Queue: 1,
			QueueTimeout: time.Hour, ServiceTime: time.Second, ReportLoad: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		statuses := make(chan int, 3)
		for range 3 {
			go func() { statuses <- ask(s.Handler(), "GET", "/p/LMP-0100", "").StatusCode }()
		}
		synctest.Wait()
		if got := s.Stats(); got.InFlight != 2 || got.Waiting != 1 {
			t.Errorf("%d in flight and %d waiting, want 2 and 1", got.InFlight, got.Waiting)
		}
		r := ask(s.Handler(), "GET", "/p/LMP-0100", "")
		if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || r.Header.Get("Cache-Control") != "private, no-store" {
			t.Errorf("beyond the queue: status %d, fields %v", r.StatusCode, r.Header)
		}
		if got := r.Header.Get("Endpoint-Load-Metrics"); got != "TEXT application_utilization=1.500" {
			t.Errorf("load report %q", got)
		}
		if r := ask(s.Handler(), "GET", "/healthz", ""); r.StatusCode != http.StatusOK {
			t.Errorf("healthz answers %d while every slot is taken", r.StatusCode)
		}
		for range 3 {
			if got := <-statuses; got != http.StatusOK {
				t.Errorf("a request with a slot or in the queue got %d", got)
			}
		}
		if got := s.Stats(); got.InFlight != 0 || got.Waiting != 0 || got.Served != 3 || got.Refused != 1 {
			t.Errorf("at the end: %+v", got)
		}
	})
}

func TestQueuedRequestGivesUpAfterQueueTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := shop.New(shop.Config{
			DataDir: t.TempDir(), Capacity: 1, Queue: 5, QueueTimeout: time.Second, ServiceTime: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		done := make(chan struct{})
		go func() { ask(s.Handler(), "GET", "/", ""); close(done) }()
		synctest.Wait()
		start := time.Now()
		if r := ask(s.Handler(), "GET", "/", ""); r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("status %d", r.StatusCode)
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("it waited %s, want 1s", got)
		}
		<-done
	})
}

func TestRunFinishesWhatIsInFlightAndThenStops(t *testing.T) {
	dir := t.TempDir()
	s, err := shop.New(shop.Config{DataDir: dir, ServiceTime: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	status := make(chan int, 1)
	go func() {
		r, err := (&http.Client{Transport: transport}).Get("http://" + l.Addr().String() + "/")
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		status <- r.StatusCode
	}()
	for s.Stats().InFlight == 0 && len(status) == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	if got := <-status; got != http.StatusOK {
		t.Errorf("the request in flight got %d", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]shop.Config{
		"no directory":      {},
		"negative capacity": {DataDir: t.TempDir(), Capacity: -1},
		"strange cluster":   {DataDir: t.TempDir(), Cluster: "a\r\nb"},
		"directory a file":  {DataDir: "/dev/null/x"},
	} {
		if s, err := shop.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = s.Close()
		}
	}
}
