package forecast

import (
	"bytes"
	"encoding/json"
	"math"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// logLine is what a forecast wants of a line of the access log. The texts are parts of the line.
type logLine struct {
	minute  int64 // Unix time in minutes
	seconds float64
	millis  float64
	status  int
	site    []byte
	pool    []byte
	tier    []byte
	spill   []byte
	code    []byte
	class   stage.Class
	service bool
}

// lineReader reads lines. It remembers the minute that it saw last, as most lines are of the same.
type lineReader struct {
	text   [16]byte // 2006-01-02T15:04
	minute int64
}

// read takes a line apart. It is false for what is not one JSON object of texts, numbers and the like, with a time.
// Fields that a forecast does not want are passed over.
func (r *lineReader) read(b []byte, l *logLine) bool {
	*l = logLine{minute: math.MinInt64}
	b = bytes.TrimSpace(b)
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return false
	}
	b = bytes.TrimSpace(b[1 : len(b)-1])
	for len(b) > 0 {
		key, rest, ok := text(b)
		if !ok {
			return false
		}
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			return false
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		if rest, ok = r.field(key, rest, l); !ok {
			return false
		}
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if len(rest) == 0 {
			break
		}
		if rest[0] != ',' {
			return false
		}
		if b = bytes.TrimLeft(rest[1:], " \t\r\n"); len(b) == 0 {
			return false
		}
	}
	return l.minute != math.MinInt64
}

// field takes in a value and returns what follows it.
func (r *lineReader) field(key, b []byte, l *logLine) ([]byte, bool) {
	if len(b) == 0 {
		return nil, false
	}
	if b[0] != '"' {
		n := 0
		for n < len(b) && b[n] != ',' && b[n] > ' ' {
			n++
		}
		return b[n:], r.bare(key, b[:n], l)
	}
	v, rest, ok := text(b)
	if !ok {
		return nil, false
	}
	switch string(key) {
	case "time":
		ok = r.time(v, l)
	case "site":
		l.site = v
	case "pool":
		l.pool = v
	case "tier":
		l.tier = v
	case "spill":
		l.spill = v
	case "code":
		l.code = v
	case "service":
		l.service = true
	case "visitor":
		switch string(v) {
		case "known":
			l.class = stage.Known
		case "protected":
			l.class = stage.Protected
		}
	}
	return rest, ok
}

// bare is a number, or true, false or null.
func (r *lineReader) bare(key, v []byte, l *logLine) bool {
	switch string(key) {
	case "ms":
		f, ok := number(v)
		l.millis = f
		return ok
	case "status":
		f, ok := number(v)
		l.status = int(f)
		return ok && f < 1000
	case "time":
		return false
	}
	switch {
	case len(v) == 0:
		return false
	case v[0] == '-' || v[0] >= '0' && v[0] <= '9':
		return json.Valid(v) // it is short, and rare
	}
	return string(v) == "true" || string(v) == "false" || string(v) == "null"
}

// maxNumber bounds what a line may say.
const maxNumber = 1e12

// number reads a number without a sign: digits, and digits after a point. Anything else is left to JSON.
func number(v []byte) (float64, bool) {
	n, scale, point := 0.0, 1.0, false
	for i, c := range v {
		switch {
		case c >= '0' && c <= '9':
			n = n*10 + float64(c-'0')
			if point {
				scale *= 10
			}
		case c == '.' && !point && i > 0 && i < len(v)-1:
			point = true
		default:
			return other(v)
		}
	}
	if len(v) == 0 || len(v) > 15 || len(v) > 1 && v[0] == '0' && v[1] != '.' {
		return other(v)
	}
	n /= scale
	return n, n <= maxNumber
}

func other(v []byte) (float64, bool) {
	var f float64
	err := json.Unmarshal(v, &f)
	return f, err == nil && f >= 0 && f <= maxNumber && string(v) != "null"
}

// text reads a JSON string at the beginning of b. One with escapes is decoded.
func text(b []byte) (v, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	escaped := false
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			if !escaped {
				return b[1:i], b[i+1:], true
			}
			var s string
			if json.Unmarshal(b[:i+1], &s) != nil {
				return nil, nil, false
			}
			return []byte(s), b[i+1:], true
		case c == '\\':
			escaped = true
			i++
		case c < 0x20:
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// time reads RFC 3339.
func (r *lineReader) time(v []byte, l *logLine) bool {
	if len(v) > 19 && v[len(v)-1] == 'Z' && string(v[:16]) == string(r.text[:]) && v[16] == ':' && digits(v[17:19]) && v[19] == '.' && digits(v[20:len(v)-1]) && v[17] < '6' {
		l.minute, l.seconds = r.minute, float64(v[17]-'0')*10+float64(v[18]-'0')
		return len(v) > 21
	}
	t, err := time.Parse(time.RFC3339Nano, string(v))
	if err != nil || t.Unix() < 0 {
		return false
	}
	l.minute, l.seconds = t.Unix()/60, float64(t.Unix()%60)
	if u := t.UTC(); len(v) > 16 && v[len(v)-1] == 'Z' && u.Year() < 10000 {
		copy(r.text[:], v[:16])
		r.minute = l.minute
	}
	return true
}

func digits(v []byte) bool {
	for _, c := range v {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
