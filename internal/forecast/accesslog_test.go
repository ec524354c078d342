package forecast

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/stage"
)

var logStart = time.Date(2026, 11, 27, 18, 0, 0, 0, time.UTC)

// logged writes a line as record does.
func logged(at time.Time, rest string) string {
	return `{"time":"` + at.Format("2006-01-02T15:04:05.000Z") + `","id":"3r5q8v6m4x2n7k9w1c0d5f8h2j","client":"192.0.2.1","proto":"HTTP/2","method":"GET","host":"shop.example","path":"/a","status":200,"bytes":5,"ms":` + rest + "}\n"
}

const (
	homeLine  = `20.000,"site":"demo/shop","route":"r1","pool":"shop","tier":"home","origin":"10.0.1.10:8080"`
	spillLine = `50.000,"site":"demo/shop","route":"r1","visitor":"known","pool":"shop","tier":"overflow","origin":"10.9.0.10:8080","spill":"soft"`
	orderLine = `30.000,"site":"demo/shop","route":"r1","visitor":"protected","pool":"shop","tier":"home","origin":"10.0.1.10:8080"`
	hitLine   = `0.100,"site":"demo/shop","route":"r1","cache":"hit"`
)

func TestAnAccessLogBecomesMinutes(t *testing.T) {
	var b strings.Builder
	for i := range 180 * 10 {
		at := logStart.Add(time.Duration(i) * 100 * time.Millisecond)
		b.WriteString(logged(at, homeLine))
		if i%5 == 0 {
			b.WriteString(logged(at, spillLine))
		}
		if i%10 == 0 {
			b.WriteString(logged(at, orderLine))
			b.WriteString(logged(at, hitLine))
		}
	}
	b.WriteString(`{"time":"2026-11-27T18:02:59.000Z","status":503,"ms":0.100,"site":"demo/shop","route":"r","code":"destination_unavailable"}` + "\n")
	b.WriteString(`{"time":"2026-11-27T18:02:59.000Z","status":503,"ms":0.100,"site":"demo/many","route":"r","code":"destination_unavailable"}` + "\n")
	b.WriteString(`{"time":"2026-11-27T18:02:59.000Z","proto":"tcp","received":5,"bytes":7,"ms":9.000,"service":"demo/db","pool":"db","tier":"a","origin":"10.0.0.1:1"}` + "\n")
	b.WriteString("not json\n\n{\"time\":\"torn")
	logs := &Logs{Names: []string{"-"}, Stdin: strings.NewReader(b.String()), Only: map[string]string{"demo/shop": "demo/shop"}}
	loads, stats, err := logs.Read(t.Context())
	if err != nil || len(loads) != 1 || loads[0].Key != "demo/shop" || len(loads[0].Minutes) != 3 {
		t.Fatalf("%+v, %v", loads, err)
	}
	if stats.Unreadable != 2 || stats.Unplaced != 1 || stats.Connections != 1 || stats.Elsewhere != 180 || stats.LeftOut != 0 {
		t.Errorf("%+v", stats)
	}
	m := loads[0].Minutes[1]
	if m.Start != logStart.Unix()+60 || m.Seconds != 60 || len(m.Tiers) != 2 {
		t.Fatalf("%+v", m)
	}
	home, over := m.Tiers[0], m.Tiers[1]
	if home.Requests != (balance.ByClass{Anonymous: 600, Basket: 60}) || over.Requests != (balance.ByClass{Known: 120}) || over.Spills.Soft != 120 {
		t.Errorf("home %+v, overflow %+v", home, over)
	}
	// 600 of 20 ms and 60 of 30 in a minute.
	if want := (600*0.020 + 60*0.030) / 60; home.InFlight < want*0.999 || home.InFlight > want*1.001 {
		t.Errorf("in flight %v, want %v", home.InFlight, want)
	}
	if home.P50 < 17 || home.P50 > 22 || home.P95 < 26 || home.P95 > 34 {
		t.Errorf("percentiles %v and %v", home.P50, home.P95)
	}
	if r := loads[0].Minutes[2].Refused; r.Anonymous != 1 {
		t.Errorf("refused %+v", r)
	}
}

func writeLog(t *testing.T, lines int, each time.Duration) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "access.log")
	var b bytes.Buffer
	for i := range lines {
		b.WriteString(logged(logStart.Add(time.Duration(i)*each), homeLine))
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func requests(loads []balance.PoolLoad) (n float64) {
	for _, l := range loads {
		for _, m := range l.Minutes {
			for _, tm := range m.Tiers {
				n += tm.Requests.All()
			}
		}
	}
	return n
}

func TestALongLogIsReadInPlacesThatStandForTheRest(t *testing.T) {
	name := writeLog(t, 40_000, 20*time.Millisecond) // 13 minutes of 50 a second, some 10 MB
	logs := &Logs{Names: []string{name}, Budget: 1 << 20}
	loads, stats, err := logs.Read(t.Context())
	if err != nil || !stats.Sampled {
		t.Fatalf("%+v, %v", stats, err)
	}
	if stats.BytesRead > 2<<20 || stats.Unreadable > 0 {
		t.Errorf("%+v", stats)
	}
	if n := requests(loads); n < 38_000 || n > 42_000 {
		t.Errorf("%v requests of 40,000", n)
	}
}

func TestOnlyTheWindowOfAFileIsRead(t *testing.T) {
	name := writeLog(t, 200_000, 200*time.Millisecond) // 11 hours, some 50 MB
	w := Window{From: logStart.Add(3 * time.Hour), To: logStart.Add(3*time.Hour + 30*time.Minute)}
	loads, stats, err := (&Logs{Names: []string{name}, Window: w}).Read(t.Context())
	if err != nil || len(loads) != 1 {
		t.Fatalf("%+v, %v", loads, err)
	}
	if stats.BytesRead > 8<<20 {
		t.Errorf("%d bytes were read", stats.BytesRead)
	}
	b, ok := newBase(&loads[0], Window{From: w.From, To: w.To, Mean: true}, []string{"home"})
	if !ok || b.rate.All() < 4.8 || b.rate.All() > 5.2 {
		t.Errorf("%+v", b)
	}
}

func TestWhatTheReaderKeepsIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range maxCells + 5000 {
		b.WriteString(logged(logStart.Add(time.Duration(i)*time.Minute), homeLine))
	}
	for i := range maxNames + 100 {
		b.WriteString(logged(logStart.AddDate(1, 0, 0), fmt.Sprintf(`1.000,"site":"demo/s","pool":"p%d","tier":"home"`, i)))
	}
	b.WriteString(`{"time":"` + strings.Repeat("x", 3*maxLine) + "\"}\n")
	loads, stats, err := (&Logs{Names: []string{"-"}, Stdin: strings.NewReader(b.String())}).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range loads {
		n += len(l.Minutes)
	}
	if n > maxCells || len(loads) > maxNames || stats.LeftOut < 5000 || stats.Unreadable != 1 {
		t.Errorf("%d minutes of %d pools, %+v", n, len(loads), stats)
	}
	if got := requests(loads) + stats.LeftOut; got != maxCells+5000+maxNames+100 {
		t.Errorf("%v lines are accounted for", got)
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := (&Logs{Names: []string{"-"}, Stdin: strings.NewReader(logged(logStart, homeLine))}).Read(ctx); err == nil {
		t.Error("it went on")
	}
}

func TestALogThatCannotBeReadIsSaid(t *testing.T) {
	for name, want := range map[string]string{filepath.Join(t.TempDir(), "none.log"): "no such file", t.TempDir(): "is a folder"} {
		_, _, err := (&Logs{Names: []string{name}}).Read(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// FuzzAccessLog reads hostile lines, and compares each with what encoding/json makes of it.
func FuzzAccessLog(f *testing.F) {
	f.Add([]byte(logged(logStart, homeLine)))
	f.Add([]byte(logged(logStart, spillLine)))
	f.Add([]byte(`{"time":"2026-11-27T18:02:59.000Z","pool":"a\"b","tier":"\u00e9","ms":1e3,"status":200}`))
	f.Add([]byte(`{"time":"2026-11-27T18:02:59+01:00","ms":0.5}`))
	f.Add([]byte(`{"time":"2026-11-27T18:02:61.000Z"}`))
	f.Add([]byte(`{"time":"2026-11-27T18:02:59.000Z",}`))
	f.Add([]byte(`{"time":"2026-11-27T18:02:59.000Z","ms":-1}`))
	f.Add([]byte(`{"time":"2026-11-27T18:02:59.000Z","ms":00.1,"status":1e9}`))
	f.Add([]byte("{}\n\n{\"\n}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r lineReader
		var l logLine
		for range 2 { // the second time the minute is remembered
			ok := r.read(b, &l)
			compare(t, b, ok, &l)
		}
		loads, stats, err := (&Logs{Names: []string{"-"}, Stdin: io.LimitReader(bytes.NewReader(b), 1<<20)}).Read(t.Context())
		if err != nil || stats.Lines < stats.Unreadable {
			t.Errorf("%+v, %v", stats, err)
		}
		for i := range loads {
			newBase(&loads[i], Window{}, nil)
		}
	})
}

// compare holds what was read against the slow way. A field that stands twice, or a value that is no text or number,
// is not compared.
func compare(t *testing.T, b []byte, ok bool, l *logLine) {
	t.Helper()
	var m map[string]any
	if json.Unmarshal(b, &m) != nil || m == nil {
		return
	}
	at, _ := m["time"].(string)
	when, err := time.Parse(time.RFC3339Nano, at)
	if !ok || bytes.Count(b, []byte{'"'}) != 2*len(m)+2*countTexts(m) {
		return
	}
	if err != nil || when.Unix() < 0 {
		t.Fatalf("%q was read, and has no time", b)
	}
	if l.minute != when.Unix()/60 || int64(l.seconds) != when.Unix()%60 {
		t.Errorf("%q: minute %d and %v s, want %d", b, l.minute, l.seconds, when.Unix())
	}
	for key, got := range map[string][]byte{"site": l.site, "pool": l.pool, "tier": l.tier, "spill": l.spill, "code": l.code} {
		if s, ok := m[key].(string); ok && s != string(got) && !strings.Contains(s, "\ufffd") {
			t.Errorf("%q: %s is %q, want %q", b, key, got, s)
		}
	}
	if n, ok := m["ms"].(float64); ok && (l.millis < n*0.999999 || l.millis > n*1.000001) {
		t.Errorf("%q: %v ms, want %v", b, l.millis, n)
	}
	if m["visitor"] == "protected" && l.class != stage.Protected {
		t.Errorf("%q: class %v", b, l.class)
	}
}

func countTexts(m map[string]any) (n int) {
	for _, v := range m {
		if _, ok := v.(string); ok {
			n++
		}
	}
	return n
}
