// Package openapi reads OpenAPI documents (3.0 and 3.1) and holds requests against them. It is pure: nothing is
// fetched, references lead into the document alone, and the work for a document and for a request is bounded.
//
// It is written by hand because the libraries for this take a request of net/http, build a value of maps for each
// body and have no bound on the work that a document and a body together can ask for (anyOf in a circle of
// references, and a body that follows it). The schemas are those of 2020-12 but for unevaluatedProperties,
// unevaluatedItems, $dynamicRef, format and content*; API.Unchecked says what of a document is not held against
// requests. A test holds the verdicts beside those of a library.
package openapi

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// MaxBytes of a document.
const MaxBytes = 4 << 20

// API is a compiled document. It does not change.
type API struct {
	// Operations in the order of the document.
	Operations []*Operation
	// Unchecked names what the document says and requests are not held against.
	Unchecked []string
	root      point
}

// Operation is a method of a path.
type Operation struct {
	// Index of the operation in API.Operations.
	Index int
	// Method in upper case, and the template of the whole path.
	Method, Template string
	path             []parameter // by the order of the template; without a name where none is described
	query            []parameter
	header           []parameter
	cookie           []parameter
	body             *body
	coded            bool // a parameter says which Content-Encoding a body may have
}

// body is a request body.
type body struct {
	required bool
	types    []media
}

// media is a media type of a body.
type media struct {
	main, sub string // in lower case; * for any
	schema    *schema
	json      bool
	form      bool
}

// parameter is one of a path, a query, a field or a cookie.
type parameter struct {
	name     string
	required bool
	schema   *schema // nil for any value
	json     bool    // the value is a JSON text
	list     bool
	explode  bool
	between  byte // what stands between items of a list that is not exploded
	empty    bool // an empty value is taken
}

var methods = [...]string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

// Compile reads a document in JSON. BasePath stands before its paths; empty takes those of its servers. The error
// is an *Error that says what is wrong and where.
func Compile(text []byte, basePath string) (*API, error) {
	c := &compiler{
		doc: &tree{}, schemas: map[int]*schema{}, pointers: map[string]int{}, indexes: map[int]map[string]int{},
		lists: map[int][]int{}, unchecked: map[string]bool{},
	}
	a, err := c.compile(text, basePath)
	if err != nil {
		return nil, c.located(err)
	}
	return a, nil
}

func (c *compiler) compile(text []byte, basePath string) (*API, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("the OpenAPI document has %d bytes, more than %d", len(text), MaxBytes)
	}
	if err := c.doc.parse(text, documentDepth); err != nil {
		return nil, fmt.Errorf("the OpenAPI document %w", err)
	}
	version := ""
	if c.doc.nodes[0].kind == kindObject {
		version = c.text(0, "openapi")
	}
	c.old = version == "3.0" || strings.HasPrefix(version, "3.0.")
	if !c.old && version != "3.1" && !strings.HasPrefix(version, "3.1.") {
		err := fmt.Errorf("the OpenAPI document has version %q; write openapi: 3.0.3 or 3.1.0, and convert Swagger 2.0 first", cut(version))
		return nil, at(max(c.child(0, "openapi"), 0), err)
	}
	a := &API{}
	bases := []string{strings.TrimSuffix(basePath, "/")}
	if basePath == "" {
		bases = c.bases()
	}
	if paths := c.child(0, "paths"); paths >= 0 {
		if err := c.paths(a, paths, bases); err != nil {
			return nil, at(paths, err)
		}
	}
	if err := c.drain(); err != nil {
		return nil, err
	}
	if err := c.circles(); err != nil {
		return nil, err
	}
	if len(a.Operations) == 0 {
		return nil, errors.New("the OpenAPI document has no operation; write one such as paths: {/orders: {post: {}}}")
	}
	a.Unchecked = c.order
	return a, nil
}

// bases are the paths of the servers.
func (c *compiler) bases() []string {
	var out []string
	servers := c.child(0, "servers")
	if servers >= 0 && c.doc.nodes[servers].kind == kindArray {
		_ = c.doc.members(servers, func(_ string, s int) error {
			base := ""
			if u, err := url.Parse(c.server(s)); err == nil {
				base = strings.TrimSuffix(u.EscapedPath(), "/")
			}
			if base != "" && base[0] != '/' {
				base = "/" + base
			}
			if !slices.Contains(out, base) && len(out) < 16 {
				out = append(out, base)
			}
			return nil
		})
	}
	if len(out) == 0 {
		out = []string{""}
	}
	return out
}

// maxServer bounds the address of a server, its variables included.
const maxServer = 2 << 10

// server is the address of a server with the default of each variable in its place (OpenAPI 3.1.0 section 4.8.6).
func (c *compiler) server(i int) string {
	rest := c.text(i, "url")
	vars := c.child(i, "variables")
	var b strings.Builder
	for b.Len() < maxServer {
		before, after, found := strings.Cut(rest, "{")
		b.WriteString(before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		if v := -1; closed && vars >= 0 {
			if v = c.child(vars, name); v >= 0 {
				b.WriteString(c.text(v, "default"))
			}
		}
		rest = after
	}
	return b.String()[:min(b.Len(), maxServer)]
}

func (c *compiler) paths(a *API, paths int, bases []string) error {
	if c.doc.nodes[paths].kind != kindObject {
		return errors.New("paths of the OpenAPI document is not an object")
	}
	return c.doc.members(paths, func(template string, i int) error {
		if strings.HasPrefix(template, "x-") {
			return nil
		}
		if c.items++; c.items > maxPaths {
			return fmt.Errorf("the OpenAPI document has more than %d paths", maxPaths)
		}
		to, err := c.follow(i)
		if err == nil && c.doc.nodes[to].kind != kindObject {
			err = errors.New("is not an object")
		}
		if err == nil {
			err = c.pathItem(a, template, to, bases)
		}
		if err != nil {
			return at(i, fmt.Errorf("the path %w", err))
		}
		return nil
	})
}

func (c *compiler) pathItem(a *API, template string, i int, bases []string) error {
	for _, base := range bases {
		item := &pathItem{template: base + template, methods: map[string]*Operation{}}
		if err := a.root.add(item.template, item); err != nil {
			return err
		}
		for _, method := range methods {
			op := c.child(i, method)
			if op < 0 {
				continue
			}
			if len(a.Operations) >= maxOperations {
				return fmt.Errorf("the document has more than %d operations", maxOperations)
			}
			o := &Operation{Index: len(a.Operations), Method: strings.ToUpper(method), Template: item.template}
			a.Operations = append(a.Operations, o)
			item.methods[o.Method] = o
			if item.allow != "" {
				item.allow += ", "
			}
			item.allow += o.Method
			if err := c.operation(o, item, i, op); err != nil {
				return at(op, err)
			}
		}
	}
	return nil
}

func (c *compiler) operation(o *Operation, item *pathItem, of, i int) error {
	o.path = make([]parameter, len(item.names))
	named := map[string]parameter{}
	var order []string
	for _, from := range [...]int{of, i} { // those of the operation come in place of those of the path
		list := c.child(from, "parameters")
		if list < 0 {
			continue
		}
		if err := c.doc.members(list, func(_ string, v int) error {
			to, err := c.follow(v)
			if err == nil {
				err = c.count()
			}
			if err != nil {
				return at(v, err)
			}
			p, err := c.parameter(to)
			if err != nil {
				return at(to, fmt.Errorf("parameter %s: %w", cut(p.name), err))
			}
			in := c.text(to, "in")
			switch in {
			case "path", "query", "header", "cookie":
			default:
				return at(max(c.child(to, "in"), to), fmt.Errorf("parameter %s is in %q; write path, query, header or cookie", cut(p.name), cut(in)))
			}
			key := in + " " + p.name
			if _, there := named[key]; !there {
				order = append(order, key)
			}
			named[key] = p
			return nil
		}); err != nil {
			return err
		}
	}
	for _, key := range order {
		p := named[key]
		switch in, _, _ := strings.Cut(key, " "); in {
		case "path":
			if n := slices.Index(item.names, p.name); n >= 0 {
				o.path[n] = p
			}
		case "query":
			o.query = append(o.query, p)
		case "header":
			switch strings.ToLower(p.name) {
			case "accept", "content-type", "authorization": // OpenAPI 3.1.0 section 4.8.12.2: described elsewhere
			case "content-encoding":
				o.coded = true // the document says which
				o.header = append(o.header, p)
			default:
				o.header = append(o.header, p)
			}
		case "cookie":
			o.cookie = append(o.cookie, p)
		}
	}
	if b := c.child(i, "requestBody"); b >= 0 {
		to, err := c.follow(b)
		if err != nil {
			return at(b, err)
		}
		if o.body, err = c.body(to); err != nil {
			return at(to, err)
		}
	}
	return nil
}

// parameter reads a parameter. How it is written is said by style and explode (OpenAPI 3.1.0 section 4.8.12.3).
func (c *compiler) parameter(i int) (p parameter, err error) {
	p.name, p.required = c.text(i, "name"), c.flag(i, "required")
	if p.name == "" {
		return p, errors.New("has no name")
	}
	p.empty = c.flag(i, "allowEmptyValue")
	in, style := c.text(i, "in"), c.text(i, "style")
	if style == "" {
		style = "simple"
		if in == "query" || in == "cookie" {
			style = "form"
		}
	}
	p.explode = c.flag(i, "explode") || style == "form" && c.child(i, "explode") < 0
	p.between = ','
	switch style {
	case "spaceDelimited":
		p.between = ' '
	case "pipeDelimited":
		p.between = '|'
	}
	if content := c.child(i, "content"); content >= 0 {
		err = c.doc.members(content, func(kind string, v int) error {
			if p.json = isJSON(kind); !p.json {
				c.note("parameters of type " + cut(kind))
				return nil
			}
			var err error
			if at := c.child(v, "schema"); at >= 0 {
				p.schema, err = c.schema(at)
			}
			return err
		})
		return p, err
	}
	at := c.child(i, "schema")
	if at < 0 {
		return p, nil
	}
	types, err := c.typesOf(at, 0)
	if err != nil {
		return p, err
	}
	switch {
	case types&(1<<kindObject) != 0, style == "deepObject", style == "matrix", style == "label":
		c.note("parameters that are objects, or of style deepObject, matrix or label")
		if style == "deepObject" || types&(1<<kindObject) != 0 && p.explode {
			p.required = false // it is written as parameters of other names
		}
		return p, nil
	}
	p.list = types&(1<<kindArray) != 0
	p.schema, err = c.schema(at)
	return p, err
}

// typesOf are the types that a schema names, itself or through what it refers to.
func (c *compiler) typesOf(i, depth int) (uint8, error) {
	i, err := c.follow(i)
	if c.looks++; err != nil || depth > 8 || c.looks > maxLooks {
		return 0, err
	}
	var s schema
	if v := c.child(i, "type"); v >= 0 {
		if err := c.types(&s, v); err != nil {
			return 0, err
		}
	}
	for _, of := range [...]string{"allOf", "anyOf", "oneOf"} {
		if s.types != 0 {
			break
		}
		if v := c.child(i, of); v >= 0 {
			if err := c.doc.members(v, func(_ string, e int) error {
				t, err := c.typesOf(e, depth+1)
				s.types |= t
				return err
			}); err != nil {
				return 0, err
			}
		}
	}
	return s.types, nil
}

func (c *compiler) body(i int) (*body, error) {
	b := &body{required: c.flag(i, "required")}
	content := c.child(i, "content")
	if content < 0 {
		return b, nil
	}
	return b, c.doc.members(content, func(kind string, v int) error {
		kind, _, _ = strings.Cut(strings.ToLower(kind), ";")
		main, sub, ok := strings.Cut(strings.TrimSpace(kind), "/")
		if !ok {
			return fmt.Errorf("%q is not a media type", cut(kind))
		}
		if err := c.count(); err != nil {
			return err
		}
		m := media{main: main, sub: sub}
		if at := c.child(v, "schema"); at >= 0 {
			switch {
			case isJSON(kind):
				m.json = true
			case kind == "application/x-www-form-urlencoded":
				m.form = true
			default:
				c.note("bodies of type " + cut(kind))
			}
			if m.json || m.form {
				var err error
				if m.schema, err = c.schema(at); err != nil {
					return err
				}
			}
		}
		b.types = append(b.types, m)
		return nil
	})
}

// isJSON says whether a media type is JSON (RFC 6839 section 3.1).
func isJSON(kind string) bool {
	kind, _, _ = strings.Cut(kind, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "application/json" || kind == "text/json" || strings.HasSuffix(kind, "+json")
}
