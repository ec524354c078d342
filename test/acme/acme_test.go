package acme

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

// certificate is a Certificate document of the authority; rest are further fields of acme.
func certificate(name, rest string) string {
	return `apiVersion: relais/v1
kind: Certificate
metadata: {name: ` + name + `}
spec:
  acme:
    directory: "${URL}"
    ca: "${CA}"
    ` + strings.ReplaceAll(strings.TrimSpace(rest), "\n", "\n    ") + `
---
`
}

func site(name, hosts, certs string) string {
	return `apiVersion: relais/v1
kind: Site
metadata: {name: ` + name + `}
spec: {hostnames: [` + hosts + `], certificates: [` + certs + `], routes: [{respond: {body: ` + name + `}}]}
---
`
}

func TestEachChallengeBringsACertificate(t *testing.T) {
	hook := func(a *authority) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var q struct{ Action, Name, Value string }
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Method != http.MethodPost {
				http.Error(w, "what?", http.StatusBadRequest)
				return
			}
			switch q.Action {
			case "present":
				a.dns.AddDNSTXTRecord(q.Name, q.Value)
			case "cleanup":
				a.dns.DeleteDNSTXTRecord(q.Name)
			}
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	for _, c := range []struct {
		name, host, ask string
		rest            func(a *authority) string
	}{
		{"http-01", "shop.test", "shop.test", func(*authority) string { return "challenges: [http-01]" }},
		{"tls-alpn-01", "shop.test", "shop.test", func(*authority) string { return "challenges: [tls-alpn-01]\nkeyType: p384" }},
		{"the default", "shop.test", "shop.test", func(*authority) string { return "email: admin@shop.test" }},
		{"dns-01 by webhook, a wildcard", `"*.shop.test"`, "www.shop.test", func(a *authority) string {
			return "dns: {webhook: \"" + hook(a) + "\", wait: 0s}"
		}},
		{"dns-01 by a program", "shop.test", "shop.test", func(a *authority) string {
			script := filepath.Join(t.TempDir(), "hook.sh")
			text := "#!/bin/sh\ncurl -sf -H 'Content-Type: application/json' -d \"{\\\"action\\\":\\\"$2\\\",\\\"name\\\":\\\"$3\\\",\\\"value\\\":\\\"$4\\\"}\" $1\n"
			if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			return "dns: {exec: [" + script + ", \"" + hook(a) + "\"], wait: 0s}"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := start(t, 0)
			n := a.serve(t.TempDir(), certificate("le", c.rest(a))+site("shop", c.host, "le"), a.http, a.tls)
			leaf := a.await(a.tls, c.ask)
			if want := strings.Trim(c.host, `"`); leaf.DNSNames[0] != want {
				t.Errorf("the certificate is for %v, not %s", leaf.DNSNames, want)
			}
			if _, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok {
				t.Errorf("the key is a %T", leaf.PublicKey)
			}
			if got := n.metric(`relais_acme_orders_total{result="ok"}`); got != "1" {
				t.Errorf("orders: %s", got)
			}
			if got := a.dns.GetDNSTXTRecords("_acme-challenge.shop.test."); len(got) > 0 {
				t.Errorf("the record stays: %v", got)
			}
		})
	}
}

func TestKeysAreKeptForTheOwnerAloneAndServedAgain(t *testing.T) {
	a := start(t, 0)
	data := t.TempDir()
	docs := certificate("le", "challenges: [http-01]") + site("shop", "shop.test", "le")
	n := a.serve(data, docs, a.http, a.tls)
	first := a.await(a.tls, "shop.test")
	n.end()
	files := 0
	_ = filepath.WalkDir(filepath.Join(data, "acme"), func(path string, d fs.DirEntry, err error) error {
		info, ierr := d.Info()
		if err != nil || ierr != nil {
			t.Error(err, ierr)
			return nil
		}
		if want := fs.FileMode(0o600); !d.IsDir() && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if !d.IsDir() {
			files++
		}
		return nil
	})
	if files < 2 {
		t.Errorf("%d files are kept", files)
	}
	a.broken.Store(true) // what is there is served without asking anybody
	p := ports(t, 2)
	a.serve(data, docs, p[0], p[1])
	if again, ok := a.leaf(p[1], "shop.test"); !ok || !again.Equal(first) {
		t.Error("the stored certificate is not the one that is served")
	}
}

func TestTwoEdgesAskOnce(t *testing.T) {
	a := start(t, 0)
	data := t.TempDir()
	docs := certificate("le", "challenges: [http-01]") + site("shop", "shop.test, www.shop.test", "le")
	p := ports(t, 2)
	n, other := a.serve(data, docs, a.http, a.tls), a.serve(data, docs, p[0], p[1])
	for _, host := range []string{"shop.test", "www.shop.test"} {
		if !a.await(a.tls, host).Equal(a.await(p[1], host)) {
			t.Errorf("%s: the edges show different certificates", host)
		}
	}
	total := 0
	for _, m := range []*node{n, other} {
		v, _ := strconv.Atoi(m.metric(`relais_acme_orders_total{result="ok"}`))
		total += v
	}
	if total != 2 {
		t.Errorf("%d orders for 2 names", total)
	}
}

func TestACertificateIsRenewedWithoutAWord(t *testing.T) {
	a := start(t, 12)
	a.serve(t.TempDir(), certificate("le", "challenges: [http-01]")+site("shop", "shop.test", "le"), a.http, a.tls)
	first := a.await(a.tls, "shop.test")
	end := time.Now().Add(20 * time.Second)
	for {
		leaf, ok := a.leaf(a.tls, "shop.test")
		if !leaf.Equal(first) {
			if !ok {
				t.Error("the new one is not the authority's")
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("it was not renewed")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if time.Now().After(first.NotAfter) {
		t.Error("it was renewed after its end")
	}
}

func TestTheInternalCAServesUntilTheAuthorityAnswers(t *testing.T) {
	a := start(t, 0)
	a.broken.Store(true)
	n := a.serve(t.TempDir(), certificate("le", "challenges: [http-01]")+site("shop", "shop.test", "le"), a.http, a.tls)
	leaf, ok := a.leaf(a.tls, "shop.test")
	if ok || leaf.VerifyHostname("shop.test") != nil {
		t.Errorf("meanwhile the certificate is for %v", leaf.DNSNames)
	}
	end := time.Now().Add(10 * time.Second)
	for n.metric(`relais_acme_orders_total{result="failed"}`) != "1" {
		if time.Now().After(end) {
			t.Fatal("the failure is not counted")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const onDemand = "challenges: [http-01]\nonDemand: {perMinute: 2%s}"

// demandListener names the certificate at the listener.
func demandSet(rest, hosts string) string {
	return certificate("le", fmt.Sprintf(onDemand, rest)) + `apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec: {hostnames: [` + hosts + `], listeners: [secure, clear], routes: [{respond: {body: shop}}]}
`
}

func TestOnDemandIsForTheSitesOfTheListenerOnly(t *testing.T) {
	a := start(t, 0)
	a.serve(t.TempDir(), demandSet("", `shop.test, "*.shop.test"`), a.http, a.tls)
	if leaf, ok := a.leaf(a.tls, "other.test"); ok {
		t.Errorf("a name of no site got a certificate for %v", leaf.DNSNames)
	}
	if got := a.orders.Load(); got != 0 {
		t.Fatalf("%d orders", got)
	}
	for _, host := range []string{"shop.test", "a.shop.test"} { // the handshake waits for it
		if leaf, ok := a.leaf(a.tls, host); !ok {
			t.Errorf("%s got a certificate for %v", host, leaf.DNSNames)
		}
	}
	if _, ok := a.leaf(a.tls, "b.shop.test"); ok || a.orders.Load() != 2 {
		t.Errorf("perMinute does not hold: %d orders", a.orders.Load())
	}
}

func TestOnDemandForAllNamesAsks(t *testing.T) {
	a := start(t, 0)
	var mu sync.Mutex
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		d := r.URL.Query().Get("domain")
		asked = append(asked, d)
		if d != "good.test" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	a.serve(t.TempDir(), demandSet(`, ask: "`+s.URL+`/may"`, `"*"`), a.http, a.tls)
	if _, ok := a.leaf(a.tls, "bad.test"); ok {
		t.Error("bad.test got a certificate")
	}
	if leaf, ok := a.leaf(a.tls, "good.test"); !ok {
		t.Errorf("good.test got a certificate for %v", leaf.DNSNames)
	}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(asked) != "[bad.test good.test]" {
		t.Errorf("asked for %v", asked)
	}
}

func TestHTTP01DoesNotHideWhatAnOriginAnswers(t *testing.T) {
	a := start(t, 0)
	a.serve(t.TempDir(), site("shop", "shop.test", "le")+certificate("le", "challenges: [tls-alpn-01]"), a.http, a.tls)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+proc.Addr(a.http)+"/.well-known/acme-challenge/of-the-origin", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.test"
	resp, err := (&http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the site answers %s", resp.Status)
	}
}
