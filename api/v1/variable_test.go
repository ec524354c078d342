package v1

import (
	"slices"
	"strings"
	"testing"
)

func TestTemplateSplitsAtVariables(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []Segment
	}{
		{"", nil},
		{"a", []Segment{{Text: "a"}}},
		{"${client.ip}", []Segment{{Variable: VarClientIP}}},
		{"a${client.ip}${request.id}b", []Segment{{Text: "a"}, {Variable: VarClientIP}, {Variable: VarRequestID}, {Text: "b"}}},
		{"${x}${client.ip", []Segment{{Text: "${x}${client.ip"}}},
		{"`${x}` $${request.id}", []Segment{{Text: "`${x}` $"}, {Variable: VarRequestID}}},
		{"${${request.id}", []Segment{{Text: "${"}, {Variable: VarRequestID}}},
	} {
		if got := Template(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%q: %+v, want %+v", c.in, got, c.want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"a${client.ip}b", "${", "$${request.id}}", "${${request.id}}${nope.x}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b strings.Builder
		last := Segment{Variable: "x"}
		for _, seg := range Template(s) {
			if seg.Variable != "" {
				b.WriteString("${" + string(seg.Variable) + "}")
			} else if b.WriteString(seg.Text); seg.Text == "" || last.Variable == "" {
				t.Errorf("%q: an empty text, or two in a row", s)
			}
			last = seg
		}
		if b.String() != s {
			t.Errorf("%q came back as %q", s, b.String())
		}
		for _, at := range []place{inRequest, inResponse, inPage} {
			(&checker{}).template("value", s, at)
		}
	})
}
