package hpack

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/relais-edge/relais/internal/http/message"
)

// corpus gives the seeds of a target, kept one a file.
func corpus(f *testing.F, pattern string) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		f.Fatal("no corpus", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzDecode holds the decoder against its twin: the same fields and the same verdict for two
// blocks in a row, split at the first 0xff 0x00.
func FuzzDecode(f *testing.F) {
	corpus(f, "block-*")
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, theirs := NewDecoder(4096), hpack.NewDecoder(4096, nil)
		for block := range bytes.SplitSeq(in, []byte{0xff, 0x00}) {
			c := collector{t: t}
			err := ours.Decode(block, 1<<30, &c)
			want, twin := theirs.DecodeFull(block)
			if (err == nil) != (twin == nil) {
				if excused(block, err, twin) {
					return
				}
				t.Fatalf("we say %v, the twin %v: %x", err, twin, block)
			}
			if err != nil {
				return
			}
			if len(want) != len(c.lines) {
				t.Fatalf("%d fields, the twin has %d", len(c.lines), len(want))
			}
			for i, l := range c.lines {
				if w := want[i]; l.name != w.Name || l.value != w.Value || l.never != w.Sensitive {
					t.Fatalf("field %d is %v, the twin has %v", i, l, w)
				}
			}
		}
	})
}

// excused says where the twins may differ, which is on updates of the table's size. RFC 7541 section 4.2
// has one or two of them at the begin of a block: the twin takes late ones and more while the table is
// empty, and no second one while it is not.
func excused(block []byte, err, twin error) bool {
	if twin == nil {
		return errors.Is(err, ErrSizeUpdate) && slices.ContainsFunc(block[1:], isUpdate)
	}
	return strings.Contains(twin.Error(), "table size update MUST occur at the beginning") && isUpdate(block[0])
}

func isUpdate(b byte) bool { return b&0xe0 == 0x20 }

// FuzzEncode makes blocks of fields out of bytes, with changes of the table size in between, and
// lets the twin and ourselves decode them.
func FuzzEncode(f *testing.F) {
	corpus(f, "fields-*")
	f.Fuzz(func(t *testing.T, in []byte) {
		compress := len(in)%2 == 0
		e, ours, theirs := NewEncoder(2048, compress), NewDecoder(4096), hpack.NewDecoder(4096, nil)
		var want []line
		block := e.Begin(nil)
		check := func() {
			c := collector{t: t}
			if err := ours.Decode(block, 1<<30, &c); err != nil {
				t.Fatalf("ours: %v", err)
			}
			fields, err := theirs.DecodeFull(block)
			if err != nil {
				t.Fatalf("the twin: %v", err)
			}
			if len(fields) != len(want) || len(c.lines) != len(want) {
				t.Fatalf("%d and %d fields of %d", len(fields), len(c.lines), len(want))
			}
			for i, w := range want {
				if fields[i].Name != w.name || fields[i].Value != w.value || c.lines[i] != w && c.lines[i] != (line{w.name, w.value, true}) {
					t.Fatalf("field %d: %v and %v, want %v", i, c.lines[i], fields[i], w)
				}
			}
			if ours.t.live != e.t.live || ours.t.size != e.t.size {
				t.Fatal("the tables differ")
			}
			want = want[:0]
		}
		for text := range bytes.SplitSeq(in, []byte("\n")) {
			if size, ok := bytes.CutPrefix(text, []byte("=")); ok {
				check()
				e.SetPeerSize(uint32(len(size)) * 40)
				block = e.Begin(block[:0])
				continue
			}
			name, value, _ := bytes.Cut(text, []byte("="))
			low := strings.Map(asciiLower, string(name))
			if !isASCII(name) {
				continue
			}
			id := identify([]byte(low))
			if id == Unknown {
				continue
			}
			if id != message.Other && len(value)%3 == 0 {
				name = nil
			}
			if len(value)%5 == 4 {
				block = Append(block, id, name, value, compress)
			} else {
				block = e.Append(block, id, name, value)
			}
			want = append(want, line{low, string(value), false})
		}
		check()
	})
}

func isASCII(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return r >= 0x80 })
}

func asciiLower(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r | 0x20
	}
	return r
}

// FuzzHuffman holds the code against its twin in both directions.
func FuzzHuffman(f *testing.F) {
	corpus(f, "text-*")
	f.Fuzz(func(t *testing.T, in []byte) {
		enc := AppendHuffman(nil, in)
		if want := hpack.AppendHuffmanString(nil, string(in)); !bytes.Equal(enc, want) || HuffmanLen(in) != len(enc) {
			t.Fatalf("%x becomes %x, of %d bytes; the twin has %x", in, enc, HuffmanLen(in), want)
		}
		if dec, err := DecodeHuffman([]byte("x"), enc); err != nil || string(dec) != "x"+string(in) {
			t.Fatalf("%x comes back as %x, %v", in, dec, err)
		}
		dec, err := DecodeHuffman(nil, in)
		want, twin := hpack.HuffmanDecodeToString(in)
		if (err == nil) != (twin == nil) || err == nil && string(dec) != want {
			t.Fatalf("%x: %q, %v; the twin has %q, %v", in, dec, err, want, twin)
		}
	})
}

func TestHuffmanOfRandomStringsAgreesWithTheTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		in := make([]byte, r.IntN(40))
		for i := range in {
			in[i] = byte(r.Uint32() >> r.IntN(2))
		}
		enc := AppendHuffman(nil, in)
		if dec, err := DecodeHuffman(nil, enc); err != nil || !bytes.Equal(dec, in) {
			t.Fatalf("%x: %x, %v", in, dec, err)
		}
		dec, err := DecodeHuffman(nil, in)
		want, twin := hpack.HuffmanDecodeToString(in)
		if (err == nil) != (twin == nil) || err == nil && string(dec) != want {
			t.Fatalf("%x: %q, %v; the twin has %q, %v", in, dec, err, want, twin)
		}
	}
}
