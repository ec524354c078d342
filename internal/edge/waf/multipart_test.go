package waf

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

const formData = "multipart/form-data; boundary=x"

// formOf is a form in parts: name and value in turn. A name that begins with @ is that of a file.
func formOf(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		name, file := strings.CutPrefix(pairs[i], "@")
		fmt.Fprintf(&b, "--x\r\nContent-Disposition: form-data; name=%q", name)
		if file {
			b.WriteString(`; filename="a.txt"` + "\r\nContent-Type: text/plain")
		}
		b.WriteString("\r\n\r\n" + pairs[i+1] + "\r\n")
	}
	return b.String() + "--x--\r\n"
}

func TestOwnRulesReadFormsInParts(t *testing.T) {
	many := []string{}
	for i := range maxParts - 1 {
		many = append(many, fmt.Sprint("a", i), "v")
	}
	for _, c := range []struct {
		name  string
		when  v1.WafCondition
		body  string
		kind  string
		found bool
	}{
		{"an argument", v1.WafCondition{Target: "argument:coupon", Equals: []string{"FREE"}}, formOf("sku", "1", "coupon", "FREE"), formData, true},
		{"another argument", v1.WafCondition{Target: "argument:coupon", Equals: []string{"FREE"}}, formOf("sku", "FREE", "coupon", "x"), formData, false},
		{"any argument", v1.WafCondition{Target: "argument", Prefix: []string{"ref-"}}, formOf("sku", "1", "a", "ref-7"), formData, true},
		{"there is one", v1.WafCondition{Target: "argument:empty"}, formOf("empty", ""), formData, true},
		{"what is not decoded", v1.WafCondition{Target: "argument:a", Equals: []string{"b c"}}, formOf("a", "b+c"), formData, false},
		{"lines and a boundary in a value", v1.WafCondition{Target: "argument:a", Equals: []string{"one\r\n--y\r\ntwo"}}, formOf("a", "one\r\n--y\r\ntwo"), formData, true},
		{"one of several of a name", v1.WafCondition{Target: "argument:a", Equals: []string{"2"}}, formOf("a", "1", "a", "2"), formData, true},
		{"case of names counts", v1.WafCondition{Target: "argument:Coupon"}, formOf("coupon", "1"), formData, false},
		{"case of the type does not", v1.WafCondition{Target: "argument:a"}, formOf("a", "1"), "Multipart/Form-Data; boundary=\"x\"", true},
		{"a file", v1.WafCondition{Target: "argument"}, formOf("@a", "1"), formData, false},
		{"behind a file", v1.WafCondition{Target: "argument:b"}, formOf("@a", strings.Repeat("z", 5000), "b", "1"), formData, true},
		{"an end in the middle", v1.WafCondition{Target: "argument:b", Equals: []string{"beg"}}, strings.TrimSuffix(formOf("a", "1", "b", "beg"), "\r\n--x--\r\n"), formData, true},
		{"a fault behind it", v1.WafCondition{Target: "argument:a"}, strings.TrimSuffix(formOf("a", "1"), "--x--\r\n") + "--x\r\nno head\r\n\r\n", formData, true},
		{"the last of many", v1.WafCondition{Target: "argument:last"}, formOf(append(many, "last", "1")...), formData, true},
		{"one too many", v1.WafCondition{Target: "argument:last"}, formOf(append(many, "more", "1", "last", "1")...), formData, false},
		{"no boundary", v1.WafCondition{Target: "argument"}, formOf("a", "1"), "multipart/form-data", false},
		{"another type", v1.WafCondition{Target: "argument"}, formOf("a", "1"), "multipart/mixed; boundary=x", false},
	} {
		cond, err := newCondition(&c.when)
		if err != nil {
			t.Fatal(err)
		}
		g := newRig(t, Config{}, v1.WafPolicySpec{})
		x := g.exchange(request{method: "POST", target: "/cart", fields: []string{"Content-Type", c.kind}, body: []string{c.body}})
		var s sheet
		for range 2 { // a sheet is used again
			s.fill(x, []byte(c.body), false)
			if got := cond.found(x, &s); got != c.found {
				t.Errorf("%s: %v", c.name, got)
			}
			s.clear()
		}
		if len(s.parts.list) > 0 || s.parts.text.Cap() > maxPartsKept {
			t.Errorf("%s: a sheet keeps what it read", c.name)
		}
	}
}

func TestAnOwnRuleRefusesAFormInParts(t *testing.T) {
	g := newRig(t, Config{}, v1.WafPolicySpec{InboundThreshold: 10_000, Rules: []v1.WafRule{
		{Name: "mine", When: []v1.WafCondition{{Target: "argument:coupon", Equals: []string{"FREE"}}}},
	}})
	for coupon, want := range map[string]string{"FREE": "deny", "SUMMER": "pass"} {
		_, m, _ := g.do(request{method: "POST", target: "/cart", fields: []string{"Content-Type", formData}, body: []string{formOf("coupon", coupon)}})
		if m.Code != want {
			t.Errorf("%s: %+v", coupon, m)
		}
	}
}

// FuzzFormParts: whatever a client sends, what is read of it is bounded by what it sent.
func FuzzFormParts(f *testing.F) {
	f.Add(formData, formOf("a", "1", "@b", "2"))
	f.Add(formData, "--x\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41=\r\n=4\r\n--x--")
	f.Add("multipart/form-data; boundary=\"\"", "--\r\n\r\n--")
	f.Add("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name*=utf-8''a%ff\r\n\r\n")
	f.Fuzz(func(t *testing.T, kind, body string) {
		var p parts
		p.fill([]byte(kind), []byte(body))
		total := 0
		for _, part := range p.list {
			if part.from > part.to || part.to > p.text.Len() {
				t.Fatalf("%+v", part)
			}
			total += part.to - part.from
		}
		if total > len(body) || len(p.list) > maxParts {
			t.Errorf("%d parts with %d bytes of %d", len(p.list), total, len(body))
		}
		p.reset()
	})
}
