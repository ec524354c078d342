package syntax

import "testing"

func TestEntityTagRFC9110Section883(t *testing.T) {
	for in, want := range map[string]struct {
		opaque   string
		weak, ok bool
	}{
		`"a"`: {"a", false, true}, ` W/"a,b" `: {"a,b", true, true}, `""`: {"", false, true},
		`w/"a"`: {}, `a`: {}, `"a`: {}, `"a"b"`: {}, `"`: {}, ``: {}, `W/`: {}, `"a", "b"`: {},
	} {
		opaque, weak, ok := EntityTag([]byte(in))
		if string(opaque) != want.opaque || weak != want.weak || ok != want.ok {
			t.Errorf("%s: %q, weak %v, %v", in, opaque, weak, ok)
		}
	}
}

func TestNextTagEndsAtACommaOutsideOfQuotationMarks(t *testing.T) {
	var got []string
	for list := []byte(`"a,b", W/"c",,"d`); len(list) > 0; {
		var member []byte
		member, list = NextTag(list)
		got = append(got, string(member))
	}
	if len(got) != 4 || got[0] != `"a,b"` || got[1] != ` W/"c"` || got[2] != "" || got[3] != `"d` {
		t.Errorf("%q", got)
	}
}
