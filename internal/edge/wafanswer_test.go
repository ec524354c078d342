package edge

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

const answerSite = siteHead + `
  waf: core
  cache: pages
  compression: {}
  routes: [{pool: shop}]
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: core}
spec: {responseBytes: 64KiB}
` + pages + pool

// TestAnswersAreExaminedWhereTheOriginWroteThem: before they are compressed and stored, and once.
func TestAnswersAreExaminedWhereTheOriginWroteThem(t *testing.T) {
	text := strings.Repeat("<p>A blue lamp for the desk.</p>", 100)
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if c := r.Header.Get("Accept-Encoding"); c != "" {
			w.Header().Set("X-Asked", c)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/leak" {
			_, _ = io.WriteString(w, "<html><?php echo \"Hello World!\\n\" ?></html>")
			return
		}
		_, _ = io.WriteString(w, text)
	}, answerSite)
	browser := []string{"User-Agent: Mozilla/5.0", "Accept: text/html", "Accept-Encoding: gzip"}
	for range 3 {
		resp, body := b.get("http1", "/page", browser...)
		if resp.StatusCode != 200 || resp.Header.Get("X-Asked") != "" || resp.Header.Get("Content-Encoding") != "gzip" || len(body) >= len(text) {
			t.Fatalf("%d %v, %d bytes", resp.StatusCode, resp.Header, len(body))
		}
	}
	for range 2 {
		if resp, body := b.get("http1", "/leak", browser...); resp.StatusCode != 403 || strings.Contains(body, "Hello") {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	for _, want := range []string{`relais_waf_answers_total{outcome="pass"} 1`, `relais_waf_answers_total{outcome="deny"} 2`} {
		if !strings.Contains(b.scrape(), want+"\n") {
			t.Errorf("not %s", want)
		}
	}
}

// TestAnAnswerThatNobodyWaitedForIsExaminedToo: what is fetched ahead is stored for all.
func TestAnAnswerThatNobodyWaitedForIsExaminedToo(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/leak" {
			_, _ = io.WriteString(w, "<html><?php echo \"Hello World!\\n\" ?></html>")
			return
		}
		_, _ = io.WriteString(w, "<p>A blue lamp for the desk.</p>")
	}, answerSite)
	base := b.base("http1")
	var a WarmupAnswer
	if code := b.door("POST", "/cache/warm", CacheWarmup{Site: "shop", URLs: []string{base + "/leak", base + "/page"}}, &a); code != 200 {
		t.Fatalf("%d %+v", code, a)
	}
	if p := b.job(a.Job); p.Stored != 1 || p.Failed != 1 {
		t.Errorf("%+v", p)
	}
	browser := []string{"User-Agent: Mozilla/5.0", "Accept: text/html"}
	if resp, _ := b.get("http1", "/page", browser...); !strings.Contains(resp.Header.Get("Cache-Status"), "hit") {
		t.Errorf("/page: %s", resp.Header.Get("Cache-Status"))
	}
	if resp, body := b.get("http1", "/leak", browser...); resp.StatusCode != 403 || strings.Contains(body, "Hello") {
		t.Errorf("/leak: %d %s", resp.StatusCode, body)
	}
}
