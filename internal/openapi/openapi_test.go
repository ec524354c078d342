package openapi

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

const shop = `{
"openapi": "3.1.0",
"info": {"title": "shop", "version": "1"},
"servers": [{"url": "https://shop.example.com/{v}", "variables": {"v": {"default": "v1"}}}],
"paths": {
  "/orders": {
    "get": {"parameters": [
      {"name": "page", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
      {"name": "state", "in": "query", "schema": {"type": "array", "items": {"enum": ["open", "sent"]}, "maxItems": 2}},
      {"name": "ids", "in": "query", "explode": false, "schema": {"type": "array", "items": {"type": "integer"}}},
      {"name": "q", "in": "query", "required": true, "schema": {"type": "string", "maxLength": 5}},
      {"name": "X-Trace", "in": "header", "schema": {"type": "string", "pattern": "^[0-9a-f]+$"}},
      {"name": "lang", "in": "cookie", "schema": {"enum": ["en", "fr"]}},
      {"name": "filter", "in": "query", "content": {"application/json": {"schema": {"type": "object", "required": ["a"]}}}}
    ]},
    "post": {"requestBody": {"required": true, "content": {
      "application/json": {"schema": {"$ref": "#/components/schemas/Order"}},
      "application/x-www-form-urlencoded": {"schema": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}}, "additionalProperties": false}},
      "image/*": {}
    }}}
  },
  "/orders/{id}": {
    "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}],
    "get": {}, "delete": {}
  },
  "/orders/mine": {"get": {}},
  "/files/{name}.json": {"get": {}},
  "/files/{name}": {"get": {}},
  "/tree": {"post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}}}}}
},
"components": {"schemas": {
  "Order": {"type": "object", "required": ["id", "items"], "additionalProperties": false, "properties": {
    "id": {"$ref": "#/components/schemas/Id"},
    "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Item"}, "uniqueItems": true},
    "note": {"type": ["string", "null"], "maxLength": 10},
    "price": {"type": "number", "multipleOf": 0.01, "exclusiveMinimum": 0},
    "pay": {"oneOf": [{"required": ["card"], "properties": {"card": {"type": "string"}}}, {"required": ["iban"], "properties": {"iban": {"type": "string"}}}]}
  }},
  "Id": {"type": "string", "readOnly": true},
  "Item": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string", "minLength": 2}, "quantity": {"type": "integer", "minimum": 1}}},
  "Tree": {"type": "object", "properties": {"left": {"$ref": "#/components/schemas/Tree"}, "right": {"$ref": "#/components/schemas/Tree"}}, "anyOf": [{"not": {"required": ["x"]}}, {"required": ["y"]}]}
}}}`

func compiled(t testing.TB, text, base string) *API {
	t.Helper()
	a, err := Compile([]byte(text), base)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(method, target string, fields ...string) *message.Request {
	r := &message.Request{}
	r.SetMethod([]byte(method))
	path, query, has := strings.Cut(target, "?")
	r.SetPath([]byte(path))
	if has {
		r.SetQuery([]byte(query))
	}
	for _, f := range fields {
		n, v, _ := strings.Cut(f, ": ")
		r.AddLine([]byte(n), []byte(v))
	}
	return r
}

// verdict judges a whole request; body "" is none.
func verdict(a *API, r *message.Request, body string) string {
	var c Checker
	var m Match
	a.Find(string(r.MethodName()), r.Path(), &m)
	if m.Operation == nil {
		return "unknown " + m.Template
	}
	if body != "" {
		r.ContentLength, r.Body = int64(len(body)), noBody{}
	}
	if v := c.Head(&m, r); v != nil {
		return v.String()
	}
	wants, v := m.Operation.WantsBody(r)
	if v != nil {
		return v.String()
	}
	if wants {
		if v := c.Body(m.Operation, r.Get(message.ContentType), []byte(body)); v != nil {
			return v.String()
		}
	}
	return ""
}

type noBody struct{ message.Body }

func TestPathsAreFoundLiteralTextFirst(t *testing.T) {
	a := compiled(t, shop, "")
	for path, want := range map[string]string{
		"/v1/orders": "/v1/orders", "/v1/orders/7": "/v1/orders/{id}", "/v1/orders/mine": "/v1/orders/mine",
		"/v1/files/a.json": "/v1/files/{name}.json", "/v1/files/a.xml": "/v1/files/{name}", "/v1/files/.json": "/v1/files/{name}",
		"/orders": "", "/v1/orders/": "", "/v1/orders/7/x": "", "/v1": "", "/v1//orders": "", "/": "", "": "", "*": "",
	} {
		var m Match
		a.Find("GET", []byte(path), &m)
		got := ""
		if m.Operation != nil {
			got = m.Operation.Template
		}
		if got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	var m Match
	if a.Find("PATCH", []byte("/v1/orders/7"), &m); m.Operation != nil || m.Template != "/v1/orders/{id}" || m.Allow != "GET, DELETE" {
		t.Errorf("a method that is not there: %+v", m)
	}
	if a.Find("HEAD", []byte("/v1/orders/7"), &m); m.Operation == nil {
		t.Error("HEAD is not found where GET is")
	}
	if a.Find("GET", []byte("/v1/"+strings.Repeat("a/", 10_000)), &m); m.Operation != nil {
		t.Error("a long path is found")
	}
	if a := compiled(t, shop, "/shop"); a.Operations[0].Template != "/shop/orders" {
		t.Errorf("with a base path: %s", a.Operations[0].Template)
	}
}

func TestRequestsAreHeldAgainstTheDocument(t *testing.T) {
	a := compiled(t, shop, "")
	get := func(query string, fields ...string) *message.Request {
		return request("GET", "/v1/orders?"+query, fields...)
	}
	for _, c := range []struct {
		r    *message.Request
		body string
		want string // part of it
	}{
		{get("q=a"), "", ""},
		{get("q=a&page=1"), "", ""},
		{get(""), "", "query q is missing"},
		{get("q=abcdef"), "", "query q is longer than 5"},
		{get("q=%61%62%63+%20"), "", ""},
		{get("%71=1"), "", ""},
		{get("q=a&page=x"), "", "query page is of type string, not integer"},
		{get("q=a&page=1.5"), "", "query page is a number with a fraction"},
		{get("q=a&page=101"), "", "query page is more than 100"},
		{get("q=a&page=1&page=2"), "", "query page stands twice"},
		{get("q=a&state=open&state=sent"), "", ""},
		{get("q=a&state=open&state=sent&state=open"), "", "query state has more than 2 items"},
		{get("q=a&state=lost"), "", "query state is none of the values"},
		{get("q=a&ids=1,2,3"), "", ""},
		{get("q=a&ids=1,x"), "", "query ids is of type string, not integer"},
		{get("q=a&filter=%7B%22a%22:1%7D"), "", ""},
		{get("q=a&filter=%7B%7D"), "", "query filter lacks a"},
		{get("q=a&other=1"), "", ""},
		{get("q=a", "X-Trace: 0af"), "", ""},
		{get("q=a", "x-trace: zz"), "", "header X-Trace does not match its pattern"},
		{get("q=a", "Cookie: a=1; lang=fr"), "", ""},
		{get("q=a", "Cookie: lang=de"), "", "cookie lang is none of the values"},
		{request("GET", "/v1/orders/abc"), "", "path id is of type string, not integer"},
		{request("GET", "/v1/orders/12"), "", ""},
		{request("POST", "/v1/orders"), "", "body is missing"},
		{request("POST", "/v1/orders", "Content-Type: text/plain"), "x", "Content-Type is none"},
		{request("POST", "/v1/orders", "Content-Type: image/png"), "x", ""},
		{request("POST", "/v1/orders", "Content-Type: application/json; charset=utf-8"), `{"items":[{"sku":"ab"}]}`, ""},
		{request("POST", "/v1/orders", "Content-Type: application/json", "Content-Encoding: gzip"), `x`, "header Content-Encoding is not in the document"},
		{request("POST", "/v1/orders", "Content-Type: application/json", "Content-Encoding: identity"), `{}`, "body / lacks items"},
		{request("POST", "/v1/orders", "Content-Type: image/png", "Content-Encoding: gzip"), `x`, ""},
		{request("POST", "/v1/orders", "Content-Type: application/json", "Content-Type: text/plain"), `{}`, "header Content-Type stands twice"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab"}],"note":"a","note":"b"}`, "body /note stands twice"},
		{get("q=a", "X-Trace: 0af", "X-Trace: zz"), "", "header X-Trace does not match its pattern"},
		{get("q=a", "Cookie: lang=fr; lang=de"), "", "cookie lang is none of the values"},
		{request("POST", "/v1/orders", "Content-Type: APPLICATION/JSON"), `{"items":[{"sku":"a"}]}`, "body /items/0/sku is shorter than 2"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab"}],"extra":1}`, "body /extra is not in the document"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{}`, "body / lacks items"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[],"items":[{"sku":"ab"}]}`, "body /items"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab"},{"sku":"a\u0062"}]}`, "stands twice"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab"}],"price":19.99,"note":null}`, ""},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab"}],"price":19.999}`, "body /price is not a multiple of 1/100"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab"}],"price":1e999999999}`, "body /price is not a multiple"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab"}],"pay":{"card":"1"}}`, ""},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab"}],"pay":{"card":"1","iban":"2"}}`, "several of the forms"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"ab","quantity":1.0}]}`, ""},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":`, "body is not valid JSON"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), `{"items":[{"sku":"` + "\xff" + `b"}]}`, "body is not UTF-8"},
		{request("POST", "/v1/orders", "Content-Type: application/json"), strings.Repeat("[", 100_000), "body is nested too deep"},
		{request("POST", "/v1/orders", "Content-Type: application/x-www-form-urlencoded"), `sku=12&quantity=3`, ""},
		{request("POST", "/v1/orders", "Content-Type: application/x-www-form-urlencoded"), `quantity=x&sku=1`, "body /quantity is of type string, not integer"},
		{request("POST", "/v1/orders", "Content-Type: application/x-www-form-urlencoded"), `quantity=1`, "body / lacks sku"},
		{request("POST", "/v1/orders", "Content-Type: application/x-www-form-urlencoded"), `sku=1&evil=1`, "body /evil is not in the document"},
	} {
		got := verdict(a, c.r, c.body)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s %s?%s %.80s: %q, want %q", c.r.MethodName(), c.r.Path(), c.r.Query(), c.body, got, c.want)
		}
	}
}

func TestOpenAPI30HasItsOwnWordsForNullAndBounds(t *testing.T) {
	a := compiled(t, `{"openapi":"3.0.3","paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":
		{"type":"object","properties":{"n":{"type":"string","nullable":true,"enum":["a"]},"x":{"type":"number","minimum":1,"exclusiveMinimum":true}}}}}}}}}}`, "")
	for body, ok := range map[string]bool{`{"n":null}`: true, `{"n":"a"}`: true, `{"n":1}`: false, `{"x":1}`: false, `{"x":1.5}`: true, `{"n":"b"}`: false} {
		if got := verdict(a, request("POST", "/a", "Content-Type: application/json"), body); (got == "") != ok {
			t.Errorf("%s: %q", body, got)
		}
	}
}

func TestDocumentsThatLieOrAskTooMuchAreRefused(t *testing.T) {
	with := func(schema string) string {
		return `{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":` + schema + `}}}}}},
			"components":{"schemas":{"A":{"allOf":[{"$ref":"#/components/schemas/B"}]},"B":{"anyOf":[{"$ref":"#/components/schemas/A"}]},"C":{"$ref":"#/components/schemas/C"}}}}`
	}
	many := make([]string, maxOperations+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"/p%d":{"get":{}}`, i)
	}
	for _, c := range []struct{ name, text, want string }{
		{"swagger 2", `{"swagger":"2.0"}`, "version"},
		{"no JSON", `openapi: 3.0.0`, "not valid JSON"},
		{"a list", `[]`, "version"},
		{"no operation", `{"openapi":"3.1.0","paths":{}}`, "no operation"},
		{"remote reference", with(`{"$ref":"https://evil.example/s.json"}`), "leads out of the document"},
		{"file reference", with(`{"$ref":"../../etc/passwd"}`), "leads out of the document"},
		{"dangling reference", with(`{"$ref":"#/components/schemas/X"}`), "points to nothing"},
		{"circle through allOf and anyOf", with(`{"$ref":"#/components/schemas/A"}`), "refers to itself"},
		{"circle of one", with(`{"$ref":"#/components/schemas/C"}`), "refers to itself"},
		{"path item in a circle", `{"openapi":"3.1.0","paths":{"/a":{"$ref":"#/paths/~1a"}}}`, "circle"},
		{"deep", strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat(`}`, 5000), "nested too deep"},
		{"huge", `{"openapi":"3.1.0","x":"` + strings.Repeat("a", MaxBytes) + `"}`, "more than"},
		{"many operations", `{"openapi":"3.1.0","paths":{` + strings.Join(many, ",") + `}}`, "more than"},
		{"two equal templates", `{"openapi":"3.1.0","paths":{"/a/{b}":{"get":{}},"/a/{c}":{"get":{}}}}`, "is the same as"},
		{"a broken template", `{"openapi":"3.1.0","paths":{"/a/{b":{"get":{}}}}`, "without a name"},
		{"no type", with(`{"type":"text"}`), "is no type"},
		{"a negative length", with(`{"minLength":-1}`), "whole number"},
		{"multiple of nothing", with(`{"multipleOf":0}`), "above 0"},
		{"a schema that is a text", with(`{"properties":{"a":"string"}}`), "neither an object"},
	} {
		_, err := Compile([]byte(c.text), "")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestPatternsThatNeedBacktrackingAreToldAndNotChecked(t *testing.T) {
	a := compiled(t, `{"openapi":"3.1.0","paths":{"/a":{"get":{"parameters":[{"name":"q","in":"query","schema":{"type":"string","pattern":"^(?=a)b"}},{"name":"r","in":"query","schema":{"type":"string","pattern":"((a{100}){10}){10}"}}]}}}}`, "")
	if len(a.Unchecked) != 2 {
		t.Errorf("unchecked are %q", a.Unchecked)
	}
	if got := verdict(a, request("GET", "/a?q=x&r=y"), ""); got != "" {
		t.Error(got)
	}
}

func TestErrorsSayWhereInTheDocumentTheyAre(t *testing.T) {
	for text, want := range map[string]string{
		`{"openapi":"3.1.0","paths":{"/a":{"get":{"parameters":[{"in":"query"}]}}}}`:        "/paths/~1a/get/parameters/0",
		`{"openapi":"3.1.0","paths":{"/a":{"get":{"parameters":[{"name":"q","in":"x"}]}}}}`: "/paths/~1a/get/parameters/0/in",
		`{"openapi":"3.1.0","paths":{"/a~b":{"get":{"parameters":[{"$ref":"#/x"}]}}}}`:      "/paths/~1a~0b/get/parameters/0",
		`{"openapi":"3.1.0","paths":{"a":{"get":{}}}}`:                                      "/paths/a",
		`{"openapi":"2.0"}`:              "/openapi",
		`{"openapi":"3.1.0","paths":3}`:  "/paths",
		`{"openapi":"3.1.0","paths":{}}`: "",
		`{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"content":{"a/json":{},"json":{}}}}}}}`: "/paths/~1a/post/requestBody",
	} {
		_, err := Compile([]byte(text), "")
		var e *Error
		if !errors.As(err, &e) || e.Pointer != want || e.What == "" || e.Fix == "" {
			t.Errorf("%s: %+v, want it at %q", text, e, want)
		}
	}
}

// Each of these is small, and asks for work or memory out of proportion to its size: without its bound it would
// not end.
func TestDocumentsCannotMultiplyTheirOwnSize(t *testing.T) {
	list := func(n int, s string) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
	paths := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"/p%d":{"$ref":"#/x"},`, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	chain := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"s%d":{"allOf":[{"$ref":"#/components/schemas/s%d"}]},`, i, i+1)
		}
		return b.String() + fmt.Sprintf(`"s%d":{}`, n)
	}
	post := func(schema, more string) string {
		return `{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":` + schema + `}}}}}}` + more + `}`
	}
	wide := func(next string) string { return `{"anyOf":[` + list(300, `{"$ref":"#/y/`+next+`"}`) + `]}` }
	for _, c := range []struct{ name, text, want string }{
		{"operations that share a list of parameters", `{"openapi":"3.1.0","paths":{` + paths(9000) + `},"x":{"get":{},"parameters":[` + list(5000, `{"$ref":"#/p"}`) + `]},"p":{"name":"q","in":"query"}}`, "in all"},
		{"paths without operations", `{"openapi":"3.1.0","paths":{` + paths(11_000) + `},"x":{` + strings.Repeat(`"a":1,`, 20_000) + `"b":1}}`, "paths"},
		{"a chain of schemas", post(`{"$ref":"#/components/schemas/s0"}`, `,"components":{"schemas":{`+chain(5000)+`}}`), "leads through more"},
		{"types through layers", `{"openapi":"3.1.0","y":{"a":` + wide("b") + `,"b":` + wide("c") + `,"c":` + wide("d") + `,"d":` + wide("e") + `,"e":{}},"paths":{"/a":{"get":{"parameters":[{"name":"q","in":"query","schema":{"$ref":"#/y/a"}}]}}}}`, ""},
		{"variables of a server", `{"openapi":"3.1.0","servers":[{"url":"/{a}","variables":{"a":{"default":"` + strings.Repeat("{b}", 1000) + `"},"b":{"default":"` + strings.Repeat("{c}", 1000) + `"},"c":{"default":"` + strings.Repeat("d", 1000) + `"}}}],"paths":{"/a":{"get":{}}}}`, ""},
		{"patterns", post(`{"allOf":[`+list(500, `{"pattern":"(a{40}){40}"}`)+`]}`, ""), ""},
	} {
		_, err := Compile([]byte(c.text), "")
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A document of a hostile tenant and a body that fits it: no keyword lets a body be read again and again without
// that being counted.
func TestNoKeywordOutrunsTheBoundOfWork(t *testing.T) {
	list := func(n int, s string) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
	names := func(n int, value string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"n%d":%s,`, i, value)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	required := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"n%d",`, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	long := `"` + strings.Repeat(`\u0061`, 20_000) + `"`
	for _, c := range []struct{ name, schema, body string }{
		{"many lists of constants", `{"anyOf":[` + list(500, `{"enum":["b","c"]}`) + `]}`, long},
		{"many lengths", `{"anyOf":[` + list(500, `{"minLength":999999}`) + `]}`, long},
		{"many bounds of a long number", `{"anyOf":[` + list(100, `{"minimum":5}`) + `]}`, strings.Repeat("1", 1) + "." + strings.Repeat("1", 120_000)},
		{"dear patterns", `{"anyOf":[` + list(20, `{"pattern":"^([ab]{1,30}){1,30}c$"}`) + `]}`, `"` + strings.Repeat("a", 120_000) + `"`},
		{"many dependent names", `{"dependentRequired":{` + names(100, `["x"]`) + `}}`, `{` + list(15_000, `"a":1`) + `}`},
		{"many required names", `{"type":"array","items":{"not":{"required":[` + required(5000) + `]}}}`, `[` + list(4000, `{}`) + `]`},
		{"lists of objects as constants", `{"anyOf":[` + list(50, `{"const":[1]}`) + `]}`, `[` + list(40_000, `{}`) + `]`},
	} {
		a := compiled(t, `{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":`+c.schema+`}}}}}}}`, "")
		if got := verdict(a, request("POST", "/a", "Content-Type: application/json"), c.body); !strings.Contains(got, "more work") {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestAnEmptyBodyThatWasAnnouncedIsNone(t *testing.T) {
	for required, want := range map[string]string{"true": "body is missing", "false": ""} {
		a := compiled(t, `{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"required":`+required+`,"content":{"application/json":{"schema":{"type":"object"}}}}}}}}`, "")
		var c Checker
		got := ""
		if v := c.Body(a.Operations[0], []byte("application/json"), nil); v != nil {
			got = v.String()
		}
		if got != want {
			t.Errorf("required %s: %q, want %q", required, got, want)
		}
	}
}

func TestOpenAPI30IgnoresWhatStandsBesideAReference(t *testing.T) {
	for version, ok := range map[string]bool{"3.0.3": true, "3.1.0": false} {
		a := compiled(t, `{"openapi":"`+version+`","paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/s","maxLength":1}}}}}}},"s":{"type":"string"}}`, "")
		if got := verdict(a, request("POST", "/a", "Content-Type: application/json"), `"ab"`); (got == "") != ok {
			t.Errorf("%s: %q", version, got)
		}
	}
}

func TestADocumentThatListsCodingsTakesEncodedBodies(t *testing.T) {
	a := compiled(t, `{"openapi":"3.1.0","paths":{"/a":{"post":{"parameters":[{"name":"Content-Encoding","in":"header","schema":{"enum":["gzip"]}}],
		"requestBody":{"content":{"application/json":{"schema":{"type":"object"}}}}}}}}`, "")
	for coding, want := range map[string]string{"gzip": "", "br": "header Content-Encoding is none of the values"} {
		if got := verdict(a, request("POST", "/a", "Content-Type: application/json", "Content-Encoding: "+coding), "x"); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", coding, got, want)
		}
	}
}

// A document and a body together can ask for work that grows without bound with the depth of the body.
func TestTheWorkForARequestIsBounded(t *testing.T) {
	a := compiled(t, `{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/N"}}}}}}},
		"components":{"schemas":{"N":{"oneOf":[{"properties":{"n":{"$ref":"#/components/schemas/N"}},"required":["n"]},{"properties":{"n":{"$ref":"#/components/schemas/N"}},"required":["n"]}]}}}}`, "")
	got := verdict(a, request("POST", "/a", "Content-Type: application/json"), strings.Repeat(`{"n":`, 60)+`{}`+strings.Repeat(`}`, 60))
	if !strings.Contains(got, "more work") {
		t.Error(got)
	}
}

func TestATreeIsFollowedThroughItsReferences(t *testing.T) {
	a := compiled(t, shop, "")
	post := func(body string) string {
		return verdict(a, request("POST", "/v1/tree", "Content-Type: application/json"), body)
	}
	if got := post(`{"left":{"left":{}},"right":{}}`); got != "" {
		t.Error(got)
	}
	if got := post(`{"left":{"left":3}}`); !strings.HasPrefix(got, "body /left/left is of type number") {
		t.Error(got)
	}
	if got := post(`{"left":{"x":1}}`); !strings.Contains(got, "none of the forms") {
		t.Error(got)
	}
}

func TestHeadsThatAreGoodAllocateNothing(t *testing.T) {
	a := compiled(t, shop, "")
	r := request("GET", "/v1/orders?q=ab&page=7", "X-Trace: 0af", "Cookie: lang=fr")
	one := request("GET", "/v1/orders/12")
	var c Checker
	var m Match
	run := func() {
		a.Find("GET", r.Path(), &m)
		if v := c.Head(&m, r); v != nil {
			t.Fatal(v)
		}
		a.Find("GET", one.Path(), &m)
		if v := c.Head(&m, one); v != nil {
			t.Fatal(v)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzBody(f *testing.F) {
	a := compiled(f, shop, "")
	for _, s := range []string{`{"items":[{"sku":"ab"}]}`, `{"left":{"right":{}}}`, `[1e5,-0,"\ud83d\ude00\u12"]`, `{"a":{"a":1,"a":2}}`, `"` + "\xc3\x28" + `"`} {
		f.Add(s, "q=a&page=1")
	}
	f.Fuzz(func(t *testing.T, body, query string) {
		for _, r := range []*message.Request{
			request("POST", "/v1/orders", "Content-Type: application/json"), request("POST", "/v1/tree", "Content-Type: application/json"),
			request("POST", "/v1/orders", "Content-Type: application/x-www-form-urlencoded"), request("GET", "/v1/orders?"+query),
		} {
			if got := verdict(a, r, body); strings.ContainsAny(got, "\r\n\x00") {
				t.Fatalf("%q would stand in a log", got)
			}
		}
	})
}

func FuzzCompile(f *testing.F) {
	f.Add(shop, "/v1/orders/7")
	f.Add(`{"openapi":"3.1.0","paths":{"/{a}.{b}/x{c}y":{"get":{}},"/{a}":{"get":{}}}}`, "/a.b/xzy")
	f.Fuzz(func(t *testing.T, text, path string) {
		a, err := Compile([]byte(text), "")
		if err != nil {
			return
		}
		var m Match
		a.Find("GET", []byte(path), &m)
		if m.Operation != nil && len(m.values) != len(m.Operation.path) {
			t.Fatalf("%d values for %s", len(m.values), m.Operation.Template)
		}
	})
}
