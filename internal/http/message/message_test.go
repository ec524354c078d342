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
