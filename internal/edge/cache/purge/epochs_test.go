package purge

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// numbered applies entries with the numbers 1, 2, 3…
func numbered(e *Epochs, list ...Entry) {
	for _, p := range list {
		p.Number = e.Last() + 1
		p.Time = time.Unix(1000, 0)
		e.Apply(&p)
	}
}

func at(host, path, query string) *Place {
	return &Place{Host: []byte(host), Path: []byte(path), Query: []byte(query)}
}

func TestWhatAPurgeNames(t *testing.T) {
	const host = "shop.example"
	site := Entry{Site: "acme/shop"}
	with := func(k Kind, host, value string) Entry {
		e := site
		e.Kind, e.Host, e.Value = k, host, value
		return e
	}
	places := []*Place{
		0: at(host, "/", ""), 1: at(host, "/img", ""), 2: at(host, "/img/a.jpg", ""), 3: at(host, "/img/a.jpg", "w=1"),
		4: at(host, "/images/a.jpg", ""), 5: at("other.example", "/img/a.jpg", "w=1"), 6: at(host, "/img/b/c/d", "x"),
		7: {Host: []byte(host), Path: []byte("/img/a.jpg"), AnyQuery: true},
	}
	for _, c := range []struct {
		name  string
		entry Entry
		hit   []int
	}{
		{"URL without query", with(URL, host, "/img/a.jpg"), []int{2, 7}},
		{"URL with query", with(URL, host, "/img/a.jpg?w=1"), []int{3, 7}},
		{"URL on all hosts", with(URL, "", "/img/a.jpg?w=1"), []int{3, 5, 7}},
		{"path with any query", with(Path, host, "/img/a.jpg"), []int{2, 3, 7}},
		{"prefix by elements", with(Prefix, host, "/img"), []int{1, 2, 3, 6, 7}},
		{"prefix with a slash is the same", with(Prefix, host, "/img/"), []int{1, 2, 3, 6, 7}},
		{"prefix on all hosts", with(Prefix, "", "/img"), []int{1, 2, 3, 5, 6, 7}},
		{"deep prefix", with(Prefix, host, "/img/b/c"), []int{6}},
		{"prefix of all", with(Prefix, host, "/"), []int{0, 1, 2, 3, 4, 6, 7}},
		{"host", with(Host, host, ""), []int{0, 1, 2, 3, 4, 6, 7}},
		{"site", with(Site, "", ""), []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"organization", Entry{Kind: Organization, Site: "acme"}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"all", Entry{Kind: All}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"tag", with(Tag, "", "x"), nil},
		{"another site", Entry{Kind: Site, Site: "acme/other"}, nil},
		{"another tenant's same path", Entry{Kind: Path, Site: "evil/shop", Host: host, Value: "/img/a.jpg"}, nil},
		{"another tenant", Entry{Kind: Organization, Site: "evil"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := NewEpochs(1 << 10)
			numbered(e, c.entry)
			m := e.Mark("acme/shop")
			want := map[int]bool{}
			for _, i := range c.hit {
				want[i] = true
			}
			for i, p := range places {
				if got := m.Place(p).Hard == 1; got != want[i] {
					t.Errorf("%s%s?%s is purged: %t", p.Host, p.Path, p.Query, got)
				}
				if want[i] && (m.Last() < 1 || !m.Since(0)) {
					t.Error("the site's mark does not say that there was a purge")
				}
			}
		})
	}
}

func TestTagsAreOfOneSite(t *testing.T) {
	e := NewEpochs(1 << 10)
	numbered(e, Entry{Kind: Tag, Site: "acme/shop", Value: "price"}, Entry{Kind: Group, Site: "acme/shop", Host: "https://a", Value: "g"})
	m, o := e.Mark("acme/shop"), e.Mark("acme/other")
	for _, c := range []struct {
		hash uint64
		want uint64
	}{
		{m.TagHash([]byte("price")), 1},
		{m.TagHash([]byte("prices")), 0},
		{o.TagHash([]byte("price")), 0},
		{m.GroupHash([]byte("https://a"), []byte("g")), 2},
		{m.GroupHash([]byte("https://b"), []byte("g")), 0},
		{m.TagHash([]byte("g")), 0},
	} {
		if v := m.Tags([]uint64{c.hash}); v.Hard != c.want {
			t.Errorf("%+v, want %d", v, c.want)
		}
	}
	if m.Since(0) {
		t.Error("a purge by tag is none by place")
	}
}

func TestSoftAndHardAreToldApart(t *testing.T) {
	e := NewEpochs(1 << 10)
	tag := Entry{Kind: Tag, Site: "s/s", Value: "x"}
	soft := tag
	soft.Soft = true
	numbered(e, soft, tag, soft)
	m := e.Mark("s/s")
	if v := m.Tags([]uint64{m.TagHash([]byte("x"))}); v != (Verdict{Hard: 2, Soft: 3, SoftAt: 1000}) {
		t.Errorf("%+v", v)
	}
}

func TestWhatTheTableForgetsCountsAsPurged(t *testing.T) {
	e := NewEpochs(1) // the least table
	m := e.Mark("s/s")
	const n = 20 * minBuckets
	for i := range n {
		numbered(e, Entry{Kind: Tag, Site: "s/s", Value: fmt.Sprint(i), Soft: i%3 == 0})
	}
	for i := range n {
		v := m.Tags([]uint64{m.TagHash(fmt.Append(nil, i))})
		if got := max(v.Hard, v.Soft); got < uint64(i+1) {
			t.Fatalf("tag %d was purged by number %d, and the table says %+v", i, i+1, v)
		}
		if i%3 != 0 && v.Hard < uint64(i+1) {
			t.Fatalf("tag %d: a hard purge became soft: %+v", i, v)
		}
	}
	if k := e.Keys(); k > minBuckets*ways*2 {
		t.Errorf("%d keys", k)
	}
}

// Against a map that forgets nothing: never older than what is true.
func TestEpochsNeverForgetWhileTheyGrow(t *testing.T) {
	e := NewEpochs(1 << 12)
	m := e.Mark("s/s")
	truth := map[int]uint64{}
	r := rand.New(rand.NewPCG(1, 2))
	exact, asked := 0, 0
	for range 20_000 {
		i := r.IntN(8192)
		numbered(e, Entry{Kind: Tag, Site: "s/s", Value: fmt.Sprint(i)})
		truth[i] = e.Last()
		k := r.IntN(8192)
		v := m.Tags([]uint64{m.TagHash(fmt.Append(nil, k))})
		if v.Hard < truth[k] {
			t.Fatalf("tag %d: %d, and it was purged by %d", k, v.Hard, truth[k])
		}
		asked++
		if v.Hard == truth[k] {
			exact++
		}
	}
	t.Logf("%d of %d exact", exact, asked)
}

func TestReadingWhilePurgesComeSeesEachOnceItIsApplied(t *testing.T) {
	e := NewEpochs(1 << 11)
	m := e.Mark("s/s")
	done := make(chan struct{})
	hash := m.TagHash([]byte("7"))
	go func() {
		defer close(done)
		for i := range 30_000 {
			numbered(e, Entry{Kind: Tag, Site: "s/s", Value: fmt.Sprint(i % 5000)})
		}
	}()
	for {
		applied := e.Last()
		v := m.Tags([]uint64{hash}) // it may be too new for a moment, where another tag takes the place
		// Number 8 and each 5,000th after it are of this tag.
		if applied >= 8 {
			if want := applied - (applied-8)%5000; v.Hard < want {
				t.Fatalf("%d purges are applied, and the last of the tag is %d, not %d", applied, v.Hard, want)
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestLookingAllocatesNothing(t *testing.T) {
	e := NewEpochs(1 << 10)
	numbered(e, Entry{Kind: Prefix, Site: "s/s", Value: "/a"}, Entry{Kind: All})
	m := e.Mark("s/s")
	p := at("shop.example", "/b/c/d/e.jpg", "w=1")
	hashes := []uint64{m.TagHash([]byte("x")), 2, 3}
	if n := testing.AllocsPerRun(100, func() {
		if m.Place(p).Hard != 2 || m.Tags(hashes).Hard != 0 {
			t.Fatal()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzTags(f *testing.F) {
	f.Add([]byte("a, b ,,c"), []byte("d e  f\ta"))
	f.Add([]byte("\x00"), []byte("ü"))
	f.Fuzz(func(t *testing.T, commas, spaces []byte) {
		var tags Tags
		tags.AddCommas(commas)
		tags.AddSpaces(spaces)
		seen := map[string]bool{}
		for name := range Names(tags.Text()) {
			s := string(name)
			if !GoodTag(name) || seen[s] || Fold(s) != s {
				t.Errorf("%q", s)
			}
			seen[s] = true
			e := Entry{Kind: Tag, Site: "s", Value: s}
			if err := e.Check(); err != nil {
				t.Errorf("a tag that is kept cannot be purged: %v", err)
			}
		}
		if len(seen) > MaxTags || len(tags.Text()) > MaxTagBytes {
			t.Errorf("%d tags of %d bytes", len(seen), len(tags.Text()))
		}
	})
}

func TestTagsOfAnAnswer(t *testing.T) {
	long := make([]byte, MaxTag+1)
	for i := range long {
		long[i] = 'x'
	}
	for _, c := range []struct {
		commas, spaces, want string
		whole                bool
	}{
		{"a, B,,a ,c", "", "a\nb\nc\n", true},
		{"", "a  b\tA", "a\nb\n", true},
		{"a b", "", "", false},
		{"", "a,b", "", false},
		{"a\x01", "", "", false},
		{string(long), "b", "b\n", false},
		{string(long[1:]), "", string(long[1:]) + "\n", true},
		{"", "", "", true},
	} {
		var tags Tags
		tags.AddCommas([]byte(c.commas))
		tags.AddSpaces([]byte(c.spaces))
		if string(tags.Text()) != c.want || tags.Whole() != c.whole {
			t.Errorf("%.20q %.20q: %.40q %t", c.commas, c.spaces, tags.Text(), tags.Whole())
		}
	}
	var many Tags
	for i := range MaxTags + 1 {
		many.Add(fmt.Append(nil, "tag", i))
	}
	if many.Whole() {
		t.Error("more tags than are kept, and nobody says so")
	}
}

// BenchmarkFalseSharing purges 1,000,000 tags and tells how many of others that were never purged seem
// to be, for answers of the age of the middle purge.
func BenchmarkFalseSharing(b *testing.B) {
	for b.Loop() {
		e := NewEpochs(DefaultKeys)
		m := e.Mark("acme/shop")
		const n = 1_000_000
		for i := range n {
			e.Apply(&Entry{Number: uint64(i + 1), Kind: Tag, Site: "acme/shop", Value: fmt.Sprint("purged", i)})
		}
		first, old, middle := 0, 0, 0
		for i := range n {
			v := m.Tags([]uint64{m.TagHash(fmt.Append(nil, "other", i))})
			if v.Hard > 0 {
				first++
			}
			if v.Hard > n/10 {
				old++
			}
			if v.Hard > n/2 {
				middle++
			}
		}
		b.ReportMetric(100*float64(first)/n, "%lost-older-than-all")
		b.ReportMetric(100*float64(old)/n, "%lost-at-10%")
		b.ReportMetric(100*float64(middle)/n, "%lost-at-50%")
		b.ReportMetric(float64(len(e.table.Load().buckets)*128)/1e6, "MB")
	}
}
