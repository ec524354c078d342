package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/observe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePurger numbers things, and takes a time to keep them.
type fakePurger struct {
	takes  time.Duration
	unkept bool
	err    error
	during func(last uint64) // while it is kept

	mu     sync.Mutex
	last   uint64
	things []string
	calls  int
}

func (p *fakePurger) Mapping(site string) (*Mapping, error) {
	if site == "none" {
		return nil, errors.New("no feed")
	}
	return &Mapping{Tags: []string{"sku-{sku}"}, URLs: []string{"/p/{sku}"}}, nil
}

func (p *fakePurger) Check(_ string, t Thing) error {
	if strings.Contains(t.Tag, ",") {
		return errors.New("bad tag")
	}
	return nil
}

func (p *fakePurger) Purge(_ context.Context, _ string, things []Thing, _ bool) (*Receipt, error) {
	if p.err != nil {
		return nil, p.err
	}
	p.mu.Lock()
	r := &Receipt{Kept: !p.unkept}
	for _, t := range things {
		p.last += 2 // numbers have gaps
		r.Numbers = append(r.Numbers, p.last)
		p.things = append(p.things, t.Tag+t.URL)
	}
	p.calls++
	last := p.last
	p.mu.Unlock()
	if len(things) > MaxThings {
		return nil, errors.New("too many things")
	}
	r.Holds = time.Now()
	time.Sleep(p.takes)
	if p.during != nil {
		p.during(last)
	}
	return r, nil
}

func id(s string) string { return s }

func take(t *testing.T, f *Feed, lines ...string) *Ack {
	t.Helper()
	a, err := tryTake(f, lines...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func tryTake(f *Feed, lines ...string) (*Ack, error) {
	var list [][]byte
	for _, l := range lines {
		list = append(list, []byte(l))
	}
	return f.Take(context.Background(), "acme/shop", id, list)
}

func TestAnOlderEventNeverUndoesANewerOne(t *testing.T) {
	p := &fakePurger{}
	f := New(p, observe.New())
	for _, c := range []struct {
		line string
		want string // purged, repeated, older
	}{
		{`{"sku":"a","version":5}`, "purged"},
		{`{"sku":"a","version":5}`, "repeated"},
		{`{"sku":"a","version":"4"}`, "older"},
		{`{"sku":"a","version":-9223372036854775808}`, "older"},
		{`{"sku":"a","version":6}`, "purged"},
		{`{"sku":"b","at":"2026-01-01T00:00:00Z"}`, "purged"},
		{`{"sku":"b","at":"2026-01-01T01:00:00+01:00"}`, "repeated"},
		{`{"sku":"b","at":"2025-12-31T23:59:59Z"}`, "older"},
		{`{"sku":"b","at":1767225601.5}`, "purged"},
		{`{"sku":"c"}`, "purged"},
		{`{"sku":"c"}`, "purged"}, // nothing says which is newer
		{`{"tag":"A"}`, "purged"},
		{`{"tag":"X","version":1}`, "purged"},
		{`{"tag":"x","version":1}`, "repeated"}, // tags do not mind case
		{`{"url":"/x","version":1}`, "purged"},
		{`{"sku":"a","version":7,"site":"other/shop"}`, "purged"},
		{`{"sku":"a","version":7}`, "purged"}, // of another site
		{`{"sku":"a","version":7,"stock":0,"price":{"amount":1}}`, "repeated"},
	} {
		a := take(t, f, c.line)
		if got := map[bool]string{a.Purged == 1: "purged", a.Repeated == 1: "repeated", a.Older == 1: "older"}[true]; got != c.want {
			t.Errorf("%s: %+v, want %s", c.line, a, c.want)
		}
	}
	// In one batch too.
	if a := take(t, f, `{"sku":"d","version":2}`, `{"sku":"d","version":1}`, `{"sku":"d","version":2}`, `{"sku":"d","version":3}`, ``); a.Purged != 2 || a.Older != 1 || a.Repeated != 1 || a.Lines != 4 {
		t.Errorf("%+v", a)
	}
}

func TestEventsThatCannotBeReadAreRefusedAloneWithTheirLine(t *testing.T) {
	p := &fakePurger{}
	f := New(p, observe.New())
	for _, line := range []string{
		`{`, `[]`, `7`, `{}`, `{"sku":""}`, `{"sku":"a","unknown":1}`, `{"sku":"a"}{"sku":"b"}`, `{"sku":"a","version":1.5}`,
		`{"sku":"a","version":"x"}`, `{"sku":"a","version":{}}`, `{"sku":"a","at":"yesterday"}`, `{"sku":"a","at":-1}`, `{"sku":"a","at":1e300}`,
		`{"sku":"a,b"}`, `{"tag":"a,b"}`, `{"sku":"a","site":"none"}`, `{"sku":"` + strings.Repeat("x", MaxName+1) + `"}`,
		`{"sku":"a","price":"` + strings.Repeat("x", MaxLine) + `"}`,
	} {
		a := take(t, f, `{"sku":"good"}`, line)
		if a.Purged != 1 || a.Refused != 1 || a.Reasons[0].Line != 2 || a.Reasons[0].Why == "" {
			t.Errorf("%.60s: %+v", line, a)
		}
	}
	if _, err := f.Take(context.Background(), "s", id, make([][]byte, MaxLines+1)); err == nil {
		t.Error("more lines than the bound")
	}
	var many []string
	for range MaxLines {
		many = append(many, "{")
	}
	if a := take(t, f, many...); a.Refused != MaxLines || len(a.Reasons) != maxRefused {
		t.Errorf("%d %d", a.Refused, len(a.Reasons))
	}
}

func TestASkuCannotReachOutOfItsPath(t *testing.T) {
	p := &fakePurger{}
	f := New(p, observe.New())
	take(t, f, `{"sku":"a/../b?c#d%2f"}`)
	if got := p.things[1]; got != "/p/a%2F..%2Fb%3Fc%23d%252f" {
		t.Errorf("%s", got)
	}
}

func TestWhatIsNotKeptIsNotTaken(t *testing.T) {
	for _, p := range []*fakePurger{{unkept: true}, {err: errors.New("sealed")}} {
		f := New(p, observe.New())
		if _, err := tryTake(f, `{"sku":"a","version":1}`); err == nil {
			t.Fatal("no error")
		}
		p.unkept, p.err = false, nil
		if a := take(t, f, `{"sku":"a","version":1}`); a.Purged != 1 {
			t.Errorf("sent again it is not taken: %+v", a)
		}
	}
}

func TestABatchIsPurgedInPieces(t *testing.T) {
	p := &fakePurger{}
	f := New(p, observe.New())
	var lines []string
	for i := range MaxLines {
		lines = append(lines, fmt.Sprintf(`{"sku":"%d","tag":"t%d"}`, i, i))
	}
	if a := take(t, f, lines...); a.Purged != MaxLines || p.calls != 4 || len(p.things) != 3*MaxLines {
		t.Errorf("%+v, %d calls, %d things", a, p.calls, len(p.things))
	}
}

func TestLagIsUntilThePurgeHeldOrTheLastOldAnswerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakePurger{takes: time.Second}
		f := New(p, observe.New())
		ago := func(d time.Duration) string { return time.Now().Add(-d).Format(time.RFC3339Nano) }
		p.during = func(last uint64) { // the first old answer leaves before the event is noted
			f.Left("acme/shop", last-2, 0, time.Now())
		}
		take(t, f, `{"sku":"a","version":1,"at":"`+ago(2*time.Second)+`"}`)
		p.during = nil
		lag := f.Status("acme/shop")[0].Lag
		if lag.Changes != 1 || lag.Max != 3 || lag.Late != 1 || !lag.Oldest.Seen || lag.Oldest.Name != "a" {
			t.Errorf("%+v %+v", lag, lag.Oldest)
		}
		// A second change of the same price: who leaves with the first price is old for both.
		first := p.last
		take(t, f, `{"sku":"a","version":2}`, `{"sku":"b","version":1}`)
		time.Sleep(5 * time.Second)
		f.Left("acme/shop", first+2, 0, time.Now())      // born before both
		f.Left("acme/shop", first+6, first, time.Now())  // b
		f.Left("acme/shop", first+1, first, time.Now())  // a number that is no event's
		f.Left("acme/other", first+1, first, time.Now()) // no feed
		lag = f.Status("")[0].Lag
		// 2 s before its coming, 1 s until it was kept, 1 s until the second was, 5 s more.
		if lag.Changes != 3 || lag.Max != 9 || lag.Late != 3 || lag.P50 != 6 {
			t.Errorf("%+v", lag)
		}
		time.Sleep(recent + time.Second)
		if lag = f.Status("")[0].Lag; lag.Oldest != nil || lag.Max != 9 {
			t.Errorf("%+v", lag)
		}
		// An event from the future does not hide a lag.
		take(t, f, `{"sku":"z","at":"`+ago(-time.Hour)+`"}`)
		if st := f.Status("")[0]; st.Ahead != 1 || st.Lag.Oldest == nil || st.Lag.Oldest.Seconds != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	f := New(&fakePurger{}, observe.New())
	var lines []string
	for i := range MaxLines {
		lines = append(lines, fmt.Sprintf(`{"sku":"%d"}`, i))
	}
	for range 6 {
		take(t, f, lines...)
	}
	s := f.site("acme/shop", false)
	if n := len(s.lags.ring); n != keepChanges || len(s.lags.byName) > keepChanges {
		t.Errorf("%d changes, %d names", n, len(s.lags.byName))
	}
	for i := range uint64(2 * maxDepartures) {
		f.Left("acme/shop", 1<<40+i, 0, time.Now())
	}
	if l := s.lags.summary(time.Now()); len(s.lags.early) != maxDepartures || l.Missed != maxDepartures {
		t.Errorf("%d wait, %+v", len(s.lags.early), l)
	}
	o := newOrders(100)
	for i := range int64(1000) {
		o.note("s", fmt.Sprint(i), order{version: i})
		if len(o.now)+len(o.old) > 100 {
			t.Fatal("more names than the bound")
		}
	}
	if o.judge("s", "999", order{version: 999}) != same || o.judge("s", "1", order{version: 1}) != newer {
		t.Error("the newest are to stay, the oldest to go")
	}
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"sku":"a","version":1,"at":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"tag":"t","url":"/x","version":"9","price":1.5,"stock":null,"at":1767225601.5}`))
	f.Add([]byte(`{"sku":{}}`))
	m := &Mapping{Tags: []string{"sku-{sku}"}, URLs: []string{"/p/{sku}/x"}}
	now := time.Unix(1767225600, 0)
	f.Fuzz(func(t *testing.T, line []byte) {
		p, err := parse(line, now)
		if err != nil {
			return
		}
		if p.name() == "" || p.label() == "" || len(m.things(p)) == 0 {
			t.Errorf("%+v", p)
		}
		for _, th := range m.things(p) {
			if th.URL != "" && th.URL != p.URL && strings.Count(th.URL, "/") != 3 {
				t.Errorf("%s reaches out of its path", th.URL)
			}
		}
		q, err := parse(line, now)
		if err != nil || q.order != p.order {
			t.Error("read twice it is another")
		}
	})
}
