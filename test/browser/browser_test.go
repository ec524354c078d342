package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// free finds an address on loopback.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// edge starts bin/relais in front of a shop and returns its address.
func edge(t *testing.T, shop http.Handler) string {
	t.Helper()
	binary, err := filepath.Abs("../../bin/relais")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("%v; run make build", err)
	}
	origin := httptest.NewServer(shop)
	t.Cleanup(origin.Close)
	addr := free(t)
	var log bytes.Buffer
	cmd := exec.Command(binary, "serve", "-f", "testdata/site.yaml")
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "LISTEN="+addr, "ORIGIN="+strings.TrimPrefix(origin.URL, "http://"), "RELAIS_DATA="+t.TempDir())
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return "http://" + addr
		}
		if time.Now().After(end) {
			t.Fatal("relais does not listen")
		}
	}
}

// chromium finds the browser; where CI=true it installs it from the distribution.
func chromium(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	find := func() string {
		for _, n := range names {
			if p, err := exec.LookPath(n); err == nil {
				return p
			}
		}
		return ""
	}
	p := find()
	if p == "" && os.Getenv("CI") == "true" {
		out, err := exec.Command("sh", "-c", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium").CombinedOutput()
		if err != nil {
			t.Fatalf("installing chromium: %v\n%s", err, out)
		}
		p = find()
	}
	if p == "" {
		t.Fatal("no chromium here; install it (Debian: apt-get install chromium), or set CI=true to have it installed")
	}
	return p
}

// open starts a browser with a new profile. Its pages are in English.
func open(t *testing.T, scripts bool) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.WindowSize(800, 700), chromedp.Flag("lang", "en"),
		chromedp.Flag("force-renderer-accessibility", true), chromedp.WSURLReadTimeout(time.Minute))
	if !scripts {
		opts = append(opts, chromedp.Flag("blink-settings", "scriptEnabled=false"))
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// shot keeps a picture of the page where SCREENSHOTS names a folder.
func shot(t *testing.T, name string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		dir := os.Getenv("SCREENSHOTS")
		if dir == "" {
			return nil
		}
		var b []byte
		if err := chromedp.CaptureScreenshot(&b).Do(ctx); err != nil {
			return err
		}
		return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644))
	})
}

// shop says that it is the shop, and holds requests to /full/hold until it may answer.
type shop struct{ hold chan struct{} }

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/full/hold" {
		<-s.hold
	}
	if c := r.Header.Get("Cookie"); strings.Contains(c, "rc=") || strings.Contains(c, "rq=") {
		http.Error(w, "the origin sees what is the edge's: "+c, 500)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/html")
	_, _ = fmt.Fprintf(w, `<!doctype html><title>Shop</title><h1 id="shop">The shop</h1><p id="at">%s</p>`, r.URL.RequestURI())
}

func TestABrowserSolvesTheChallengeByItself(t *testing.T) {
	at := edge(t, &shop{})
	ctx := open(t, true)
	var title, where string
	begun := time.Now()
	err := chromedp.Run(ctx,
		chromedp.Navigate(at+"/things?a=1&b=2"),
		shot(t, "challenge-script"),
		chromedp.WaitVisible("#shop"),
		chromedp.Text("#at", &where), chromedp.Title(&title),
		shot(t, "challenge-done"),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("through in %s", time.Since(begun).Round(time.Millisecond))
	if where != "/things?a=1&b=2" {
		t.Errorf("it came back to %q", where)
	}
	if err := chromedp.Run(ctx, chromedp.Navigate(at+"/more"), chromedp.Text("#at", &where)); err != nil || where != "/more" {
		t.Errorf("the second page: %q, %v", where, err)
	}
}

// Where scripts are off, chromedp can only look at the document, and press keys: what a person without a mouse does.
func press() chromedp.Action {
	return chromedp.Tasks{chromedp.Focus("button", chromedp.ByQuery, chromedp.NodeReady), chromedp.KeyEvent("\r")}
}

func TestWithoutScriptsTheButtonOpensTheDoorByKeyboard(t *testing.T) {
	at := edge(t, &shop{})
	ctx := open(t, false)
	var page, early, where string
	err := chromedp.Run(ctx,
		chromedp.Navigate(at+"/things"),
		chromedp.WaitReady("button", chromedp.ByQuery), chromedp.OuterHTML("html", &page, chromedp.ByQuery),
		shot(t, "challenge-button"),
		press(),
		chromedp.WaitReady(`[role="alert"]`, chromedp.ByQuery), chromedp.OuterHTML(`[role="alert"]`, &early, chromedp.ByQuery),
		shot(t, "challenge-early"),
		chromedp.Sleep(2500*time.Millisecond), // the time that the document names
		press(),
		chromedp.WaitReady("#shop", chromedp.ByQuery), chromedp.OuterHTML("#at", &where, chromedp.ByQuery),
	)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(where, ">/things<") || !strings.Contains(early, "too early") {
		t.Errorf("it came to %q; pressed at once it said %q", where, early)
	}
	for _, want := range []string{`<html lang="en">`, "<h1>", "<main>", "<button"} {
		if !strings.Contains(page, want) {
			t.Errorf("a screen reader misses %s", want)
		}
	}
}

// crowd takes n places in the line of a path before the browser does.
func crowd(t *testing.T, url string, n int) {
	t.Helper()
	for range n {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		var page struct{ Room string }
		if resp.StatusCode != 503 || json.Unmarshal(b, &page) != nil || page.Room != "waiting" {
			t.Fatalf("%d %s", resp.StatusCode, b)
		}
	}
}

func TestABrowserWaitsItsTurnWithAndWithoutScripts(t *testing.T) {
	for _, scripts := range []bool{true, false} {
		t.Run(fmt.Sprintf("scripts %v", scripts), func(t *testing.T) {
			at := edge(t, &shop{})
			crowd(t, at+"/sale", 12)
			ctx := open(t, scripts)
			var place, where string
			begun := time.Now()
			err := chromedp.Run(ctx,
				chromedp.Navigate(at+"/sale?x=1"),
				chromedp.WaitReady("#place", chromedp.ByQuery), chromedp.OuterHTML("#place", &place, chromedp.ByQuery),
				shot(t, fmt.Sprintf("room-%v", scripts)),
				chromedp.WaitReady("#shop", chromedp.ByQuery), chromedp.OuterHTML("#at", &where, chromedp.ByQuery),
				shot(t, fmt.Sprintf("room-in-%v", scripts)),
			)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("place %s, in after %s", place, time.Since(begun).Round(time.Second))
			if !strings.Contains(where, ">/sale?x=1<") || strings.Contains(place, "><") {
				t.Errorf("place %q, came to %q", place, where)
			}
		})
	}
}

func TestABrowserWaitsWhileAllIsFull(t *testing.T) {
	s := &shop{make(chan struct{})}
	at := edge(t, s)
	var held sync.WaitGroup
	for range 2 {
		held.Go(func() {
			resp, err := http.Get(at + "/full/hold")
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	ctx := open(t, true)
	var state, where string
	waits := func() bool { // until both have their places
		resp, err := http.Get(at + "/full/probe")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode == 503
	}
	for end := time.Now().Add(20 * time.Second); !waits(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("two who are held do not fill two places")
		}
	}
	if err := chromedp.Run(ctx, chromedp.Navigate(at+"/full/page"), chromedp.WaitVisible("#state"), chromedp.Text("#state", &state), shot(t, "room-full")); err != nil {
		t.Fatal(err)
	}
	close(s.hold)
	held.Wait()
	if err := chromedp.Run(ctx, chromedp.WaitVisible("#shop"), chromedp.Text("#at", &where)); err != nil {
		t.Fatal(err)
	}
	if state == "" || where != "/full/page" {
		t.Errorf("it said %q and came to %q", state, where)
	}
}
