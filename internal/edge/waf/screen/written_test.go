package screen

import "testing"

// TestNamesThatTheClientChooses: rules keep names of arguments and fields as variables, which
// other rules find by an expression.
func TestNamesThatTheClientChooses(t *testing.T) {
	for pl := 1; pl <= 4; pl++ {
		s, w := newScreen(t, pl, 0), newEngine(t, pl, "")
		for _, name := range []string{
			"multipart_headers_content_types", "MULTIPART_HEADERS_CONTENT_TYPES_1", "x-multİpart_headers_content_types_", "multipart_headers_content_type",
			"rfi_parameter_x", "header_name_920450_x", "paramcounter_x", "multipart-headers",
		} {
			arg, field := shopRequest("static", 1), shopRequest("static", 1)
			arg.Target = []byte("/?" + name + "=a")
			field.Fields = append(field.Fields, Field{[]byte(name), []byte("a")})
			for _, q := range []*Request{&arg, &field} {
				if s.Check(q, nil).Reason == Clean {
					compare(t, w, q)
				}
			}
		}
	}
}
