package waf

import (
	"bytes"
	"mime"
	"mime/multipart"

	"github.com/relais-edge/relais/internal/http/message"
)

const (
	// maxParts of a form are read for the tenant's own rules. A form of more is refused by rule 1000 of ours, as the engine
	// takes no more arguments.
	maxParts = 1000
	// maxPartsKept is the most memory that a sheet keeps for the next form.
	maxPartsKept = 64 << 10
)

// parts are the arguments of a form in parts (RFC 7578), read once for all conditions.
type parts struct {
	read bool
	list []formPart
	text bytes.Buffer // their values
}

type formPart struct {
	name     string
	from, to int // of the value in text
}

func (p *parts) reset() {
	p.read = false
	clear(p.list)
	p.list = p.list[:0]
	if p.text.Reset(); p.text.Cap() > maxPartsKept {
		p.text = bytes.Buffer{}
	}
}

// fill reads a body, with the library that the engine reads it with. What stands before a fault, or before the end of what is
// examined, is looked at all the same. Files are no arguments.
func (p *parts) fill(contentType, body []byte) {
	_, params, err := mime.ParseMediaType(string(contentType))
	if err != nil || params["boundary"] == "" {
		return
	}
	mr := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for len(p.list) < maxParts {
		part, err := mr.NextPart()
		if err != nil {
			return
		}
		if part.FileName() != "" {
			continue
		}
		from := p.text.Len()
		_, err = p.text.ReadFrom(part)
		p.list = append(p.list, formPart{part.FormName(), from, p.text.Len()})
		if err != nil {
			return
		}
	}
}

// formParts are the arguments of a form in parts; none of another body.
func (s *sheet) formParts() []formPart {
	if !s.parts.read {
		s.parts.read = true
		if len(s.Body) > 0 && hasType(s.Fields, "multipart/form-data") {
			for i := range s.Fields {
				if message.EqualFold(s.Fields[i].Name, "content-type") {
					s.parts.fill(s.Fields[i].Value, s.Body)
					break
				}
			}
		}
	}
	return s.parts.list
}

// inParts looks at the arguments of a form in parts.
func (c *condition) inParts(s *sheet) bool {
	for _, f := range s.formParts() {
		if (c.name == "" || f.name == c.name) && c.is(s.parts.text.Bytes()[f.from:f.to], s) {
			return true
		}
	}
	return false
}
