package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/edge/waf"
)

const learningSite = siteHead + `
  waf: core
  visitor: buyers
  routes: [{pool: shop}]
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: core}
spec: {mode: %s, learning: {buyers: 2, orderField: X-Order}}
---
apiVersion: relais/v1
kind: VisitorPolicy
metadata: {name: buyers}
spec: {basket: [{path: /basket}], ordered: [{path: /order}]}
` + pool

// orders is a shop that names the orders that it took. One without goods is sent back to the basket.
func orders(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/order" {
		return
	}
	if r.FormValue("goods") == "" {
		http.Redirect(w, r, "/basket", http.StatusSeeOther)
		return
	}
	w.Header().Set("X-Order", r.FormValue("goods"))
}

// from sends a request from an address of the machine, and returns the cookie that the answer sets.
func (b *bed) from(addr, method, path, cookie string, form url.Values) (*http.Response, string) {
	b.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).DialContext(ctx, network, to)
	}}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base("http1")+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Host = "www.shop.example"
	req.Header.Set("User-Agent", "Mozilla/5.0")
	req.Header.Set("Accept", "text/html")
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	c := &http.Client{Transport: tr, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	set, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	return resp, set
}

// shopper puts something into a basket, is hit by a rule, and orders goods. It returns the answer
// to the request that is hit.
func (b *bed) shopper(n int, goods string) *http.Response {
	b.t.Helper()
	addr := fmt.Sprintf("127.0.%d.1", n)
	_, cookie := b.from(addr, "POST", "/basket", "", url.Values{"sku": {"1"}})
	if cookie == "" {
		b.t.Fatal("no basket")
	}
	resp, _ := b.from(addr, "GET", hardSearch, cookie, nil)
	if r, _ := b.from(addr, "POST", "/order", cookie, url.Values{"goods": {goods}}); r.StatusCode >= 400 {
		b.t.Fatalf("order: %d", r.StatusCode)
	}
	return resp
}

const hardSearch = "/search?q=sleep%288%29+pillow"

func (b *bed) learnedOf(site string) []*waf.Learned {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.WAFDoor().ServeHTTP(w, httptest.NewRequest("GET", "/waf/learned?site="+site, nil))
	var l []*waf.Learned
	if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || w.Code != 200 {
		b.t.Fatalf("%d %s %v", w.Code, w.Body.String(), err)
	}
	return l
}

func TestBuyersOverTheWireDemoteARuleAndMakeAProposal(t *testing.T) {
	b := newBed(t, orders, fmt.Sprintf(learningSite, "enforce"))
	// A shop that sends back to the basket has taken no order: nothing comes of it.
	for n := range 3 {
		if r := b.shopper(10+n, ""); r.StatusCode != 403 {
			t.Fatalf("buyer without order %d: %d", n, r.StatusCode)
		}
	}
	for n := range 2 {
		if r := b.shopper(n, fmt.Sprint("goods", n)); r.StatusCode != 403 {
			t.Fatalf("buyer %d: %d", n, r.StatusCode)
		}
	}
	resp, _ := b.from("127.0.99.1", "GET", hardSearch, "", nil)
	if resp.StatusCode != 200 {
		t.Errorf("after two buyers: %d", resp.StatusCode)
	}
	if d := b.explained(resp).Decisions; !hasDecision(d, "demoted", "942100 (ARGS:q) only logs here until") {
		t.Errorf("explain says %+v", d)
	}
	l := b.learnedOf("shop")
	if len(l) != 1 || l[0].Orders != 2 || len(l[0].Proposals) != 1 || len(l[0].Findings) != 2 || l[0].Findings[0].Demoted == nil {
		t.Fatalf("%+v", l)
	}
	p := l[0].Proposals[0]
	if want := `{rules: ["942100", "942160"], target: "ARGS:q", shapes: ["sleep(9) w"], path: "/search", exact: true, methods: [GET]}`; p.YAML != want || p.Evidence.Buyers != 2 || p.Evidence.Baskets != 5 {
		t.Errorf("%+v", p)
	}
	if all := b.learnedOf(""); len(all) != 1 || all[0].Site != "default/shop" {
		t.Errorf("%+v", all)
	}
	// A change of the documents keeps what was learned; observe ends what is demoted.
	b.apply(strings.Replace(fmt.Sprintf(learningSite, "enforce"), "learning: {", "learning: {mode: observe, ", 1))
	if resp, _ := b.from("127.0.99.1", "GET", hardSearch, "", nil); resp.StatusCode != 403 {
		t.Errorf("observe: %d", resp.StatusCode)
	}
	if l := b.learnedOf("shop"); len(l[0].Proposals) != 1 {
		t.Errorf("%+v", l[0])
	}
}

func TestABlockedRequestIsExplainedWithTheLineThatLetsItPass(t *testing.T) {
	b := newBed(t, orders, fmt.Sprintf(learningSite, "enforce"))
	resp, _ := b.from("127.0.0.1", "GET", hardSearch, "", nil)
	e := b.explained(resp)
	if resp.StatusCode != 403 || !hasDecision(e.Decisions, "deny", `score 10 ≥ 5: 942100`) || !hasDecision(e.Decisions, "policy", "core, revision ") {
		t.Fatalf("%d %+v", resp.StatusCode, e)
	}
	line := ""
	for _, d := range e.Decisions {
		if d.Code == "exclusion" {
			line = d.Detail
		}
	}
	b.apply(strings.Replace(fmt.Sprintf(learningSite, "enforce"), "learning: {", "exclusions: ["+line+"], learning: {", 1))
	if resp, _ := b.from("127.0.0.1", "GET", hardSearch, "", nil); resp.StatusCode != 200 {
		t.Errorf("with %s: %d", line, resp.StatusCode)
	}
	for _, other := range []string{"/search/x?q=sleep%288%29+pillow", "/search?p=sleep%288%29+pillow", "/search?q=%3Cscript%3Ealert(1)%3C/script%3E"} {
		if resp, _ := b.from("127.0.0.1", "GET", other, "", nil); resp.StatusCode != 403 {
			t.Errorf("%s: %d", other, resp.StatusCode)
		}
	}
}

func hasDecision(list []record.Decision, code, part string) bool {
	for _, d := range list {
		if d.Stage == "waf" && d.Code == code && strings.Contains(d.Detail, part) {
			return true
		}
	}
	return false
}

// The candidate of a policy refuses nothing; explain and the admin socket say what it would refuse.
func TestWhatACandidateWouldDoIsToldAtTheDoorAndByExplain(t *testing.T) {
	documents := strings.Replace(fmt.Sprintf(learningSite, "enforce"), "learning: {", "rules: [], candidate: {share: 100%, rules: [{name: ban, path: /about}]}, learning: {", 1)
	b := newBed(t, orders, documents)
	resp, _ := b.from("127.0.0.1", "GET", "/about", "", nil)
	if resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
	if d := b.explained(resp).Decisions; !slices.ContainsFunc(d, func(d record.Decision) bool {
		return d.Stage == "waf-candidate" && d.Code == "would-deny" && strings.HasPrefix(d.Detail, "rule ban ")
	}) {
		t.Errorf("explain says %+v", d)
	}
	for site, want := range map[string]int{"": 1, "shop": 1, "other": 0} {
		w := httptest.NewRecorder()
		b.WAFDoor().ServeHTTP(w, httptest.NewRequest("GET", "/waf/candidates?site="+site, nil))
		var list []waf.Candidate
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) != want {
			t.Errorf("%q: %s", site, w.Body)
		} else if want > 0 && (list[0].WouldDeny != 1 || list[0].Rules[0].Example != resp.Header.Get("X-Request-Id")) {
			t.Errorf("%+v", list[0])
		}
	}
	if list := b.WAFCandidates(); len(list) != 1 || list[0].Site != "default/shop" {
		t.Errorf("%+v", list)
	}
}
