package hpack

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/relais-edge/relais/internal/http/message"
)

type line struct {
	name, value string
	never       bool
}

// collector is a Sink that keeps what it is given and checks the promise of the ids.
type collector struct {
	t     testing.TB
	lines []line
	err   error
}

func (c *collector) Field(id message.ID, name, value []byte, is Traits) error {
	switch {
	case id == Unknown:
		if name[0] != ':' {
			c.t.Errorf("%q is no pseudo-header field", name)
		}
	case IsPseudo(id):
		if pseudo(name) != id {
			c.t.Errorf("%q has id %d", name, id)
		}
	case id != message.Other:
		if string(name) != id.Lower() {
			c.t.Errorf("%q has id of %q", name, id.Lower())
		}
	}
	c.lines = append(c.lines, line{string(name), string(value), is&Never != 0})
	return c.err
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheIDsOfPseudoFieldsStandAboveTheKnownNames(t *testing.T) {
	for i := 1; i < int(Unknown); i++ {
		func() {
			defer func() { _ = recover() }() // past the last known name
			if id := message.ID(i); message.KnownID([]byte(id.String())) != id {
				t.Errorf("id %d", i)
			}
		}()
	}
	defer func() {
		if recover() == nil {
			t.Error("a known name has the id of a pseudo-header field")
		}
	}()
	_ = Unknown.String()
}

func TestTheStaticTableIsThatOfRFC7541AppendixA(t *testing.T) {
	theirs := hpack.NewDecoder(4096, nil)
	for i := 1; i <= numStatic; i++ {
		f, err := theirs.DecodeFull([]byte{0x80 | byte(i)})
		if err != nil || f[0].Name != string(static[i].name) || f[0].Value != string(static[i].value) {
			t.Errorf("entry %d: %v, %v", i, f, err)
		}
	}
}

// The three examples of RFC 7541 appendix C.3 to C.6: one decoder for a sequence of blocks.
func TestExamplesOfRFC7541AppendixC(t *testing.T) {
	for name, tc := range map[string]struct {
		size   uint32
		blocks []string
		want   [][]line
		after  uint32
	}{
		"C.4 requests with Huffman": {4096, []string{
			"828684418cf1e3c2e5f23a6ba0ab90f4ff",
			"828684be5886a8eb10649cbf",
			"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
		}, [][]line{
			{{":method", "GET", false}, {":scheme", "http", false}, {":path", "/", false}, {":authority", "www.example.com", false}},
			{{":method", "GET", false}, {":scheme", "http", false}, {":path", "/", false}, {":authority", "www.example.com", false}, {"cache-control", "no-cache", false}},
			{{":method", "GET", false}, {":scheme", "https", false}, {":path", "/index.html", false}, {":authority", "www.example.com", false}, {"custom-key", "custom-value", false}},
		}, 164},
		"C.5 answers that evict": {256, []string{
			"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
			"4803333037c1c0bf",
			"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
		}, [][]line{
			{{":status", "302", false}, {"cache-control", "private", false}, {"date", "Mon, 21 Oct 2013 20:13:21 GMT", false}, {"location", "https://www.example.com", false}},
			{{":status", "307", false}, {"cache-control", "private", false}, {"date", "Mon, 21 Oct 2013 20:13:21 GMT", false}, {"location", "https://www.example.com", false}},
			{{":status", "200", false}, {"cache-control", "private", false}, {"date", "Mon, 21 Oct 2013 20:13:22 GMT", false}, {"location", "https://www.example.com", false}, {"content-encoding", "gzip", false}, {"set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1", false}},
		}, 215},
		"C.2.3 never indexed": {4096, []string{"100870617373776f726406736563726574"}, [][]line{{{"password", "secret", true}}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(tc.size)
			d.t.setMax(tc.size)
			for i, b := range tc.blocks {
				c := collector{t: t}
				if err := d.Decode(unhex(t, b), 1<<16, &c); err != nil {
					t.Fatal(err)
				}
				if len(c.lines) != len(tc.want[i]) {
					t.Fatalf("block %d: %v", i, c.lines)
				}
				for j, l := range c.lines {
					if l != tc.want[i][j] {
						t.Errorf("block %d: %v, want %v", i, l, tc.want[i][j])
					}
				}
			}
			if d.t.size != tc.after {
				t.Errorf("table size %d, want %d", d.t.size, tc.after)
			}
		})
	}
}

func TestMalformedBlocksAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		block string
		want  error
	}{
		"index 0":                        {"80", ErrIndex},
		"index past the tables":          {"be", ErrIndex},
		"name index past the tables":     {"7f0000", ErrIndex},
		"integer past 62 bits":           {"ffffffffffffffffffffff7f", ErrInteger},
		"integer without end":            {"ffffffffffffffffffffffffff", ErrInteger},
		"integer cut short":              {"ffff", ErrTruncated},
		"string longer than the block":   {"0005616263", ErrTruncated},
		"name without value":             {"000161", ErrTruncated},
		"no name":                        {"40", ErrTruncated},
		"string of 2^40 bytes":           {"007f81ffffffff1f61", ErrTruncated},
		"Huffman padding of zeros":       {"008118 00", ErrHuffman},
		"Huffman padding of a byte":      {"00821fff 00", ErrHuffman},
		"Huffman with the end mark":      {"0084ffffffff 00", ErrHuffman},
		"Huffman cut within a code":      {"0081fe 00", ErrHuffman},
		"size update past what we allow": {"3fe21f", ErrSizeUpdate},
		"size update after a field":      {"8220", ErrSizeUpdate},
		"three size updates":             {"202020", ErrSizeUpdate},
		"size update of 2^50":            {"3fffffffffffffff03", ErrSizeUpdate},
	} {
		t.Run(name, func(t *testing.T) {
			c := collector{t: t}
			err := NewDecoder(4096).Decode(unhex(t, tc.block), 1<<16, &c)
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			var ce CompressionError
			if !errors.As(err, &ce) {
				t.Errorf("%v does not cost the connection", err)
			}
		})
	}
}

func TestTwoSizeUpdatesMayBeginABlock(t *testing.T) {
	d := NewDecoder(4096)
	c := collector{t: t}
	if err := d.Decode(unhex(t, "4001610162 20 3f01 82")[:5], 1<<16, &c); err != nil || d.t.live != 1 {
		t.Fatal(err, d.t.live)
	}
	if err := d.Decode(unhex(t, "20 3fe11f 82"), 1<<16, &c); err != nil {
		t.Fatal(err)
	}
	if d.t.live != 0 || d.t.max != 4096 || len(c.lines) != 2 {
		t.Error(d.t.live, d.t.max, c.lines)
	}
}

func TestAPeerMustShrinkItsTableOnceWeAskedSo(t *testing.T) {
	d := NewDecoder(4096)
	d.SetAllowed(100)
	if err := d.Decode([]byte{0x82}, 1<<16, &collector{t: t}); !errors.Is(err, ErrSizeUpdate) {
		t.Errorf("got %v", err)
	}
	if err := d.Decode(unhex(t, "3f4582"), 1<<16, &collector{t: t}); err != nil {
		t.Errorf("got %v", err)
	}
	if err := d.Decode([]byte{0x82}, 1<<16, &collector{t: t}); err != nil {
		t.Errorf("got %v", err)
	}
}

// A block of one long field in the table and then references to it.
func TestABombIsStoppedAndTheTablesStillAgree(t *testing.T) {
	e := NewEncoder(4096, false)
	long := []byte(strings.Repeat("v", 500))
	var block []byte
	for range 1000 {
		block = e.Append(block, message.UserAgent, nil, long)
	}
	if len(block) > 3000 {
		t.Fatalf("the bomb has %d bytes", len(block))
	}
	d := NewDecoder(4096)
	c := collector{t: t}
	if err := d.Decode(block, 10_000, &c); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if len(c.lines) > 18 {
		t.Errorf("%d fields were handed over", len(c.lines))
	}
	c = collector{t: t}
	if err := d.Decode(e.Append(nil, message.UserAgent, nil, long), 10_000, &c); err != nil || len(c.lines) != 1 || c.lines[0].value != string(long) {
		t.Errorf("%v, %v", err, c.lines)
	}
}

func TestAnErrorOfTheSinkKeepsTheTablesInAgreement(t *testing.T) {
	d := NewDecoder(4096)
	want := errors.New("no")
	c := collector{t: t, err: want}
	if err := d.Decode(unhex(t, "82 4001610162"), 1<<16, &c); !errors.Is(err, want) || len(c.lines) != 1 {
		t.Fatal(err, c.lines)
	}
	c = collector{t: t}
	if err := d.Decode([]byte{0xbe}, 1<<16, &c); err != nil || c.lines[0] != (line{"a", "b", false}) {
		t.Error(err, c.lines)
	}
}

func TestAnUpperCaseNameHasNoID(t *testing.T) {
	for _, name := range []string{"Content-Type", "content-Type", ":Method", "TE"} {
		block := append(AppendInt([]byte{0}, 0, 7, uint64(len(name))), name...)
		c := sinkFunc(func(id message.ID, n, _ []byte, _ Traits) error {
			if id != message.Other && id != Unknown {
				t.Errorf("%q has id %d", n, id)
			}
			return nil
		})
		if err := NewDecoder(4096).Decode(append(block, 0), 1<<16, c); err != nil {
			t.Error(err)
		}
	}
}

type sinkFunc func(id message.ID, name, value []byte, is Traits) error

func (f sinkFunc) Field(id message.ID, name, value []byte, is Traits) error {
	return f(id, name, value, is)
}

func TestAFieldIsTakenOnceASinkHasTakenIt(t *testing.T) {
	d := NewDecoder(4096)
	added := []byte{0x40, 1, 'a', 1, 'b'} // "a: b" enters the table
	refuse := errors.New("refused")
	for i, step := range []struct {
		block []byte
		sink  error
		none  bool
		want  Traits
	}{
		{block: added, sink: refuse},
		{block: []byte{0xbe}}, // refused before: not taken
		{block: []byte{0xbe}, want: Taken},
		{block: added, none: true}, // a second entry, which no sink has seen
		{block: []byte{0xbe}},
		{block: []byte{0xbf}, want: Taken},
		{block: []byte{0x82}, want: Taken}, // :method GET of the static table
		{block: []byte{0x10, 1, 'a', 1, 'b'}, want: Never},
	} {
		var sink Sink
		if !step.none {
			sink = sinkFunc(func(_ message.ID, _, _ []byte, is Traits) error {
				if is != step.want {
					t.Errorf("step %d: %d, want %d", i, is, step.want)
				}
				return step.sink
			})
		}
		if err := d.Decode(step.block, 1<<16, sink); err != step.sink {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

func TestSensitiveFieldsAreNeverIndexed(t *testing.T) {
	for _, tc := range []struct {
		id    message.ID
		value string
		never bool
	}{
		{message.Authorization, strings.Repeat("x", 100), true},
		{message.ProxyAuthorization, "Basic eDp5", true},
		{message.Cookie, "pin=1234", true},
		{message.SetCookie, "pin=1234", true},
		{message.Cookie, strings.Repeat("x", 100), false},
		{message.Accept, "*/*", false},
	} {
		e := NewEncoder(4096, true)
		d := NewDecoder(4096)
		for range 3 {
			c := collector{t: t}
			if err := d.Decode(e.Append(nil, tc.id, nil, []byte(tc.value)), 1<<16, &c); err != nil {
				t.Fatal(err)
			}
			if c.lines[0].never != tc.never {
				t.Errorf("%v %q: never is %t", tc.id, tc.value, c.lines[0].never)
			}
		}
		if tc.id != message.Accept && e.t.live != 0 {
			t.Errorf("%v %q is in the table", tc.id, tc.value)
		}
	}
}

func TestTheEncoderFollowsThePeersTableSize(t *testing.T) {
	e, d := NewEncoder(4096, true), NewDecoder(4096)
	send := func(update string) {
		t.Helper()
		b := e.Begin(nil)
		if got := hex.EncodeToString(b); got != update {
			t.Errorf("update %q, want %q", got, update)
		}
		for range 3 {
			b = e.Append(b, message.Server, nil, []byte("shop"))
			b = e.Append(b, message.Other, []byte("X-Shop"), []byte("blue"))
		}
		c := collector{t: t}
		if err := d.Decode(b, 1<<16, &c); err != nil {
			t.Fatal(err)
		}
		for i, l := range c.lines {
			if want := []line{{"server", "shop", false}, {"x-shop", "blue", false}}[i%2]; l != want {
				t.Errorf("%v, want %v", l, want)
			}
		}
		if d.t.live != e.t.live || d.t.size != e.t.size || d.t.max != e.t.max {
			t.Errorf("theirs %d of %d, ours %d of %d", d.t.size, d.t.max, e.t.size, e.t.max)
		}
	}
	send("")
	e.SetPeerSize(0)
	e.SetPeerSize(100)
	send("20")
	send("3f45")
	e.SetPeerSize(0)
	send("20")
	send("")
	e.SetPeerSize(1 << 30)
	send("3fe11f")
	e.SetPeerSize(4096)
	send("")
}

func TestAStatelessBlockNeedsNoTable(t *testing.T) {
	var b []byte
	b = AppendStatus(b, 200)
	b = AppendStatus(b, 418)
	b = Append(b, message.ContentType, nil, []byte("text/html"), true)
	b = Append(b, message.XRequestId, nil, []byte("1"), true)
	b = Append(b, message.Other, []byte("X-Shop"), []byte("blue"), true)
	b = Append(b, message.Other, bytes.Repeat([]byte("X"), 100), []byte("blue"), true)
	b = Append(b, Protocol, nil, []byte("websocket"), true)
	b = Append(b, message.Other, []byte("X-Plain"), []byte("blue"), false)
	d := NewDecoder(0)
	c := collector{t: t}
	if err := d.Decode(b, 1<<16, &c); err != nil {
		t.Fatal(err)
	}
	want := []line{
		{":status", "200", false},
		{":status", "418", false},
		{"content-type", "text/html", false},
		{"x-request-id", "1", false},
		{"x-shop", "blue", false},
		{strings.Repeat("x", 100), "blue", false},
		{":protocol", "websocket", false},
		{"x-plain", "blue", false},
	}
	for i, l := range c.lines {
		if l != want[i] {
			t.Errorf("%v, want %v", l, want[i])
		}
	}
	if d.t.live != 0 {
		t.Error("the block changed the table")
	}
}

func TestTheTableKeepsItsMemoryBounded(t *testing.T) {
	e, d := NewEncoder(4096, false), NewDecoder(4096)
	for i := range 100_000 {
		v := AppendInt(nil, 0, 1, uint64(i))
		for range 2 {
			if err := d.Decode(e.Append(nil, message.Other, []byte("x-number"), v), 1<<16, &collector{t: t}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, x := range []*table{&d.t, &e.t} {
		if cap(x.arena) > 4*4096 || len(x.ring) > 128 || x.size > 4096 {
			t.Errorf("arena of %d, ring of %d, size %d", cap(x.arena), len(x.ring), x.size)
		}
	}
	if e.t.live == 0 {
		t.Error("nothing was put into the table")
	}
}
