package qpack

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	twin "github.com/quic-go/qpack"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// read reads a whole section; ok is false when it is refused.
func read(r *Reader, block []byte) (lines []twin.HeaderField, err error) {
	if err := r.Reset(block); err != nil {
		return nil, err
	}
	var l Line
	for {
		more, err := r.Next(&l)
		if err != nil || !more {
			return lines, err
		}
		lines = append(lines, twin.HeaderField{Name: string(l.Name), Value: string(l.Value)})
	}
}

// readTwin reads a section as the twin does.
func readTwin(block []byte) (lines []twin.HeaderField, err error) {
	next := twin.NewDecoder().Decode(block)
	for {
		f, err := next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, f)
	}
}

func equal(a, b []twin.HeaderField) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestRFC9204AppendixAStaticTable(t *testing.T) {
	for i, e := range static {
		block := hpack.AppendInt([]byte{0, 0}, indexedStatic, 6, uint64(i))
		want, err := readTwin(block)
		if err != nil || len(want) != 1 || want[0].Name != string(e.name) || want[0].Value != string(e.value) {
			t.Errorf("%d is %s: %s, the twin has %v %v", i, e.name, e.value, want, err)
		}
		if id := identify(e.name); id != e.id {
			t.Errorf("%d has id %d, its name has %d", i, e.id, id)
		}
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	b := AppendPrefix(nil)
	b = AppendStatus(b, 200)
	b = AppendStatus(b, 418)
	b = Append(b, message.ContentType, []byte("text/html; charset=utf-8"))
	b = Append(b, message.ContentType, []byte("text/x"))
	b = Append(b, message.XRequestId, []byte(strings.Repeat("i", 200)))
	b = Append(b, message.SetCookie, []byte("a=1"))
	b = Append(b, message.ProxyAuthorization, []byte("b"))
	b = AppendLine(b, []byte("X-Other-And-Long-Name"), []byte(""))
	b = AppendRequest(b, []byte("GET"), []byte("https"), []byte("a"), []byte("/x"), []byte("websocket"))
	want := []twin.HeaderField{
		{Name: ":status", Value: "200"},
		{Name: ":status", Value: "418"},
		{Name: "content-type", Value: "text/html; charset=utf-8"},
		{Name: "content-type", Value: "text/x"},
		{Name: "x-request-id", Value: strings.Repeat("i", 200)},
		{Name: "set-cookie", Value: "a=1"},
		{Name: "proxy-authorization", Value: "b"},
		{Name: "x-other-and-long-name"},
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "a"},
		{Name: ":path", Value: "/x"},
		{Name: ":protocol", Value: "websocket"},
	}
	for who, f := range map[string]func([]byte) ([]twin.HeaderField, error){
		"we": func(b []byte) ([]twin.HeaderField, error) { return read(new(Reader), b) }, "the twin": readTwin,
	} {
		if got, err := f(b); err != nil || !equal(got, want) {
			t.Errorf("%s read %v %v", who, got, err)
		}
	}
}

func TestRFC9204Section713WhatIsSecretIsNeverIndexed(t *testing.T) {
	if b := Append(nil, message.SetCookie, []byte("a")); b[0]&0xe0 != 0x60 {
		t.Errorf("%x", b)
	}
	if b := Append(nil, message.ProxyAuthorization, []byte("a")); b[0]&0xf0 != 0x30 {
		t.Errorf("%x", b)
	}
	if b := Append(nil, message.Server, []byte("a")); b[0]&0x20 != 0 {
		t.Errorf("%x", b)
	}
}

func TestRefusedSections(t *testing.T) {
	for _, tt := range []struct {
		name  string
		block string
		want  error
	}{
		{"RFC 9204 section 4.5.1: no prefix", "", ErrTruncated},
		{"RFC 9204 section 4.5.1: half a prefix", "\x00", ErrTruncated},
		{"RFC 9204 section 4.5.1.1: an insert count", "\x01\x00", ErrDynamic},
		{"RFC 9204 section 4.5.1.2: a base below zero", "\x00\x80", ErrDynamic},
		{"RFC 9204 section 4.5.2: a dynamic index", "\x00\x00\x80", ErrDynamic},
		{"RFC 9204 section 4.5.2: an index too large", "\x00\x00\xff\x24", ErrIndex},
		{"RFC 9204 section 4.5.3: a post-base index", "\x00\x00\x10", ErrDynamic},
		{"RFC 9204 section 4.5.4: a dynamic name", "\x00\x00\x40\x00", ErrDynamic},
		{"RFC 9204 section 4.5.4: no value", "\x00\x00\x51", ErrTruncated},
		{"RFC 9204 section 4.5.5: a post-base name", "\x00\x00\x00\x00", ErrDynamic},
		{"RFC 9204 section 4.5.6: a name cut short", "\x00\x00\x23ab", ErrTruncated},
		{"RFC 9204 section 4.5.6: a value cut short", "\x00\x00\x21a\x02b", ErrTruncated},
		{"RFC 9204 section 4.1.1: an endless integer", "\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", ErrTruncated},
		{"RFC 9204 section 4.1.2: Huffman padding of zeros", "\x00\x00\x51\x81\x00", ErrHuffman},
	} {
		if _, err := read(new(Reader), []byte(tt.block)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	var b bytes.Buffer
	e := twin.NewEncoder(&b)
	for _, f := range []twin.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":path", Value: "/a/long/path?with=query"},
		{Name: "user-agent", Value: "Mozilla/5.0 (X11; Linux x86_64)"},
		{Name: "x-other", Value: "1"},
	} {
		_ = e.WriteField(f)
	}
	var r Reader
	var l Line
	var out []byte
	if n := testing.AllocsPerRun(100, func() {
		_ = r.Reset(b.Bytes())
		for {
			if more, err := r.Next(&l); err != nil || !more {
				break
			}
		}
		out = AppendStatus(AppendPrefix(out[:0]), 200)
		out = Append(out, message.CacheControl, []byte("max-age=60"))
		out = AppendLine(out, []byte("X-Other"), []byte("1"))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzReaderAgainstTwin(f *testing.F) {
	f.Add([]byte{0, 0, 0xd1, 0xd7, 0x50, 0x01, 'a', 0xc1})
	f.Add([]byte("\x00\x00\x51\x85\x60\xd5\x48\x5f\x2b"))
	f.Add([]byte("\x00\x00\x23abc\x02de"))
	f.Add([]byte("\x00\x00\x2a\x1c\x64\x81\x0f"))
	f.Add([]byte("\x00\x05\xff\x24"))
	f.Add([]byte("\x02\x00\x80"))
	f.Fuzz(func(t *testing.T, block []byte) {
		got, err := read(new(Reader), block)
		want, werr := readTwin(block)
		if err == nil && werr == nil && !equal(got, want) {
			t.Fatalf("we read %q, the twin %q", got, want)
		}
		if (err == nil) != (werr == nil) && !excused(block, err, werr) {
			t.Fatalf("we say %v, the twin %v", err, werr)
		}
		total := 0
		for _, l := range got {
			total += len(l.Name) + len(l.Value)
		}
		if most := longestStatic() * len(block); total > most { // a byte is a line of the table at most
			t.Fatalf("%d bytes came of %d", total, len(block))
		}
	})
}

// longestStatic is the length of the longest line of the static table.
func longestStatic() int {
	n := 0
	for _, e := range static {
		n = max(n, len(e.name)+len(e.value))
	}
	return n
}

// excused says where the twins may differ, which is on the Base (RFC 9204 section 4.5.1.2): without dynamic
// entries it may be anything, and the twin wants 0; it must not be below 0, and the twin does not see that of
// a Delta Base of 0.
func excused(block []byte, err, werr error) bool {
	if len(block) < 2 {
		return false
	}
	if werr != nil {
		return block[1] != 0 && strings.Contains(werr.Error(), "Base")
	}
	return errors.Is(err, ErrDynamic) && block[1] == 0x80
}

func FuzzWriterAgainstTwin(f *testing.F) {
	f.Add("x-a", "1", uint8(3))
	f.Add("content-type", "text/css", uint8(message.ContentType))
	f.Fuzz(func(t *testing.T, name, value string, status uint8) {
		if name == "" || strings.ToLower(name) != name || strings.HasPrefix(name, ":") {
			return
		}
		for i := range len(name) {
			if name[i] >= 0x80 {
				return
			}
		}
		b := AppendStatus(AppendPrefix(nil), 100+int(status))
		if id := message.KnownID([]byte(name)); id != message.Other {
			b = Append(b, id, []byte(value))
		} else {
			b = AppendLine(b, []byte(name), []byte(value))
		}
		got, err := readTwin(b)
		if err != nil || len(got) != 2 || got[1].Name != name || got[1].Value != value {
			t.Fatalf("the twin read %q %v", got, err)
		}
	})
}
