package stage

import (
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

func TestGateIsOffFromItsExpiry(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		p     v1.Protection
		start time.Time
		want  v1.Mode
	}{
		{"empty mode", v1.Protection{}, at, v1.ModeEnforce},
		{"off", v1.Protection{Mode: v1.ModeOff}, at, v1.ModeOff},
		{"shadow before", v1.Protection{Mode: v1.ModeShadow, Expires: &v1.Time{Time: at}}, at.Add(-1), v1.ModeShadow},
		{"at the instant", v1.Protection{Mode: v1.ModeEnforce, Expires: &v1.Time{Time: at}}, at, v1.ModeOff},
		{"after", v1.Protection{Mode: v1.ModeEnforce, Expires: &v1.Time{Time: at}}, at.Add(time.Hour), v1.ModeOff},
	} {
		g := NewGate(c.p)
		if got := g.Mode(&Exchange{Start: c.start}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	var zero Gate
	if zero.Mode(&Exchange{Start: at}) != v1.ModeOff {
		t.Error("the zero gate is not off")
	}
}

func TestScopeMatchesByPathElementsAndMethod(t *testing.T) {
	for _, c := range []struct {
		prefix  string
		methods []string
		method  string
		path    string
		want    bool
	}{
		{"", nil, "GET", "/x", true},
		{"/", nil, "GET", "/x", true},
		{"/", nil, "OPTIONS", "*", true},
		{"/img", nil, "GET", "/img", true},
		{"/img", nil, "GET", "/img/a", true},
		{"/img", nil, "GET", "/images", false},
		{"/img/", nil, "GET", "/img", true},
		{"/img/", nil, "GET", "/img/a", true},
		{"/img/", nil, "GET", "/imga", false},
		{"/img", nil, "GET", "/i", false},
		{"", []string{"POST", "PURGE"}, "GET", "/", false},
		{"", []string{"POST", "PURGE"}, "POST", "/", true},
		{"", []string{"POST", "PURGE"}, "PURGE", "/", true},
		{"", []string{"PURGE"}, "purge", "/", false},
		{"", []string{"PURGE"}, "GET", "/", false},
		{"/a", []string{"PUT"}, "PUT", "/a/b", true},
		{"/a", []string{"PUT"}, "PUT", "/b", false},
	} {
		var r message.Request
		r.SetMethod([]byte(c.method))
		x := Exchange{In: &r, Path: []byte(c.path)}
		s := NewScope(c.prefix, c.methods)
		if got := s.Holds(&x); got != c.want {
			t.Errorf("prefix %q methods %v: %s %s is %v, want %v", c.prefix, c.methods, c.method, c.path, got, c.want)
		}
		if n := testing.AllocsPerRun(10, func() { s.Holds(&x) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestRunsOfSlashesShedNoRestrictionAndObtainNoRelaxation(t *testing.T) {
	for _, c := range []struct {
		path, merged  string
		holds, asSent bool // below /login/form
	}{
		{"/login/form", "", true, true},
		{"//login/form", "/login/form", true, false},
		{"/login///form/a", "/login/form/a", true, false},
		{"/login/form//a", "/login/form/a", true, true},
		{"/%2Flogin%2F%2Fform", "/login/form", true, false},
		{"/login%2Fform", "", false, false}, // one encoded slash is a character of its segment
		{"//login/%2Form", "/login/orm", false, false},
		{"//", "/", false, false},
		{"*", "", false, false},
		{"/login/format//", "/login/format/", false, false},
	} {
		var r message.Request
		r.SetMethod([]byte("GET"))
		x := Exchange{In: &r}
		s := NewScope("/login/form", nil)
		x.SetPath([]byte("/a//longer/path//before"))
		x.SetPath([]byte(c.path))
		if got := string(x.Merged()); got != c.merged {
			t.Errorf("%s merges to %q, want %q", c.path, got, c.merged)
		}
		if holds, asSent := s.Holds(&x), s.HoldsAsSent(&x); holds != c.holds || asSent != c.asSent {
			t.Errorf("%s: holds %v, as sent %v; want %v and %v", c.path, holds, asSent, c.holds, c.asSent)
		}
		var f Exchange
		x.ForkInto(&f)
		if string(f.Merged()) != c.merged {
			t.Errorf("a fork of %s merges to %q", c.path, f.Merged())
		}
		if n := testing.AllocsPerRun(10, func() { x.SetPath(f.Path); s.Holds(&x) }); n != 0 {
			t.Errorf("%s: %v allocations", c.path, n)
		}
		if x.Reset(); x.Merged() != nil {
			t.Errorf("%s: the next request has %q", c.path, x.Merged())
		}
	}
}
