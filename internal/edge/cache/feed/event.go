package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Event is one line: what changed, and when. Of Tag and URL there may be both; SKU is mapped by the site's
// CachePolicy.
type Event struct {
	Site string `json:"site,omitempty"` // where the request does not say it
	SKU  string `json:"sku,omitempty"`
	Tag  string `json:"tag,omitempty"`
	URL  string `json:"url,omitempty"`
	// Version orders the events of one sku, tag or URL: a whole number, or a string of digits. Without it At does.
	Version json.RawMessage `json:"version,omitempty"`
	// Price and Stock are for the sender's own use: they are not looked at.
	Price json.RawMessage `json:"price,omitempty"`
	Stock json.RawMessage `json:"stock,omitempty"`
	// At is when the change came into force: RFC 3339, or seconds since 1970. Without it, when it came to us.
	At json.RawMessage `json:"at,omitempty"`
}

// Bounds of an event.
const (
	// MaxLine bounds one event as text, in bytes.
	MaxLine = 8 << 10
	// MaxLines bounds the events of one request.
	MaxLines = 1000
	// MaxName bounds sku, tag and URL.
	MaxName = 1024
)

// parsed is an event that was read.
type parsed struct {
	Event
	order order
	at    time.Time
	timed bool // At was given
}

// order is the place of an event among those of its name.
type order struct {
	version int64
	byTime  bool
	none    bool // there is neither version nor time: it is always new
}

// parse reads a line. Now is when it came.
func parse(line []byte, now time.Time) (*parsed, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("the line has %d bytes, more than %d", len(line), MaxLine)
	}
	p := &parsed{at: now}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&p.Event); err != nil {
		return nil, fmt.Errorf("no event: %w", err)
	}
	if _, err := d.Token(); err == nil {
		return nil, errors.New("more than one event in a line")
	}
	switch {
	case p.SKU == "" && p.Tag == "" && p.URL == "":
		return nil, errors.New("names nothing: give sku, tag or url")
	case max(len(p.SKU), len(p.Tag), len(p.URL), len(p.Site)) > MaxName:
		return nil, fmt.Errorf("a name of more than %d bytes", MaxName)
	}
	if err := p.readTime(now); err != nil {
		return nil, err
	}
	return p, p.readOrder()
}

// readTime reads At.
func (p *parsed) readTime(now time.Time) error {
	text := scalar(p.At)
	if text == "" {
		return nil
	}
	p.timed = true
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		p.at = at
		return nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0 && seconds < 1e11) {
		return fmt.Errorf("at %.40q is no time: write RFC 3339, or seconds since 1970", text)
	}
	whole := int64(seconds)
	p.at = time.Unix(whole, int64((seconds-float64(whole))*1e9)).In(now.Location())
	return nil
}

func (p *parsed) readOrder() error {
	text := scalar(p.Version)
	switch {
	case text != "":
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("version %.40q is no whole number of 64 bits", text)
		}
		p.order = order{version: v}
	case p.timed:
		p.order = order{version: p.at.UnixNano(), byTime: true}
	default:
		p.order = order{none: true}
	}
	return nil
}

// scalar is a JSON string or number as text; empty for null and what is absent.
func scalar(raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// name is what the event's order is kept under.
func (p *parsed) name() string {
	switch {
	case p.SKU != "":
		return "s" + p.SKU
	case p.Tag != "":
		return "t" + strings.ToLower(p.Tag)
	}
	return "u" + p.URL
}

// label is the name for people.
func (p *parsed) label() string {
	switch {
	case p.SKU != "":
		return p.SKU
	case p.Tag != "":
		return "tag " + p.Tag
	}
	return p.URL
}

// Mapping says what a site's events purge.
type Mapping struct {
	// Tags and URLs are templates in which {sku} stands for the sku.
	Tags, URLs []string
	Soft       bool
}

// Thing is one thing to purge.
type Thing struct {
	Tag string
	URL string // with every query
}

// things are what the event names.
func (m *Mapping) things(p *parsed) []Thing {
	var out []Thing
	if p.SKU != "" {
		for _, t := range m.Tags {
			out = append(out, Thing{Tag: strings.ReplaceAll(t, "{sku}", p.SKU)})
		}
		for _, u := range m.URLs {
			out = append(out, Thing{URL: strings.ReplaceAll(u, "{sku}", pathSegment(p.SKU))})
		}
	}
	if p.Tag != "" {
		out = append(out, Thing{Tag: p.Tag})
	}
	if p.URL != "" {
		out = append(out, Thing{URL: p.URL})
	}
	return out
}

// pathSegment encodes what would end a segment of a path, or the path (RFC 3986 section 3.3).
func pathSegment(sku string) string {
	if !strings.ContainsAny(sku, "/?#%") {
		return sku
	}
	var b strings.Builder
	for i := range len(sku) {
		switch c := sku[i]; c {
		case '/', '?', '#', '%':
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
