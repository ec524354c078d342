package document

import (
	"strconv"
	"strings"
)

// Problem is something wrong in a file, in the words of the person who writes it.
type Problem struct {
	// File as it was named; Line and Column from 1, 0 when the whole file is meant.
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// Document is Kind organization/name, as far as it is known.
	Document string `json:"document,omitempty"`
	// Field such as spec.routes[2].match[0].path.regex; empty when the text itself is meant.
	Field string `json:"field,omitempty"`
	// What is wrong.
	What string `json:"what"`
	// Fix says how to mend it; it may be empty.
	Fix string `json:"fix,omitempty"`
}

// String gives one line: shop.yaml:12:7: Site demo/shop spec.routes[0].pool: what is wrong; how to mend it.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		b.WriteString(":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column))
	}
	b.WriteString(": ")
	where := strings.TrimSpace(p.Document + " " + p.Field)
	if where != "" {
		b.WriteString(where + ": ")
	}
	b.WriteString(p.What)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}
