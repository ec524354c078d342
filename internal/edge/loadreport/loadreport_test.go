package loadreport

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestRelaisLoadIsADictionaryOfNumbers(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Report
		err  error
	}{
		{"inflight=37, limit=200", Report{37, 200, -1, -1}, nil},
		{"inflight=0,limit=1", Report{0, 1, -1, -1}, nil},
		{" utilization=0.83 ", Report{-1, -1, .83, -1}, nil},
		{"inflight=3, limit=8, utilization=1.5, colour=7", Report{3, 8, 1.5, -1}, nil},
		{"inflight=3, inflight=4, limit=9", Report{4, 9, -1, -1}, nil}, // RFC 9651: the last one counts
		{"inflight=5", Report{5, -1, -1, -1}, nil},
		{"inflight=-1, limit=200", none(), ErrBounds},
		{"inflight=1, limit=-200", none(), ErrBounds},
		{"inflight=1, limit=0", none(), ErrBounds},
		{"inflight=10000001, limit=5", none(), ErrBounds},
		{"inflight=1e300, limit=5", none(), ErrBounds},
		{"inflight=99999999999999999999999999999999, limit=5", none(), ErrBounds},
		{"inflight=1.5, limit=5", none(), ErrBounds},
		{"utilization=101", none(), ErrBounds},
		{"utilization=-0.1", none(), ErrBounds},
		{"utilization=NaN", none(), ErrSyntax},
		{"utilization=Inf", none(), ErrSyntax},
		{"inflight=0x10, limit=5", none(), ErrSyntax},
		{"inflight=01, limit=5", none(), ErrSyntax},
		{"inflight", none(), ErrSyntax},
		{"inflight=", none(), ErrSyntax},
		{"inflight=1,", none(), ErrSyntax},
		{"inflight=1; limit=5", none(), ErrSyntax},
		{"=1", none(), ErrSyntax},
		{"", none(), ErrSyntax},
		{"colour=7", none(), ErrEmpty},
		{strings.Repeat("a=1,", 2000) + "a=1", none(), ErrSyntax},
		{strings.Repeat("a=1,", 200) + "inflight=1", none(), ErrSyntax},
	} {
		got, err := Relais([]byte(c.in))
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%.40q: %+v, %v; want %+v, %v", c.in, got, err, c.want, c.err)
		}
	}
}

func TestORCAInJSONAndText(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Report
		err  error
	}{
		{`JSON {"cpu_utilization": 0.3, "mem_utilization": 0.8}`, Report{-1, -1, .3, -1}, nil},
		{`JSON {"application_utilization":0.6,"cpu_utilization":0.3}`, Report{-1, -1, .6, -1}, nil},
		{`JSON {"cpu_utilization":0.3,"application_utilization":0.6}`, Report{-1, -1, .6, -1}, nil},
		{`JSON {"application_utilization":0,"cpu_utilization":0.3}`, Report{-1, -1, .3, -1}, nil},
		{`JSON {"cpuUtilization":0.25,"rpsFractional":120.5}`, Report{-1, -1, .25, 120.5}, nil},
		{`JSON {"named_metrics":{"inflight":12,"limit":40,"x":-0.0},"utilization":{"limit":3}}`, Report{12, 40, -1, -1}, nil},
		{`JSON {"cpu_utilization":5e-1,"tags":["a",{"b":[1,null]}],"ok":true,"s":"a\"b"}`, Report{-1, -1, .5, -1}, nil},
		{"TEXT cpu_utilization=0.3, rps_fractional=10.0", Report{-1, -1, .3, 10}, nil},
		{"TEXT named_metrics.inflight=3,named_metrics.limit=4", Report{3, 4, -1, -1}, nil},
		{`JSON {"cpu_utilization":-0.3}`, none(), ErrBounds},
		{`JSON {"cpu_utilization":1e9}`, none(), ErrBounds},
		{`JSON {"rps_fractional":-1,"cpu_utilization":0.1}`, none(), ErrBounds},
		{`JSON {"cpu_utilization":0.3`, none(), ErrSyntax},
		{`JSON {"cpu_utilization":0.3}x`, none(), ErrSyntax},
		{`JSON {"cpu_utilization":0.3,}`, none(), ErrSyntax},
		{`JSON {}`, none(), ErrEmpty},
		{`JSON {"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}`, none(), ErrSyntax},
		{`{"cpu_utilization":0.3}`, none(), ErrSyntax},
		{"BIN CAESBgoBYRIBYg==", none(), ErrSyntax},
		{"JSON", none(), ErrSyntax},
		{"TEXT cpu_utilization=abc", none(), ErrSyntax},
		{`JSON {"a":"` + strings.Repeat("x", 5000) + `"}`, none(), ErrSyntax},
	} {
		got, err := ORCA([]byte(c.in))
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%.60q: %+v, %v; want %+v, %v", c.in, got, err, c.want, c.err)
		}
	}
}

func TestAReportIsReadWithoutAllocation(t *testing.T) {
	a, b := []byte("inflight=37, limit=200"), []byte(`JSON {"cpu_utilization":0.3,"named_metrics":{"inflight":12,"limit":40}}`)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Relais(a); err != nil {
			t.Fatal(err)
		}
		if _, err := ORCA(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// bounded says that nothing that was accepted is beyond its bounds.
func bounded(t *testing.T, r Report, err error) {
	if err != nil {
		if r != none() {
			t.Fatalf("refused, and yet %+v", r)
		}
		return
	}
	if r.InFlight < -1 || r.InFlight > MaxRequests || r.Limit < -1 || r.Limit == 0 || r.Limit > MaxRequests ||
		r.Utilization < -1 || r.Utilization > MaxUtilization || r.Rate < -1 || r.Rate > MaxRate ||
		math.IsNaN(r.Utilization) || math.IsNaN(r.Rate) {
		t.Fatalf("accepted %+v", r)
	}
}

func FuzzRelais(f *testing.F) {
	for _, s := range []string{"inflight=37, limit=200", "utilization=0.5", "inflight=-1", "a=1e309,limit=3", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Relais(b)
		bounded(t, r, err)
	})
}

func FuzzORCA(f *testing.F) {
	for _, s := range []string{`JSON {"cpu_utilization":0.3,"named_metrics":{"limit":4}}`, "TEXT cpu_utilization=0.3", `JSON {"a":[1,{"b":"\""}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ORCA(b)
		bounded(t, r, err)
		// What is accepted as JSON is JSON.
		if v := trim(b); err == nil && hasWord(v, "JSON") && isASCII(v) && !strings.Contains(string(v), `\`) && !json.Valid(v[5:]) {
			t.Fatalf("accepted %q", v)
		}
	})
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
