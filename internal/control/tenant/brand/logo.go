package brand

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"slices"
	"strings"
)

// Bounds of logos.
const (
	maxLogo     = 64 << 10 // bytes
	maxPixels   = 1024     // of each side
	maxElements = 2000     // of an SVG
	maxDepth    = 32
)

// Logo is a picture. It is shown as an image, never as a part of a page; what could do more there is refused all the same.
type Logo struct {
	Type string `json:"type"` // image/svg+xml or image/png
	Data []byte `json:"data"`
}

// checked gives the logo as it is kept.
func (l *Logo) checked() (*Logo, error) {
	if len(l.Data) == 0 || len(l.Data) > maxLogo {
		return nil, fmt.Errorf("has %d bytes; it may have 1 to %d", len(l.Data), maxLogo)
	}
	switch l.Type {
	case "image/svg+xml":
		return l, checkSVG(l.Data)
	case "image/png":
		data, err := checkPNG(l.Data)
		return &Logo{l.Type, data}, err
	}
	return nil, fmt.Errorf("is of type %q; it may be image/svg+xml or image/png", clip(l.Type))
}

// checkPNG writes a picture anew, so that nothing is kept that is not its pixels: no other file behind it, no places.
func checkPNG(data []byte) ([]byte, error) {
	c, err := png.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("is no PNG: %w", err)
	}
	if c.Width > maxPixels || c.Height > maxPixels {
		return nil, fmt.Errorf("is %d by %d pixels; each side may have %d", c.Width, c.Height, maxPixels)
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("is no PNG: %w", err)
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, picture); err != nil {
		return nil, fmt.Errorf("cannot be written: %w", err)
	}
	if b.Len() > 2*maxLogo {
		return nil, fmt.Errorf("has %d bytes when it is written anew", b.Len())
	}
	return b.Bytes(), nil
}

// elements are those that draw and do nothing else: no script, no foreign content, nothing that loads or moves, and no use, of
// which thirty in one another are a thousand million.
func elements() []string {
	return []string{
		"svg", "g", "defs", "title", "desc", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan",
		"linearGradient", "radialGradient", "stop", "clipPath", "mask",
	}
}

// attributes are those of these elements.
func attributes() []string {
	return []string{
		"id", "class", "version", "viewBox", "preserveAspectRatio", "width", "height", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "fx", "fy",
		"d", "points", "transform", "fill", "fill-opacity", "fill-rule", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit",
		"stroke-dasharray", "stroke-dashoffset", "stroke-opacity", "opacity", "clip-path", "clip-rule", "clipPathUnits", "mask", "maskUnits", "maskContentUnits",
		"offset", "stop-color", "stop-opacity", "gradientUnits", "gradientTransform", "spreadMethod", "color", "display", "visibility", "role", "aria-label",
		"font-family", "font-size", "font-weight", "font-style", "text-anchor", "dominant-baseline", "letter-spacing", "dx", "dy", "focusable", "href", "space",
	}
}

const (
	spaceSVG   = "http://www.w3.org/2000/svg"
	spaceXLink = "http://www.w3.org/1999/xlink"
	spaceXML   = "http://www.w3.org/XML/1998/namespace"
)

// checkSVG lets through what is on the lists above, and refuses the rest, whatever it may be.
func checkSVG(data []byte) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	d.Strict = true
	depth, count := 0, 0
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("is no SVG: %w", err)
		}
		switch t := t.(type) {
		case xml.Directive:
			return errors.New("has a document type; an SVG needs none")
		case xml.ProcInst:
			if t.Target != "xml" || count > 0 {
				return fmt.Errorf("has an instruction %q", clip(t.Target))
			}
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return fmt.Errorf("has elements in one another deeper than %d", maxDepth)
			}
			if count++; count > maxElements {
				return fmt.Errorf("has more than %d elements", maxElements)
			}
			if err := checkElement(t, count == 1, depth == 1); err != nil {
				return err
			}
		case xml.EndElement:
			depth--
		}
	}
	if count == 0 {
		return errors.New("is no SVG: it is empty")
	}
	return nil
}

func checkElement(e xml.StartElement, first, top bool) error {
	if top && !first || first && e.Name.Local != "svg" {
		return errors.New("is not one svg element")
	}
	if e.Name.Space != spaceSVG || !slices.Contains(elements(), e.Name.Local) {
		return fmt.Errorf("has an element %q that is not taken; remove it, or export the picture as a plain SVG", clip(e.Name.Local))
	}
	for _, a := range e.Attr {
		if a.Name.Local == "xmlns" && a.Name.Space == "" || a.Name.Space == "xmlns" {
			if a.Value != spaceSVG && a.Value != spaceXLink {
				return fmt.Errorf("has a name space %q", clip(a.Value))
			}
			continue
		}
		known := a.Name.Space == "" || a.Name.Space == spaceXLink && a.Name.Local == "href" || a.Name.Space == spaceXML && a.Name.Local == "space"
		if !known || !slices.Contains(attributes(), a.Name.Local) {
			return fmt.Errorf("has an attribute %q that is not taken; remove it", clip(a.Name.Local))
		}
		if a.Name.Local == "href" && !strings.HasSuffix(e.Name.Local, "Gradient") {
			return fmt.Errorf("has an attribute href at %q; only gradients may have one", clip(e.Name.Local))
		}
		if err := checkValue(a); err != nil {
			return err
		}
	}
	return nil
}

// checkValue lets values name only parts of the same picture.
func checkValue(a xml.Attr) error {
	bad := fmt.Errorf("has %s=%q; it may name only a part of itself, as #part", a.Name.Local, clip(a.Value))
	if a.Name.Local == "href" {
		if len(a.Value) < 2 || a.Value[0] != '#' || !identifier(a.Value[1:]) {
			return bad
		}
		return nil
	}
	// In the language of styles a backslash writes any character, so that "url" could hide.
	v := strings.ToLower(a.Value)
	if strings.ContainsAny(v, "\\@<") || strings.Contains(v, "/*") {
		return bad
	}
	for rest := v; ; {
		at := strings.Index(rest, "url")
		if at < 0 {
			break
		}
		inside, ok := strings.CutPrefix(rest[at:], "url(#")
		id, tail, closed := strings.Cut(inside, ")")
		if !ok || !closed || !identifier(id) {
			return bad
		}
		rest = tail
	}
	for _, w := range []string{"script:", "data:", "expression", "http:", "https:", "//", "image("} {
		if strings.Contains(v, w) {
			return bad
		}
	}
	return nil
}

func identifier(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}
