package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bundle/wire"
	"github.com/relais-edge/relais/internal/manifest"
)

// alike takes an empty list for an absent one, as JSON does, and instants for what they are.
func alike(a, b *bundle.Bundle) string {
	return cmp.Diff(a, b, cmpopts.EquateEmpty(), cmp.Comparer(func(x, y v1.Time) bool { return x.Equal(y.Time) }))
}

// equal compares what bundles are written as, which takes a fraction of the time.
func equal(t testing.TB, a, b *bundle.Bundle) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

// shop is a bundle with sites that share a pool and a cache policy, and each with a firewall of its own.
func shop(sites int) *bundle.Bundle {
	b := &bundle.Bundle{Format: bundle.Format, Organization: "shop"}
	pool, cache := &v1.OriginPoolSpec{}, &v1.CachePolicySpec{DefaultTTL: v1.Duration(time.Minute)}
	flood := &v1.FloodPolicySpec{}
	for i := range sites {
		name := fmt.Sprintf("site-%06d", i)
		s := &bundle.Site{
			Key: bundle.NewKey("shop", name), Hostnames: []string{name + ".example"},
			Routes: []v1.Route{{Name: "all", Pool: "web", Policies: v1.Policies{Cache: "pages", WAF: "own"}}},
			Pools:  map[string]*v1.OriginPoolSpec{"web": pool}, Caches: map[string]*v1.CachePolicySpec{"pages": cache},
			WAF: map[string]*v1.WafPolicySpec{"own": {Paranoia: 2}}, Flood: flood,
		}
		b.Sites = append(b.Sites, s)
		if i%10 == 0 {
			key := bundle.NewKey("shop", name+"-tls")
			b.Certificates = append(b.Certificates, bundle.Certificate{Key: key})
			b.Hosts = append(b.Hosts, bundle.CertificateHosts{Site: s.Key, Hostnames: s.Hostnames, Certificates: []bundle.Key{key}})
		}
	}
	return b
}

func encode(t testing.TB, b *bundle.Bundle, before *wire.Index) (*wire.Index, []byte, [][]byte) {
	t.Helper()
	index, parts, err := wire.Encode(b, before)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := wire.Parts(index)
	if err != nil || len(refs) != len(parts) {
		t.Fatalf("%d blobs, and the index names %d: %v", len(parts), len(refs), err)
	}
	x, err := wire.ReadIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	return x, index, parts
}

func decode(t testing.TB, organization string, index []byte, parts [][]byte) *bundle.Bundle {
	t.Helper()
	b, err := wire.Decode(organization, index, parts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fill sets every field of a value, so that a field which the form forgets is found.
func fill(v reflect.Value, r *rand.Rand, depth int) {
	switch v.Interface().(type) {
	case v1.Time:
		v.Set(reflect.ValueOf(v1.Time{Time: time.Unix(r.Int64N(1<<32), 0).UTC()}))
		return
	case v1.Percent:
		v.SetFloat(float64(r.IntN(1001)) / 10)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), r, depth+1)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r, depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), r, depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, r, depth+1)
		fill(elem, r, depth+1)
		v.SetMapIndex(key, elem)
	case reflect.String:
		v.SetString(fmt.Sprintf("<%x> \u2028 \ufffd \"%c", r.Uint32(), rune(0x4e00+r.IntN(100))))
	case reflect.Int, reflect.Int64:
		v.SetInt(1 + r.Int64N(1<<40))
	case reflect.Float64:
		v.SetFloat(r.Float64())
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("a bundle has a field of kind " + v.Kind().String())
	}
}

// full is a bundle in which every field there is has a value.
func full(r *rand.Rand) *bundle.Bundle {
	b := &bundle.Bundle{}
	fill(reflect.ValueOf(b).Elem(), r, 0)
	b.Format, b.Organization = bundle.Format, "shop"
	s := b.Sites[0]
	s.Key = "shop/a"
	route := &s.Routes[0]
	rename(&s.Pools, "pool")
	rename(&s.Access, "access")
	rename(&s.JWT, "jwt")
	rename(&s.API, "api")
	rename(&s.RateLimits, "limit")
	rename(&s.WAF, "waf")
	rename(&s.Visitors, "visitor")
	rename(&s.Rooms, "room")
	rename(&s.Bots, "bots")
	rename(&s.Caches, "cache")
	rename(&s.Images, "images")
	route.Policies = v1.Policies{Access: "access", JWT: "jwt", API: "api", RateLimits: []string{"limit"}, WAF: "waf", Visitor: "visitor", WaitingRoom: "room", Bots: "bots", Cache: "cache", Images: "images"}
	route.Pool, route.Pools[0].Pool, route.Mirror.Pool = "pool", "pool", "pool"
	b.Certificates[0].Key = "shop/c"
	b.Services[0].Key = "shop/s"
	l := &b.Listeners[0]
	l.Key, l.Certificates, l.Hosts = "shop/l", []bundle.Key{"shop/c"}, nil
	b.Hosts = []bundle.CertificateHosts{{Site: s.Key, Listeners: s.Listeners, Hostnames: s.Hostnames, Certificates: []bundle.Key{"shop/c"}}}
	return b
}

func rename[S any](m *map[string]*S, name string) {
	for _, spec := range *m {
		*m = map[string]*S{name: spec}
	}
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	for i := range uint64(10) {
		b := full(rand.New(rand.NewPCG(i, 1)))
		_, index, parts := encode(t, b, nil)
		if diff := alike(b, decode(t, "shop", index, parts)); diff != "" {
			t.Fatal(diff)
		}
	}
	for _, n := range []int{0, 1, 3, 256, 257, 700} {
		b := shop(n)
		_, index, parts := encode(t, b, nil)
		got := decode(t, "shop", index, parts)
		if !equal(t, b, got) {
			t.Fatal(n, "sites: what is read is something else")
		}
		if n > 1 && (got.Sites[0].Pools["web"] != got.Sites[n-1].Pools["web"] || got.Sites[0].Flood != got.Sites[n-1].Flood) {
			t.Error(n, "specs that sites share are not shared")
		}
		_, again, _ := encode(t, got, nil)
		if !bytes.Equal(again, index) {
			t.Error(n, "the same bundle has another index")
		}
	}
}

func TestTheChangeOfASiteIsANewIndexAndANewPart(t *testing.T) {
	b := shop(1100)
	x, index, parts := encode(t, b, nil)
	if len(x.Parts) != 8 || x.Head != nil {
		t.Fatalf("%d parts, %v", len(x.Parts), x.Head)
	}
	reader := wire.NewReader("shop")
	was, err := reader.Decode(index, parts)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		i := r.IntN(len(b.Sites))
		s := *b.Sites[i]
		s.Hostnames = []string{"another.example"}
		next := *b
		next.Sites, next.Hosts = slices.Clone(b.Sites), slices.Clone(b.Hosts)
		next.Sites[i] = &s
		for j := range next.Hosts {
			if next.Hosts[j].Site == s.Key {
				next.Hosts[j].Hostnames = s.Hostnames
			}
		}
		y, index, parts := encode(t, &next, x)
		changed := 0
		for j := range y.Parts {
			if y.Parts[j] != x.Parts[j] {
				changed++
			}
		}
		if changed != 1 || len(y.Parts) != len(x.Parts) {
			t.Fatalf("%d parts changed, of %d and %d", changed, len(x.Parts), len(y.Parts))
		}
		got, err := reader.Decode(index, parts)
		if err != nil {
			t.Fatal(err)
		}
		if !equal(t, &next, got) {
			t.Fatal("what is read is something else")
		}
		moved := 0
		for j := range got.Sites {
			if got.Sites[j] != was.Sites[j] {
				moved++
			}
		}
		if moved == 0 || moved > 2*256 {
			t.Errorf("%d sites have new pointers", moved)
		}
		was, x, b = got, y, &next
	}
}

func TestTheNumberOfPartsFollowsSlowly(t *testing.T) {
	var x *wire.Index
	for _, c := range []struct{ sites, parts int }{{1, 1}, {256, 1}, {257, 2}, {250, 2}, {128, 2}, {127, 1}, {600, 4}, {300, 4}, {255, 2}, {0, 0}} {
		x, _, _ = encode(t, shop(c.sites), x)
		if len(x.Parts) != c.parts {
			t.Errorf("%d sites: %d parts, and not %d", c.sites, len(x.Parts), c.parts)
		}
	}
}

func TestWhatCannotBeSentIsRefusedAtTheBeginning(t *testing.T) {
	for name, spoil := range map[string]func(*bundle.Bundle){
		"in the order":     func(b *bundle.Bundle) { b.Sites[0], b.Sites[1] = b.Sites[1], b.Sites[0] },
		"no name of":       func(b *bundle.Bundle) { b.Sites[9].Key = "tailor/z" },
		"not in the bundl": func(b *bundle.Bundle) { b.Sites[2].Routes[0].JWT = "none" },
		"is nothing":       func(b *bundle.Bundle) { b.Sites[2].JWT = map[string]*v1.JwtPolicySpec{"x": nil} },
		"two specs":        func(b *bundle.Bundle) { b.Sites[2].WAF["own"].Paranoia = 4 },
		"not UTF-8":        func(b *bundle.Bundle) { b.Sites[2].ErrorPages = []v1.ErrorPage{{Page: v1.Page{HTML: "\xff"}}} },
		"other hosts":      func(b *bundle.Bundle) { b.Hosts[0].Hostnames = []string{"bank.example"} },
		"has format":       func(b *bundle.Bundle) { b.Format++ },
		"has no pool":      func(b *bundle.Bundle) { b.Services = []bundle.Service{{Key: "shop/s"}} },
	} {
		b := shop(10)
		spoil(b)
		if _, _, err := wire.Encode(b, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func compress(t testing.TB, raw []byte) []byte {
	t.Helper()
	return compressor(t).EncodeAll(raw, nil)
}

func compressor(t testing.TB) *zstd.Encoder {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// made is an index with one part of a text, which is of any content.
func made(t testing.TB, raw string) ([]byte, [][]byte) {
	t.Helper()
	return indexOf(t, compress(t, []byte(raw)))
}

func indexOf(t testing.TB, blobs ...[]byte) ([]byte, [][]byte) {
	t.Helper()
	x := wire.Index{Format: wire.Format, Organization: "shop"}
	for _, b := range blobs {
		x.Parts = append(x.Parts, manifest.Ref{Digest: manifest.Of(b), Size: int64(len(b))})
	}
	index, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return index, blobs
}

func TestWhatIsWrongIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ raw, want string }{
		"another format":    {`{"format":2}`, "format that is not known: 2"},
		"nesting":           {`{"format":1,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "in one another"},
		"many values":       {`{"format":1,"sites":[` + strings.Repeat("1,", 500_000) + `1]}`, "values"},
		"a bomb":            {strings.Repeat(" ", wire.MaxPart+1), "are the most of a part"},
		"another's site":    {`{"format":1,"sites":[{"key":"bank/a"}]}`, "no name of"},
		"no name":           {`{"format":1,"sites":[{"key":"shop/"}]}`, "no name of"},
		"nothing":           {`{"format":1,"sites":[null]}`, "no name of"},
		"a site twice":      {`{"format":1,"sites":[{"key":"shop/a"},{"key":"shop/a"}]}`, "twice"},
		"a missing spec":    {`{"format":1,"sites":[{"key":"shop/a","use":{"waf":["x"]}}]}`, "no spec"},
		"a spec of nothing": {`{"format":1,"sites":[{"key":"shop/a","use":{"waf":["x"]}}],"specs":{"waf":{"x":null}}}`, "no spec"},
		"a spec in it":      {`{"format":1,"sites":[{"key":"shop/a","waf":{"x":{}}}]}`, "stand in it"},
		"a route's pool":    {`{"format":1,"sites":[{"key":"shop/a","routes":[{"pool":"web"}]}]}`, "not in the bundle"},
		"no JSON":           {`{"format":1`, "unexpected end"},
		"two values":        {`{"format":1}{}`, "after top-level"},
		"another's certificate": {
			`{"format":1,"sites":[{"key":"shop/a","hostnames":["a"],"certificates":["bank/c"]}]}`, "no name of",
		},
	} {
		index, parts := made(t, c.raw)
		if b, err := wire.Decode("shop", index, parts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %.200v", name, b, err)
		}
	}
	index, parts := made(t, `{"format":1}`)
	if _, err := wire.Decode("bank", index, parts); err == nil {
		t.Error("a bundle of another organization is read")
	}
	if _, err := wire.Decode("shop", index, [][]byte{append(parts[0], 0)}); err == nil {
		t.Error("a blob that is not the one of the index is read")
	}
	if _, err := wire.Decode("shop", bytes.Replace(index, []byte(`"format":1`), []byte(`"format":7`), 1), parts); !errors.Is(err, wire.ErrFormat) {
		t.Error(err)
	}
	b, err := wire.Decode("shop", bytes.Replace(index, []byte(`{`), []byte(`{"later":[1],`), 1), parts)
	if err != nil || len(b.Sites) != 0 {
		t.Error("a field of a later version:", err)
	}
}

func TestASiteInAnotherPartIsRefused(t *testing.T) {
	_, _, parts := encode(t, shop(600), nil)
	index, parts := indexOf(t, parts[1], parts[0], parts[2], parts[3])
	if _, err := wire.Decode("shop", index, parts); err == nil || !strings.Contains(err.Error(), "another part") {
		t.Error(err)
	}
}

// unpack gives the text of a blob.
func unpack(t testing.TB, blob []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	raw, err := z.DecodeAll(blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// mutate changes some bytes: it sets, removes, doubles and exchanges.
func mutate(r *rand.Rand, data []byte) []byte {
	data = slices.Clone(data)
	for range 1 + r.IntN(4) {
		if len(data) == 0 {
			break
		}
		i := r.IntN(len(data))
		j := min(len(data), i+1+r.IntN(20))
		switch r.IntN(5) {
		case 0:
			data[i] ^= 1 << r.IntN(8)
		case 1:
			data = slices.Delete(data, i, j)
		case 2:
			data = slices.Insert(data, i, slices.Clone(data[i:j])...)
		case 3:
			data[i] = `{}[]",:0n`[r.IntN(9)]
		case 4:
			k := r.IntN(len(data))
			data[i], data[k] = data[k], data[i]
		}
	}
	return data
}

func TestAMutatedBundleIsAnErrorOrABundle(t *testing.T) {
	small := shop(2)
	small.Listeners = []bundle.Listener{{Key: "shop/l", Certificates: []bundle.Key{small.Certificates[0].Key}}}
	good := mutated(t, small, 8_000) + mutated(t, full(rand.New(rand.NewPCG(3, 4))), 2_000)
	if good == 0 || good == 10_000 {
		t.Errorf("%d of 10,000 were read", good)
	}
}

// mutated reads a bundle with a head and a part in which something is changed, n times; some are good all the same.
func mutated(t *testing.T, b *bundle.Bundle, n int) (good int) {
	x, index, parts := encode(t, b, nil)
	if len(parts) != 2 {
		t.Fatalf("%d blobs", len(parts))
	}
	raws := [][]byte{unpack(t, parts[0]), unpack(t, parts[1])}
	r, z := rand.New(rand.NewPCG(5, 6)), compressor(t)
	for i := range n {
		at, y, blobs := r.IntN(2), *x, slices.Clone(parts)
		data := index
		switch i % 4 {
		case 0:
			data = mutate(r, index)
		case 1: // below the digests, in what is compressed
			blobs[at] = mutate(r, parts[at])
		default:
			blobs[at] = z.EncodeAll(mutate(r, raws[at]), nil)
		}
		if i%4 > 0 {
			ref := manifest.Ref{Digest: manifest.Of(blobs[at]), Size: int64(len(blobs[at]))}
			if at == 0 {
				y.Head = &ref
			} else {
				y.Parts = []manifest.Ref{ref}
			}
			data, _ = json.Marshal(&y)
		}
		good += oneOf(t, data, blobs)
	}
	return good
}

// oneOf checks that what is read, if it is, can be written and read again.
func oneOf(t testing.TB, index []byte, blobs [][]byte) int {
	t.Helper()
	b, err := wire.Decode("shop", index, blobs)
	if err != nil {
		return 0
	}
	again, parts, err := wire.Encode(b, nil)
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	if !equal(t, b, decode(t, "shop", again, parts)) {
		t.Fatal("what is read again is something else")
	}
	return 1
}

func FuzzDecode(f *testing.F) {
	for _, b := range []*bundle.Bundle{shop(3), full(rand.New(rand.NewPCG(1, 1)))} {
		_, index, parts := encode(f, b, nil)
		f.Add(index, unpack(f, parts[0]), parts[0])
	}
	f.Add([]byte(`{"format":1,"organization":"shop"}`), []byte(`{"format":1,"sites":[{"key":"shop/a"}]}`), []byte("\x28\xb5\x2f\xfd"))
	f.Fuzz(func(t *testing.T, index, raw, blob []byte) {
		oneOf(t, index, [][]byte{blob})
		made, parts := indexOf(t, compress(t, raw))
		oneOf(t, made, parts)
		made, parts = indexOf(t, blob)
		oneOf(t, made, parts)
	})
}
