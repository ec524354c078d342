package edge

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/trial"
)

// sampling is a policy that compares every page as fast as it may.
const sampling = `{trial: {percent: 100%, rate: 100}}`

// findings waits until n pages of a site were looked at, and returns what was found by group.
func (b *bed) findings(n int64) map[string]trial.Finding {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var r trial.Report
		b.door("GET", "/cache/trial?site=shop", nil, &r)
		out, sum := map[string]trial.Finding{}, int64(0)
		for _, f := range r.Findings {
			out[f.Paths] = f
			sum += f.Compared + f.ByCookie
		}
		for _, k := range r.Skipped {
			sum += k
		}
		if sum >= n {
			return out
		}
		if time.Now().After(end) {
			b.t.Fatalf("%d of %d: %+v", sum, n, r)
		}
	}
}

// browse asks for a page as a browser does, and waits as long as the rate of the trial wants.
func (b *bed) browse(path string, fields ...string) (*http.Response, string) {
	b.t.Helper()
	time.Sleep(60 * time.Millisecond) // five requests of a hundred a second are a sample
	return b.get("http1", path, append(fields, "Accept: text/html,*/*", "Accept-Encoding: gzip")...)
}

func TestTheTrialTellsWhatACookieATokenAndASessionChange(t *testing.T) {
	var n atomic.Int64
	var mu sync.Mutex
	var again []string // cookies and paths of what the trial asked for
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Relais-Trial") != "" {
			mu.Lock()
			again = append(again, r.URL.Path+" "+r.Header.Get("Cookie"))
			mu.Unlock()
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		cookie := r.Header.Get("Cookie")
		switch r.URL.Path {
		case "/form/x":
			fmt.Fprintf(w, `<form><input type="hidden" name="form_key" value="a%d"></form>`, n.Add(1))
		case "/hello/x":
			if strings.Contains(cookie, "PHPSESSID") {
				fmt.Fprint(w, "<p>Hello Ann</p>")
			}
		case "/clock/x":
			fmt.Fprintf(w, "<p>%d in stock</p><!-- %d -->", n.Add(1)/2, n.Load())
			return
		}
		price := "CHF"
		if strings.Contains(cookie, "currency=EUR") {
			price = "EUR"
		}
		fmt.Fprintf(w, `<html><!-- made %d %s --><p>price <b>9.90 %s</b></p>%s</html>`, n.Add(1), r.Header.Get("X-Request-Id"), price, strings.Repeat("<p>text</p>", 100))
	}, cached(sampling))
	b.browse("/product/1")
	b.browse("/product/2", "Cookie: ga=1; PHPSESSID=s3cret")
	b.browse("/product/3", "Cookie: ga=1; currency=EUR; PHPSESSID=s3cret")
	b.browse("/form/x")
	b.browse("/hello/x", "Cookie: PHPSESSID=s3cret")
	b.browse("/clock/x")
	f := b.findings(6)
	p := f["/product/*"]
	if p.Compared != 2 || p.Equal != 2 || p.ByCookie != 1 || p.Safe {
		t.Errorf("%+v", p)
	}
	if len(p.Cookies) == 0 || p.Cookies[0] != (trial.CookieEvidence{Name: "currency", Seen: 1, Changed: 1}) {
		t.Errorf("%+v", p.Cookies)
	}
	if f := f["/form/*"]; f.Equal != 0 || len(f.Against) != 1 || f.Against[0].Reason != "token" || !strings.Contains(f.Against[0].Where, "form_key") || !strings.Contains(f.Says, "not safe") {
		t.Errorf("%+v", f)
	}
	if h := f["/hello/*"]; h.ByCookie != 1 || len(h.Cookies) != 1 || !h.Cookies[0].Session || h.Cookies[0].Changed != 1 {
		t.Errorf("%+v", h)
	}
	if c := f["/clock/*"]; c.Equal != 0 || len(c.Against) != 1 || c.Against[0].Reason != "content" {
		t.Errorf("%+v", c)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, a := range again {
		if strings.Contains(a, "s3cret") {
			t.Errorf("the trial sent the cookie of a session: %s", a)
		}
	}
	if len(again) > 20 {
		t.Errorf("%d requests", len(again))
	}
}

func TestTheTrialLeavesAloneWhatMayDoSomething(t *testing.T) {
	var tried atomic.Int64
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Relais-Trial") != "" {
			tried.Add(1)
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<p>x</p>")
	}, cached(`{trial: {percent: 100%, rate: 100, exclude: [/own]}}`))
	for _, path := range []string{
		"/cart", "/shop/checkout/", "/de/logout.php", "/user/orders", "/p?token=1", "/p?add-to-cart=5", "/p?action=x",
		"/p?%74oken=1", "/own/page", "/p?q=" + strings.Repeat("x", 65), "/Warenkorb",
	} {
		b.browse(path)
	}
	b.browse("/p", "Authorization: Basic x")
	b.send("http1", "POST", "/p", strings.NewReader("x"), "Accept: text/html")
	b.send("http1", "HEAD", "/p", nil, "Accept: text/html")
	resp, _ := b.get("http1", "/image", "Accept: image/*")
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	b.browse("/good/page") // the only one, and after all others
	if f := b.findings(1); len(f) != 1 || f["/good/*"].Equal != 1 || tried.Load() != 1 {
		t.Errorf("%d requests, %+v", tried.Load(), f)
	}
}

func TestTheTrialKeepsItsRate(t *testing.T) {
	var tried atomic.Int64
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Relais-Trial") != "" {
			tried.Add(1)
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<p>x</p>")
	}, cached(`{trial: {percent: 100%, rate: 1}}`))
	begin := time.Now()
	for i := range 200 {
		b.get("http1", fmt.Sprint("/p/", i), "Accept: text/html")
	}
	b.findings(1)
	// A page may cost five requests, and these cost one.
	if n, took := tried.Load(), time.Since(begin); n > 1+int64(took/(5*time.Second)) {
		t.Errorf("%d requests in %v at one a second", n, took)
	}
}
