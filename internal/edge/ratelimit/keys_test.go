package ratelimit

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// request is an exchange with a path, fields as name and value in turn, and a body.
func request(site *snapshot.Site, client, path, body string, fields ...string) *stage.Exchange {
	x := exchange(site, client, fields...)
	x.Path = []byte(path)
	if body != "" {
		x.In.AddString(message.ContentType, "application/json")
		x.In.Body = &text{chunks: strings.SplitAfter(body, ",")}
	}
	return x
}

// text is a body in chunks.
type text struct{ chunks []string }

func (b *text) Next(context.Context) ([]byte, error) {
	if len(b.chunks) == 0 {
		return nil, io.EOF
	}
	c := b.chunks[0]
	b.chunks = b.chunks[1:]
	return []byte(c), nil
}

func (b *text) Close(error) {}

func TestEveryKindOfKeyIsCountedApart(t *testing.T) {
	site := func(keys ...v1.RateLimitKey) v1.RateLimitSpec {
		return v1.RateLimitSpec{Requests: 1, Per: v1.Duration(time.Hour), Keys: keys}
	}
	type req struct{ client, path, body, auth string }
	for _, c := range []struct {
		name string
		spec v1.RateLimitSpec
		a, b req
		same bool
	}{
		{"network /24", site(v1.RateLimitKey{On: "network"}), req{client: "192.0.2.1"}, req{client: "192.0.2.200"}, true},
		{"another /24", site(v1.RateLimitKey{On: "network"}), req{client: "192.0.2.1"}, req{client: "192.0.3.1"}, false},
		{"network /20", site(v1.RateLimitKey{On: "network", IPv4: 20}), req{client: "192.0.2.1"}, req{client: "192.0.15.1"}, true},
		{"another /20", site(v1.RateLimitKey{On: "network", IPv4: 20}), req{client: "192.0.2.1"}, req{client: "192.0.16.1"}, false},
		{"network /48", site(v1.RateLimitKey{On: "network"}), req{client: "2001:db8:1:2::1"}, req{client: "2001:db8:1:ff::1"}, true},
		{"another /48", site(v1.RateLimitKey{On: "network"}), req{client: "2001:db8:1::1"}, req{client: "2001:db8:2::1"}, false},
		{"token", site(v1.RateLimitKey{On: "token"}), req{client: "192.0.2.1", auth: "Bearer abc"}, req{client: "192.0.2.2", auth: "bearer  abc"}, true},
		{"another token", site(v1.RateLimitKey{On: "token"}), req{client: "192.0.2.1", auth: "Bearer abc"}, req{client: "192.0.2.1", auth: "Bearer abd"}, false},
		{"path", site(v1.RateLimitKey{On: "path"}), req{client: "192.0.2.1", path: "/a"}, req{client: "192.0.2.2", path: "/a"}, true},
		{"another path", site(v1.RateLimitKey{On: "path"}), req{client: "192.0.2.1", path: "/a"}, req{client: "192.0.2.1", path: "/b"}, false},
		{"JSON field", site(v1.RateLimitKey{On: "json", Name: "user.email"}), req{client: "192.0.2.1", body: `{"n":1,"user":{"x":[1,2,{"email":3}],"email":"a@b"}}`}, req{client: "192.0.2.2", body: `{"user":{"email":"a@b"},"z":0}`}, true},
		{"another JSON field", site(v1.RateLimitKey{On: "json", Name: "user"}), req{client: "192.0.2.1", body: `{"user":"a"}`}, req{client: "192.0.2.1", body: `{"user":"b"}`}, false},
		{"no such field is by client", site(v1.RateLimitKey{On: "json", Name: "user"}), req{client: "192.0.2.1", body: `{"you":"a"}`}, req{client: "192.0.2.1", body: `[]`}, true},
		{"address and path", site(v1.RateLimitKey{On: "client"}, v1.RateLimitKey{On: "path"}), req{client: "192.0.2.1", path: "/a"}, req{client: "192.0.2.1", path: "/b"}, false},
		{"address and path again", site(v1.RateLimitKey{On: "client"}, v1.RateLimitKey{On: "path"}), req{client: "192.0.2.1", path: "/a"}, req{client: "192.0.2.1", path: "/a"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, site := compiled(t, observe.New(), c.spec)
			for i, r := range []req{c.a, c.b} {
				x := request(site, r.client, r.path, r.body)
				if r.auth != "" {
					x.In.AddString(message.Authorization, r.auth)
				}
				_, err := serve(st, x)
				if refused := err != nil; refused != (i == 1 && c.same) {
					t.Errorf("request %d: %v", i, err)
				}
				if r.body != "" {
					if got := whole(t, x.In.Body); got != r.body {
						t.Errorf("the body came as %q", got)
					}
				}
			}
		})
	}
}

func whole(t *testing.T, b message.Body) string {
	t.Helper()
	var out bytes.Buffer
	for {
		chunk, err := b.Next(t.Context())
		out.Write(chunk)
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// respond answers with a status.
type respond int

func (s respond) Serve(context.Context, *stage.Exchange) (*message.Response, error) {
	r := &message.Response{}
	r.Status = int(s)
	return r, nil
}

func TestOnlyAnswersOfSomeStatusesCount(t *testing.T) {
	st, site := compiled(t, observe.New(), v1.RateLimitSpec{Requests: 2, Per: v1.Duration(time.Hour), Statuses: []string{"401", "429"}})
	for i, c := range []struct {
		status  respond
		refused bool
	}{{200, false}, {200, false}, {200, false}, {401, false}, {200, false}, {401, false}, {401, true}, {200, true}} {
		_, err := st.Serve(t.Context(), exchange(site, "192.0.2.1"), c.status)
		if (err != nil) != c.refused {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if _, err := st.Serve(t.Context(), exchange(site, "192.0.2.2"), respond(200)); err != nil {
		t.Errorf("another client: %v", err)
	}
}

func TestABasketIsSparedUpToItsCeiling(t *testing.T) {
	three := 3
	st, site := compiled(t, observe.New(), v1.RateLimitSpec{Requests: 2, Per: v1.Duration(time.Hour), BasketCeiling: &three})
	passed := 0
	for range 20 {
		x := exchange(site, "192.0.2.1")
		x.Visitor = stage.Visitor{Class: stage.Protected, Key: 7}
		if _, err := serve(st, x); err == nil {
			passed++
		}
	}
	if passed != 6 {
		t.Errorf("%d passed, want three times two", passed)
	}
}

func TestSharedLimitsCountWhatTheOthersTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Memory
		secret := [2]uint64{1, 2}
		spec := v1.RateLimitSpec{Requests: 10, Per: v1.Duration(time.Hour), Shared: true}
		var stages []*Stage
		var sites []*snapshot.Site
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			bus := m.Join()
			st := New(2, Config{Entries: 1024, Bus: bus, Secret: secret}, observe.New())
			site := newSite(map[string]*v1.RateLimitSpec{"l": &spec}, "l")
			p, err := st.Compile(site, nil)
			if err != nil {
				t.Fatal(err)
			}
			site.Parts[2] = p
			stages, sites = append(stages, st), append(sites, site)
			go func() { _ = st.Run(ctx) }()
		}
		passed := 0
		for i := range 40 {
			if _, err := serve(stages[i%3], exchange(sites[i%3], "192.0.2.1")); err == nil {
				passed++
			}
			time.Sleep(2 * publishEvery)
		}
		if passed != 10 {
			t.Errorf("%d passed at three edges, want 10", passed)
		}
		if _, err := serve(stages[0], exchange(sites[0], "192.0.2.2")); err != nil {
			t.Errorf("another client: %v", err)
		}
		cancel()
		synctest.Wait()
	})
}

func TestSipHashIsThatOfItsPaper(t *testing.T) {
	// Appendix A: the key 00..0f and the message 00..0e.
	b, _ := hex.DecodeString("000102030405060708090a0b0c0d0e")
	if got := sipHash(&[2]uint64{0x0706050403020100, 0x0f0e0d0c0b0a0908}, b); got != 0xa129ca6149be45e5 {
		t.Errorf("%x", got)
	}
}

// The oracle is encoding/json, as far as it reads what is whole and not deep.
func FuzzJSONField(f *testing.F) {
	for _, s := range []string{
		`{"a":"b"}`, `{"a":{"b":1}}`, `{`, `{"a"`, `{"a":[[[[`, `{"a":"\"","a":2}`, ` { "x" : [ 1 , {} ] , "a" : null } `,
		`{"\u0061":"\u0062@c"}`, `{"a":"\ud83d\ude00\/"}`, `{"a":1,"a":"b"}`, `{"a":"b","a":{}}`, `{"b":"\\","a":"c"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, path := range []string{"a", "a.b", "", "."} {
			v := jsonField(text, path)
			if len(v) > 3*len(text) {
				t.Fatal("longer than its text")
			}
		}
		var all map[string]json.RawMessage
		if !utf8.Valid(text) || bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) >= maxDepth || json.Unmarshal(text, &all) != nil {
			return
		}
		want := ""
		if raw := all["a"]; len(raw) > 0 && raw[0] == '"' {
			_ = json.Unmarshal(raw, &want)
		} else if len(raw) > 0 && raw[0] != '{' && raw[0] != '[' {
			want = string(raw)
		}
		if got := string(jsonField(text, "a")); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}
