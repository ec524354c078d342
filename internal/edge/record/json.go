package record

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// line builds one JSON object in memory that is kept.
type line struct {
	buf    []byte
	second int64
	clock  [20]byte // 2006-01-02T15:04:05. of second
}

// Keys are written whole, with what stands before and after them: `,"status":`.

func (l *line) raw(s string) { l.buf = append(l.buf, s...) }

func (l *line) end() []byte {
	l.buf = append(l.buf, '}', '\n')
	return l.buf
}

func (l *line) str(key, v string) {
	if v != "" {
		l.buf = appendQuoted(append(l.buf, key...), v)
	}
}

func (l *line) bytes(key string, v []byte) {
	if len(v) > 0 {
		l.buf = appendQuoted(append(l.buf, key...), v)
	}
}

func (l *line) num(key string, v int64) {
	l.buf = strconv.AppendInt(append(l.buf, key...), v, 10)
}

// millis writes d in milliseconds with three decimals.
func (l *line) millis(key string, d time.Duration) {
	l.raw(key)
	us := max(d.Microseconds(), 0)
	l.buf = strconv.AppendInt(l.buf, us/1000, 10)
	us %= 1000
	l.buf = append(l.buf, '.', byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
}

// time begins the line with t as RFC 3339 with milliseconds, in UTC.
func (l *line) time(key string, t time.Time) {
	l.buf = append(l.buf[:0], key...)
	if s := t.Unix(); s != l.second || l.clock[0] == 0 {
		l.second = s
		t.UTC().AppendFormat(l.clock[:0], "2006-01-02T15:04:05.")
	}
	ms := t.Nanosecond() / 1e6
	l.buf = append(l.buf, '"')
	l.buf = append(l.buf, l.clock[:]...)
	l.buf = append(l.buf, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z', '"')
}

const hexDigits = "0123456789abcdef"

// plain are the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendQuoted appends v as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendQuoted[T string | []byte](dst []byte, v T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(v); {
		c := v[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, n := decodeRune(v[i:]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, v[start:i]...)
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= utf8.RuneSelf:
			dst = append(dst, "\ufffd"...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, v[start:]...)
	return append(dst, '"')
}

func decodeRune[T string | []byte](v T) (rune, int) {
	var b [utf8.UTFMax]byte
	return utf8.DecodeRune(b[:copy(b[:], v)])
}
