package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

type sink struct {
	mu  sync.Mutex
	buf bytes.Buffer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.buf.Write(b)
}

func (s *sink) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func exchange(t testing.TB, r *Recorder) *stage.Exchange {
	t.Helper()
	x, req := &stage.Exchange{}, &message.Request{}
	req.SetMethod([]byte("GET"))
	req.SetAuthority([]byte("shop.test"))
	req.SetPath([]byte("/p/\"1\"\x01\xff€"))
	req.SetQuery([]byte("token=secret"))
	req.AddString(message.UserAgent, "a browser")
	req.Proto, req.Conn = message.HTTP11, &message.Conn{Listener: "default/web"}
	x.In, x.Start, x.ID = req, time.Now(), stage.RequestID{1, 2, 3}
	x.Client = netip.MustParseAddr("192.0.2.1")
	x.Site = &snapshot.Site{Key: "demo/shop", Parts: make([]any, stage.Slots), Routes: []snapshot.Route{{Name: "all"}}}
	p, err := r.Compile(x.Site, nil)
	if err != nil {
		t.Fatal(err)
	}
	x.Site.Parts[r.slot] = p
	x.Route, x.Tries = &x.Site.Routes[0], 1
	x.CacheStatus, x.Tier = "hit", "home"
	x.MarkDetail("waf", "deny", "score 5")
	return x
}

func TestALineIsJSONWhateverTheVisitorSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, w := observe.New(), &sink{}
		log := NewLog(w, quiet(), m)
		r := New(3, log, NewRing(4), m)
		ctx, cancel := context.WithCancel(t.Context())
		go log.Run(ctx)
		x := exchange(t, r)
		x.Failure = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 403}
		r.Record(x, message.Outcome{Status: 403, Body: 12, Err: errors.New("write: broken pipe")})
		r.Refused(x.In.Conn, x.ID, 400, "bad_line", "a \"quoted\" thing")
		time.Sleep(time.Second)
		lines := strings.Split(strings.TrimSpace(w.text()), "\n")
		if len(lines) != 2 {
			t.Fatalf("%d lines: %s", len(lines), w.text())
		}
		var got map[string]any
		for _, l := range lines {
			got = nil
			if err := json.Unmarshal([]byte(l), &got); err != nil {
				t.Fatalf("%v in %s", err, l)
			}
		}
		if got["detail"] != "a \"quoted\" thing" {
			t.Errorf("refused: %v", got)
		}
		got = nil
		_ = json.Unmarshal([]byte(lines[0]), &got)
		for k, want := range map[string]any{
			"path": "/p/\"1\"\x01\ufffd€", "status": 403.0, "bytes": 12.0, "site": "demo/shop", "cache": "hit", "tier": "home",
			"code": "http_request_denied", "id": x.ID.String(), "client": "192.0.2.1", "time": "2000-01-01T00:00:00.000Z", "ms": 0.0,
		} {
			if got[k] != want {
				t.Errorf("%s is %v, want %v", k, got[k], want)
			}
		}
		cancel()
		synctest.Wait()
	})
}

func TestAFullDiskDropsLinesAndCountsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, w := observe.New(), &sink{err: errors.New("no space left on device")}
		log := NewLog(w, quiet(), m)
		ctx, cancel := context.WithCancel(t.Context())
		for range maxPending/1000 + 10 {
			log.Write(bytes.Repeat([]byte{'x'}, 1000))
		}
		if len(log.pending) > maxPending {
			t.Errorf("%d bytes pending", len(log.pending))
		}
		log.mu.Lock()
		log.pending = append(log.pending[:0], "a\nb\n"...)
		log.mu.Unlock()
		go log.Run(ctx)
		time.Sleep(time.Second)
		rec := httptest.NewRecorder()
		m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
		if !strings.Contains(rec.Body.String(), "relais_access_log_dropped_total 12") {
			t.Errorf("not counted: %s", grep(rec.Body.String(), "dropped"))
		}
		cancel()
		synctest.Wait()
	})
}

func grep(s, word string) string {
	var out []string
	for l := range strings.SplitSeq(s, "\n") {
		if strings.Contains(l, word) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func TestTheLastRequestsAreExplained(t *testing.T) {
	r := New(0, nil, NewRing(16), observe.New())
	for i := range 3 {
		x := exchange(t, r)
		x.ID = stage.RequestID{byte(i)}
		r.Record(x, message.Outcome{Status: 200 + i})
	}
	if _, ok := r.ring.Find(stage.RequestID{0}); ok {
		t.Error("the oldest is still there")
	}
	e, ok := r.ring.Find(stage.RequestID{2})
	if !ok || e.Status != 202 || e.Site != "demo/shop" || e.Client != "192.0.2.1" || len(e.Decisions) != 1 || e.Decisions[0].Detail != "score 5" {
		t.Errorf("%+v", e)
	}
	if b, _ := json.Marshal(e); bytes.Contains(b, []byte("secret")) {
		t.Error("the query is kept")
	}
	x := exchange(t, r)
	x.ID, x.Start = stage.RequestID{9}, time.Now().Add(time.Hour)
	r.Record(x, message.Outcome{Status: 403})
	for range 10 { // a flood of good answers does not wash it away
		r.Record(exchange(t, r), message.Outcome{Status: 200})
	}
	if l := r.ring.Last(2); len(l) != 2 || l[0].Status != 403 || l[1].Status != 200 {
		t.Errorf("%+v", l)
	}
}

func TestOrdinaryRequestsAreKeptAtAPaceAndNotableOnesAlways(t *testing.T) {
	r := New(0, nil, NewRing(8*1024), observe.New())
	record := func(id int, at time.Time, status int) {
		x := exchange(t, r)
		x.ID, x.Start = stage.RequestID{byte(id), byte(id >> 8)}, at
		r.Record(x, message.Outcome{Status: status})
	}
	kept := func(id int) bool {
		_, ok := r.ring.Find(stage.RequestID{byte(id), byte(id >> 8)})
		return ok
	}
	// Lap is read from the real clock, so the second is that of now; it may turn once.
	start := time.Now()
	for i := range 4 * 1024 {
		record(i, start, 200)
	}
	record(5000, start, 502)
	if !kept(5000) {
		t.Error("a failed request is not kept")
	}
	if time.Since(start) < time.Second && kept(4*1024-1) && kept(0) {
		t.Error("a place and a pace of 1024 kept the first and the last of 4096")
	}
	var p pace
	if !p.take(7, 2) || !p.take(7, 2) || p.take(7, 2) || !p.take(8, 2) {
		t.Error("two a second are not two a second")
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	m := observe.New()
	log := NewLog(io.Discard, quiet(), m)
	r := New(2, log, NewRing(4), m)
	x := exchange(t, r)
	for range 8 {
		r.Record(x, message.Outcome{Status: 200})
	}
	if n := testing.AllocsPerRun(100, func() {
		log.pending = log.pending[:0]
		r.Record(x, message.Outcome{Status: 200, Body: 1024})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	m := observe.New()
	log := NewLog(io.Discard, quiet(), m)
	r := New(2, log, NewRing(4096), m)
	x := exchange(b, r)
	for b.Loop() {
		log.pending = log.pending[:0]
		r.Record(x, message.Outcome{Status: 200, Body: 1024})
	}
}

// smallDisk takes only so much.
type smallDisk struct {
	bytes.Buffer
	room int
}

func (d *smallDisk) Write(b []byte) (int, error) {
	n := min(len(b), d.room)
	d.room -= n
	d.Buffer.Write(b[:n])
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func TestAFullDiskTearsNoLine(t *testing.T) {
	m := observe.New()
	for room := range 40 {
		d := &smallDisk{room: room}
		log := NewLog(d, quiet(), m)
		var torn []byte
		put := func(batch string) { torn, _ = log.put(torn, []byte(batch)) }
		put("{first}\n{second}\n{third}\n")
		put("{fourth}\n")
		d.room = 1 << 10
		put("{fifth}\n")
		lines := strings.SplitAfter(d.String(), "\n")
		for i, line := range lines[:len(lines)-1] {
			if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}\n") || strings.Count(line, "{") != 1 {
				t.Errorf("room for %d: line %d is %q", room, i, line)
			}
		}
		if lines[len(lines)-1] != "" || !strings.HasSuffix(d.String(), "{fifth}\n") {
			t.Errorf("room for %d: %q", room, d.String())
		}
	}
}

func TestAMovedFileIsBegunAnew(t *testing.T) {
	name := filepath.Join(t.TempDir(), "access.log")
	f, err := OpenFile(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, text := range []string{"old\n", "new\n"} {
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.Rename(name, name+".1"); err != nil {
				t.Fatal(err)
			}
			if err := f.Reopen(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for file, want := range map[string]string{name: "new\n", name + ".1": "old\n"} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	if err := os.RemoveAll(filepath.Dir(name)); err != nil {
		t.Fatal(err)
	}
	if f.Reopen() == nil {
		t.Error("a file in no directory was opened")
	}
	if _, err := f.Write([]byte("on\n")); err != nil {
		t.Error("the old file is not written on:", err)
	}
}

func TestAServicesConnectionHasALineAndCanBeExplained(t *testing.T) {
	out, m := &sink{}, observe.New()
	log, ring := NewLog(out, quiet(), m), NewRing(16)
	r := New(0, log, ring, m)
	c := &Connection{
		ID: stage.RequestID{9}, Start: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Took: 1500 * time.Microsecond,
		Client: netip.MustParseAddr("2001:db8::1"), Service: "demo/vault", Proto: "tls", Host: "vault.\"test", Pool: "vault", Tier: "home",
		Origin: "10.0.0.1:443", Tries: 2, Received: 10, Sent: 20, Code: "idle",
	}
	r.Connection(c)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = log.Run(ctx)
	want := `{"time":"2026-01-02T03:04:05.006Z","id":"` + c.ID.String() + `","client":"2001:db8::1","proto":"tls","host":"vault.\"test","received":10,"bytes":20,"ms":1.500,` +
		`"service":"demo/vault","pool":"vault","tier":"home","origin":"10.0.0.1:443","tries":2,"code":"idle"}` + "\n"
	if got := out.text(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e, ok := ring.Find(c.ID)
	if !ok || e.Service == nil || e.Service.Key != "demo/vault" || e.Service.Received != 10 || e.Bytes != 20 || e.Proto != "tls" || e.Code != "idle" || e.Host != c.Host || e.Path != "" {
		t.Errorf("%+v %v", e, ok)
	}
	// The place in the ring is a request's again.
	x := exchange(t, r)
	for range 64 {
		ring.add(x, message.Outcome{Status: 500}, 0, "")
	}
	for _, e := range ring.Last(64) {
		if e.Service != nil || e.Method != "GET" {
			t.Errorf("%+v", e)
		}
	}
}
