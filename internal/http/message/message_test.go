package message

import (
	"strings"
	"testing"
)

func TestKnownIDFindsEveryNameInAnyCase(t *testing.T) {
	for id := ID(1); id < numIDs; id++ {
		for _, n := range []string{id.String(), strings.ToLower(id.String()), strings.ToUpper(id.String())} {
			if got := KnownID([]byte(n)); got != id {
				t.Errorf("KnownID(%q) = %v, want %v", n, got, id)
			}
		}
	}
	for _, n := range []string{"", "x", "X-Other", "Hos", "Hostt", "C-okie", "\x48ost\x00", "H\x0fST", "TE\x00", "@ge"} {
		if got := KnownID([]byte(n)); got != Other {
			t.Errorf("KnownID(%q) = %v, want none", n, got)
		}
	}
}

func TestFieldsKeepOrderAndFirst(t *testing.T) {
	var f Fields
	f.AddString(Via, "1.1 a")
	f.AddLine([]byte("X-One"), []byte("1"))
	f.AddLine([]byte("via"), []byte("1.1 b"))
	f.Begin(CacheStatus)
	f.Append("relais; ttl=")
	f.AppendInt(-3)
	f.End()
	want := "Via: 1.1 a|X-One: 1|via: 1.1 b|Cache-Status: relais; ttl=-3"
	if got := dump(&f); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	if f.Count(Via) != 2 || string(f.Get(Via)) != "1.1 a" || string(f.Lookup("x-ONE")) != "1" || f.Get(Age) != nil {
		t.Errorf("look-ups: %d %q %q", f.Count(Via), f.Get(Via), f.Lookup("x-ONE"))
	}
	f.Set(Via, []byte("2"))
	f.SetLine("x-one", nil)
	if got := dump(&f); got != "Via: 2|X-One: |Cache-Status: relais; ttl=-3" {
		t.Errorf("after Set: %s", got)
	}
	f.Del(Via)
	f.DelLine("cache-status")
	if got := dump(&f); got != "X-One: " || f.Has(Via) || f.Has(CacheStatus) {
		t.Errorf("after Del: %s", got)
	}
}

func dump(f *Fields) string {
	var b strings.Builder
	for i := range f.Len() {
		_, n, v := f.At(i)
		if i > 0 {
			b.WriteByte('|')
		}
		b.Write(n)
		b.WriteString(": ")
		b.Write(v)
	}
	return b.String()
}

func TestCopyAndResetAllocateNothingOnceGrown(t *testing.T) {
	var a, b Request
	fill := func() {
		a.Reset()
		a.SetMethod([]byte("GET"))
		a.SetAuthority([]byte("shop.example.com"))
		a.SetPath([]byte("/img/1.jpg"))
		a.SetQuery([]byte("w=1"))
		a.AddLine([]byte("User-Agent"), []byte("a browser"))
		a.AddInt(ContentLength, 12)
		a.Set(UserAgent, []byte("another"))
		b.CopyFrom(&a)
	}
	if n := testing.AllocsPerRun(100, fill); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if string(b.MethodName()) != "GET" || string(b.Authority()) != "shop.example.com" || string(b.Path()) != "/img/1.jpg" ||
		string(b.Query()) != "w=1" || !b.HasQuery() || string(b.Get(UserAgent)) != "another" {
		t.Errorf("the copy differs: %s", dump(&b.Fields))
	}
	b.Set(Host, []byte("x"))
	if a.Has(Host) {
		t.Error("the copy shares memory with its source")
	}
}

func TestRemovalAllocatesNothing(t *testing.T) {
	var f Fields
	n := testing.AllocsPerRun(100, func() {
		f.Reset()
		f.AddString(Via, "1.1 a")
		f.AddLine([]byte("X-One"), []byte("1"))
		f.AddString(Connection, "x-one")
		f.AddString(Via, "1.1 b")
		f.Del(Connection)
		f.DelLine("x-one")
		f.DelAt(0)
	})
	if got := dump(&f); n != 0 || got != "Via: 1.1 b" || string(f.Get(Via)) != "1.1 b" {
		t.Errorf("%v allocations, left %s", n, got)
	}
}

func TestResetForgetsEveryName(t *testing.T) {
	for _, lines := range []int{1, 31, 32, 100} {
		var f Fields
		for i := range lines {
			f.AddString(ID(1+i%(numIDs-1)), "v")
		}
		f.Reset()
		for id := range ID(numIDs) {
			if f.Has(id) {
				t.Fatalf("after %d lines %v is still there", lines, id)
			}
		}
	}
}

func TestPartsBecomeLines(t *testing.T) {
	head := []byte("GET /a?b HTTP/1.1\r\nVia: 1.1 a\r\n\r\n")
	var r Request
	r.Method = GET
	r.AddParts(Via, Part{19, 3}, Part{24, 5})
	r.LoadHead(head, &Target{Method: Part{0, 3}, Path: Part{4, 2}, Query: Part{7, 1}, HasQuery: true})
	copy(head, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
	if string(r.MethodName()) != "GET" || string(r.Path()) != "/a" || string(r.Query()) != "b" || !r.HasQuery() ||
		string(r.Get(Via)) != "1.1 a" || dump(&r.Fields) != "Via: 1.1 a" {
		t.Errorf("%q %q %q %s", r.MethodName(), r.Path(), r.Query(), dump(&r.Fields))
	}
}

func TestRFC9110Section561AFieldListsItems(t *testing.T) {
	var f Fields
	f.AddString(TE, "gzip;q=0.5")
	f.AddString(Connection, "keep-alive, x")
	f.AddString(TE, " , Trailers ; q=1")
	for _, tt := range []struct {
		id   ID
		item string
		want bool
	}{
		{TE, "trailers", true},
		{TE, "gzip", true},
		{TE, "zip", false},
		{TE, "q", false},
		{Connection, "X", true},
		{Connection, "close", false},
		{Host, "x", false},
	} {
		if f.Lists(tt.id, tt.item) != tt.want {
			t.Errorf("%s %q is not %v", tt.id, tt.item, tt.want)
		}
	}
}

func TestNamesThatCollideWithAnother(t *testing.T) {
	for name, want := range map[string]bool{
		"content_length": true, "Transfer_Encoding": true, "x-forwarded_for": true, "X_Real_IP": true,
		"content-length": false, "user_agent": false, "_": false, "x_custom": false, strings.Repeat("_", 40): false,
	} {
		if Collides([]byte(name)) != want {
			t.Errorf("%q is not %v", name, want)
		}
	}
}
