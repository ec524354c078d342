package edge

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/challenge"
)

// inData has an edge keep its state in a folder.
func inData(dir string) func(*Config) { return func(c *Config) { c.Data = dir } }

// say gives an order as relais shield and relais unblock do.
func (b *bed) say(path, body string) (int, string) {
	w := httptest.NewRecorder()
	b.FloodDoor().ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func (b *bed) mustSay(path, body string) {
	b.t.Helper()
	if status, text := b.say(path, body); status != 200 {
		b.t.Fatalf("%s %s: %d %s", path, body, status, text)
	}
}

// challenged says whether a stranger is.
func (b *bed) challenged() bool {
	b.t.Helper()
	resp, page := b.fetch("http1", "GET", "/page", "", "Accept", "text/html")
	return resp.StatusCode != 200 && strings.Contains(page, challenge.Path)
}

func shopAnswers(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the shop") }

func TestAPersonsOrdersOutliveTheEdge(t *testing.T) {
	dir := t.TempDir()
	run := func(name string, f func(b *bed)) {
		t.Run(name, func(t *testing.T) { f(newBed(t, shopAnswers, floodDocs, inData(dir))) })
	}
	run("the first edge takes the order", func(b *bed) {
		if b.challenged() {
			t.Fatal("in calm")
		}
		b.mustSay("/flood/shield", `{"site":"shop","order":"on","for":"2h"}`)
		if !b.challenged() {
			t.Error("the order does nothing")
		}
	})
	run("the second keeps it and spares an address", func(b *bed) {
		for _, site := range []string{"", "shop"} {
			w := httptest.NewRecorder()
			b.FloodDoor().ServeHTTP(w, httptest.NewRequest("GET", "/flood/status?site="+site, nil))
			if !strings.Contains(w.Body.String(), `"hand":"on"`) && !strings.Contains(w.Body.String(), `"hand": "on"`) {
				t.Errorf("before the first request nobody is told of the order: %s", w.Body)
			}
		}
		if !b.challenged() {
			t.Error("the order is lost")
		}
		if st := b.Flood().Status(shopKey); len(st) != 1 || st[0].Hand != "on" || st[0].Until == nil || time.Until(*st[0].Until) < time.Hour {
			t.Errorf("%+v", st)
		}
		b.mustSay("/flood/unblock", `{"address":"127.0.0.0/8","for":"2h"}`)
		if b.challenged() {
			t.Error("who was spared is challenged")
		}
	})
	run("the third knows both, and a change of documents changes nothing", func(b *bed) {
		if b.challenged() {
			t.Error("who was spared is challenged")
		}
		b.apply(strings.ReplaceAll(floodDocs, "parameters: [q]", "parameters: [q, page]"))
		if b.challenged() {
			t.Error("who was spared is challenged")
		}
		if st := b.Flood().Status(shopKey); len(st) != 1 || st[0].Hand != "on" {
			t.Errorf("%+v", st)
		}
		b.mustSay("/flood/shield", `{"site":"shop","order":"auto"}`)
	})
	run("what was ended stays ended", func(b *bed) {
		b.fetch("http1", "GET", "/", "")
		if st := b.Flood().Status(shopKey); len(st) != 1 || st[0].Hand != "auto" {
			t.Errorf("%+v", st)
		}
	})
}

func TestAnOrderThatHasEndedStaysEnded(t *testing.T) {
	dir := t.TempDir()
	past, next := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	text := fmt.Sprintf(`{"version":1,"shield":[{"site":"default/shop","order":"on","step":"challenge","until":%q}],"spared":[{"network":"127.0.0.0/8","until":%q},{"network":"192.0.2.0/24","until":%q}]}`,
		past.Format(time.RFC3339Nano), past.Format(time.RFC3339Nano), next.Format(time.RFC3339Nano))
	if err := os.WriteFile(filepath.Join(dir, "orders.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBed(t, shopAnswers, floodDocs, inData(dir))
	if b.challenged() {
		t.Error("an order of before holds")
	}
	b.orders.mu.Lock()
	defer b.orders.mu.Unlock()
	if n := b.orders.now; len(n.Shield) != 0 || len(n.Spared) != 1 {
		t.Errorf("%+v", n)
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestADamagedFileOfOrdersStopsNoStart(t *testing.T) {
	for name, text := range map[string]string{
		"cut": `{"version":1,"shield":[{"si`, "empty": "", "of another version": `{"version":2}`, "no order": `{"version":1,"shield":[{"order":"perhaps"}]}`,
		"no network": `{"version":1,"spared":[{"until":"2030-01-01T00:00:00Z"}]}`, "long": strings.Repeat(" ", ordersBytes+1),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "orders.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var log lockedBuffer
			b := newBed(t, shopAnswers, floodDocs, inData(dir), func(c *Config) {
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
			})
			if b.challenged() {
				t.Error("an order holds")
			}
			if aside, err := os.ReadFile(path + ".damaged"); err != nil || string(aside) != text {
				t.Errorf("set aside: %v", err)
			}
			b.mustSay("/flood/shield", `{"order":"on"}`)
			if !strings.Contains(log.String(), "order it again") {
				t.Errorf("the log says %q", log.String())
			}
			if s, err := readOrders(path, time.Now()); err != nil || len(s.Shield) != 1 {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
}

// At an upgrade two processes take orders for a moment.
func TestOrdersGivenToAnotherProcessAreTakenUp(t *testing.T) {
	dir := t.TempDir()
	old, next := newBed(t, shopAnswers, floodDocs, inData(dir)), newBed(t, shopAnswers, floodDocs, inData(dir))
	old.challenged()
	next.challenged()
	hand := func() string { return next.Flood().Status(shopKey)[0].Hand }
	for _, c := range []struct{ order, want string }{{"on", "on"}, {"off", "off"}, {"auto", "auto"}} {
		old.mustSay("/flood/shield", `{"site":"shop","order":"`+c.order+`"}`)
		until(t, "the order "+c.order+" is not taken up", func() bool { return hand() == c.want })
	}
	next.mustSay("/flood/shield", `{"site":"shop","order":"on"}`)
	old.mustSay("/flood/unblock", `{"address":"127.0.0.1"}`)
	until(t, "who was spared is challenged", func() bool { return !next.challenged() })
	if hand() != "on" {
		t.Error("an order is lost that the other process did not give")
	}
}

func TestAnOrderThatCannotBeKeptSaysSoAndHolds(t *testing.T) {
	dir := t.TempDir()
	b := newBed(t, shopAnswers, floodDocs, inData(dir))
	b.challenged()
	b.orders.mu.Lock()
	b.orders.path = filepath.Join(dir, "ca", "none", "\x00") // no file can have this name
	b.orders.mu.Unlock()
	if status, text := b.say("/flood/shield", `{"order":"on"}`); status != 500 || !strings.Contains(text, "the order holds") {
		t.Errorf("%d %s", status, text)
	}
	if !b.challenged() {
		t.Error("it does not hold")
	}
}

func TestOrdersForOneSiteAndForAll(t *testing.T) {
	now := time.Now()
	at := func(h int) time.Time { return now.Add(time.Duration(h) * time.Hour).Round(0) }
	var s standing
	for _, h := range []order{
		{Order: "on", Step: "limit", Until: at(3)}, {Site: "o/a", Order: "auto", Until: at(1)}, {Site: "o/b", Order: "off", Until: at(1)},
	} {
		s.Shield = s.with(h)
	}
	for _, c := range []struct {
		site, want string
		hours      int
	}{{"o/a", "auto", 0}, {"o/b", "off", 0}, {"o/c", "on", 0}, {"o/a", "auto", 2}, {"o/b", "on", 2}, {"o/c", "", 4}} {
		if got := s.hand(bundle.Key(c.site), at(c.hours)); got.Order != c.want {
			t.Errorf("%s after %d hours: %+v, want %s", c.site, c.hours, got, c.want)
		}
	}
	if s.Shield = s.with(order{Order: "auto"}); len(s.Shield) != 0 {
		t.Errorf("auto for all leaves %+v", s.Shield)
	}
}

func TestOrdersAreBounded(t *testing.T) {
	b := newBed(t, shopAnswers, floodDocs, inData(t.TempDir()))
	for i := range 70 {
		err := b.orders.Unblock(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32), time.Now().Add(time.Hour))
		if (err != nil) != (i >= maxSpared) {
			t.Fatalf("the %d. address: %v", i+1, err)
		}
	}
	b.challenged()
	b.orders.mu.Lock()
	for i := range maxOrders {
		b.orders.now.Shield = append(b.orders.now.Shield, order{bundle.Key(fmt.Sprintf("o/s%d", i)), "off", "", time.Now().Add(time.Hour)})
	}
	b.orders.mu.Unlock()
	if status, text := b.say("/flood/shield", `{"site":"shop","order":"on"}`); status != 400 || b.challenged() {
		t.Errorf("%d %s", status, text)
	}
}
