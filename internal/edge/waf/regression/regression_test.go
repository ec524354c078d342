package regression

import "testing"

func TestCasesAreThoseOfTheRuleSet(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	expects, bodies := 0, 0
	for _, c := range cases {
		if c.Method == "" || c.Rule < 900000 {
			t.Fatalf("%+v", c)
		}
		expects += len(c.Expect)
		if c.Body != "" {
			bodies++
		}
	}
	if len(cases) < 4600 || expects < 3000 || bodies < 500 {
		t.Errorf("%d requests, %d rules to match, %d bodies", len(cases), expects, bodies)
	}
}

func TestParseKeepsWhatIsWrong(t *testing.T) {
	c := Parse("GET /a b HTTP/1.1\r\nHost: x\r\nX:  y \r\n\r\nbody\r\n\r\n")
	if c.Method != "GET" || c.Target != "/a b" || c.Proto != "HTTP/1.1" || len(c.Fields) != 2 || c.Fields[1].Value != "y" || c.Body != "body\r\n\r\n" {
		t.Errorf("%+v", c)
	}
}
