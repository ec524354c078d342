package screen

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// Bounds of bodies whose parts are counted.
const (
	maxParts  = 256    // of multipart
	maxTokens = 20_000 // of XML
	maxType   = 256    // bytes of a Content-Type that is looked at first
)

// processor names how the engine would read the body: by the first Content-Type, then by the
// rules that choose. ok is false when that is not certain.
func (w *worker) processor(r *Request) (name string, ok bool) {
	n := 0
	for i := range r.Fields {
		f := &r.Fields[i]
		if foldedIs(f.Name, "content-type") != yes {
			continue
		}
		if n++; n > 1 {
			return "", false
		}
		v := bytes.TrimSpace(f.Value)
		for _, c := range v {
			if c >= 0x80 {
				return "", false
			}
		}
		switch {
		case foldPrefix(v, "application/x-www-form-urlencoded"):
			name = "URLENCODED"
		case foldPrefix(v, "multipart/form-data"):
			name = "MULTIPART"
		}
	}
	for _, p := range w.s.processors {
		if w.has(p.link) {
			name = p.name
		}
	}
	return name, true
}

// formed looks at a body's form before any value is asked about. One that is wrong the engine refuses after the
// rules of the head, for a part of what a request costs it, so that much work before would be in vain.
func (w *worker) formed(r *Request) bool {
	if r.Opaque {
		return w.maybe(Body)
	}
	if len(r.Body) > maxBody {
		return w.maybe(Size)
	}
	if len(r.Body) == 0 {
		return true
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if foldedIs(f.Name, "content-type") != yes || len(f.Value) > maxType {
			continue
		}
		w.scratch = lowercase(w.scratch[:0], f.Value)
		good := true
		switch {
		case bytes.Contains(w.scratch, []byte("json")):
			s := text(r.Body)
			w.valid = !deeper(s, min(w.s.jsonDepth, 64)) && gjson.Valid(s)
			good = w.valid || w.maybe(Body)
		case bytes.Contains(w.scratch, []byte("xml")):
			good = w.xmlBody(r.Body, false)
		case bytes.Contains(w.scratch, []byte("multipart")):
			good = w.multipart(r, false)
		}
		if !good {
			return false
		}
	}
	return true
}

func (w *worker) body(r *Request) bool {
	name, ok := w.processor(r)
	var form []byte
	w.number = w.number[:0]
	if len(r.Body) > 0 {
		if !ok {
			return w.maybe(Body)
		}
		switch name {
		case "URLENCODED":
			form = r.Body
			w.number = strconv.AppendInt(w.number, int64(len(form)), 10)
			if !w.pairs(form, false) {
				return false
			}
		case "JSON":
			if !w.jsonBody(text(r.Body)) {
				return false
			}
		case "MULTIPART":
			if !w.multipart(r, true) {
				return false
			}
		case "XML":
			if !w.xmlBody(r.Body, true) {
				return false
			}
		default:
			return w.maybe(Body)
		}
	} else if !ok && w.s.usesProcessor() {
		return w.maybe(Body)
	}
	w.pair = append(w.pair[:0], name...)
	return w.value(varBody, nil, form) && w.value(varBodyLength, nil, w.number) && w.value(varQuiet, nil, nil) &&
		w.value(varProcessor, nil, w.pair)
}

func (s *Screen) usesProcessor() bool { return len(s.classes[varProcessor].uses) > 0 }

// jsonBody flattens a body as the engine does: json.a.0.b, and the length of each array under
// the array's own name.
func (w *worker) jsonBody(s string) bool {
	if !w.valid && (deeper(s, min(w.s.jsonDepth, 64)) || !gjson.Valid(s)) {
		return w.maybe(Body)
	}
	w.key = append(w.key[:0], "json"...)
	return w.jsonItems(gjson.Parse(s), max(4096, 8*len(s)))
}

// deeper says whether brackets outside strings nest deeper than most.
func deeper(s string, most int) bool {
	if strings.Count(s, "{")+strings.Count(s, "[") <= most {
		return false
	}
	depth, in := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case in && c == '\\':
			i++
		case c == '"':
			in = !in
		case in:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

func (w *worker) jsonItems(j gjson.Result, budget int) bool {
	items, good, from := 0, true, len(w.key)
	j.ForEach(func(k, v gjson.Result) bool {
		w.key = append(w.key[:from], '.')
		if k.Type == gjson.String {
			w.key = append(w.key, k.Str...)
		} else {
			w.key = strconv.AppendInt(w.key, int64(k.Num), 10)
			items++
		}
		switch v.Type {
		case gjson.JSON:
			good = w.jsonItems(v, budget)
		case gjson.String:
			good = w.jsonLeaf(v.Str, budget)
		case gjson.Null:
			good = w.jsonLeaf("", budget)
		default:
			good = w.jsonLeaf(v.Raw, budget)
		}
		return good
	})
	w.key = w.key[:from]
	if good && items > 0 {
		var b [20]byte
		n := strconv.AppendInt(b[:0], int64(items), 10)
		w.pair = append(w.pair[:0], n...)
		good = w.jsonValue(w.pair, budget)
	}
	return good
}

func (w *worker) jsonLeaf(s string, budget int) bool {
	w.pair = append(w.pair[:0], s...)
	return w.jsonValue(w.pair, budget)
}

func (w *worker) jsonValue(v []byte, budget int) bool {
	if w.json += len(w.key) + len(v); w.json > budget {
		return w.maybe(Size)
	}
	return w.arg(w.key, v, false)
}

// multipart gives the parts of a form, read by the same library as the engine's. What the engine
// remarks on, or reads in more than one way, is not proved. Without ask, only the form is looked at.
func (w *worker) multipart(r *Request, ask bool) bool {
	ct := ""
	for i := range r.Fields {
		if foldedIs(r.Fields[i].Name, "content-type") == yes {
			ct = string(r.Fields[i].Value)
		}
	}
	kind, params, err := mime.ParseMediaType(ct)
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return w.maybe(Body)
	}
	if !ask {
		switch formOfParts(r.Body, params["boundary"]) {
		case partsGood:
			return true
		case partsBroken:
			return w.maybe(Body)
		}
	}
	mr := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"])
	for n := 0; ; n++ {
		p, err := mr.NextPart()
		switch {
		case err == io.EOF:
			return true
		case err != nil:
			return w.maybe(Body)
		case n == maxParts:
			return w.maybe(Size)
		}
		if !ask {
			if _, err := io.Copy(io.Discard, p); err != nil {
				return w.maybe(Body)
			}
			continue
		}
		if !w.part(p) {
			return false
		}
	}
}

func (w *worker) part(p *multipart.Part) bool {
	disposition := p.Header.Get("Content-Disposition")
	_, params, err := mime.ParseMediaType(disposition)
	if err != nil || strings.IndexByte(disposition, '*') >= 0 {
		return w.maybe(Body)
	}
	name := []byte(p.FormName())
	for key, values := range p.Header {
		if len(values) != 1 {
			return w.maybe(Body)
		}
		w.pair = append(append(append(w.pair[:0], key...), ": "...), values[0]...)
		if !w.value(varPartHeaders, name, w.pair) {
			return false
		}
	}
	if file := params["filename"]; file != "" {
		if _, err := io.Copy(io.Discard, p); err != nil {
			return w.maybe(Body)
		}
		return w.value(varFiles, nil, []byte(file)) && w.value(varFilesNames, nil, name)
	}
	data, err := io.ReadAll(p)
	if err != nil {
		return w.maybe(Body)
	}
	return w.arg(name, data, false)
}

var (
	xmlContent    = []byte("/*")
	xmlAttributes = []byte("//@*")
)

// xmlBody gives texts and attributes, read by the same library and with the same leniency as the
// engine's. An end in the middle is one. Without ask, only the form is looked at.
func (w *worker) xmlBody(body []byte, ask bool) bool {
	dec := xml.NewDecoder(bytes.NewReader(body))
	dec.Strict, dec.AutoClose, dec.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for range maxTokens {
		tok, err := dec.Token()
		var syntax *xml.SyntaxError
		if err != nil && err != io.EOF && !(errors.As(err, &syntax) && syntax.Msg == "unexpected EOF") {
			return w.maybe(Body)
		}
		if tok == nil {
			return true
		}
		if !ask {
			continue
		}
		switch t := tok.(type) {
		case xml.StartElement:
			for i := range t.Attr {
				if !w.value(varXML, xmlAttributes, []byte(t.Attr[i].Value)) {
					return false
				}
			}
		case xml.CharData:
			if c := bytes.TrimSpace(t); len(c) > 0 && !w.value(varXML, xmlContent, c) {
				return false
			}
		}
	}
	return w.maybe(Size)
}
