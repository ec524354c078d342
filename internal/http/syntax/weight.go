package syntax

// Weight reads q among the parameters of a member of Accept and its like, in thousandths: 1000 where there is none,
// and false where it is no qvalue (RFC 9110 section 12.4.2).
func Weight(params []byte) (thousandths int, ok bool) {
	for len(params) > 0 {
		end := 0
		for end < len(params) && params[end] != ';' {
			end++
		}
		p := Trim(params[:end])
		params = params[min(end+1, len(params)):]
		if len(p) >= 2 && p[0]|0x20 == 'q' && p[1] == '=' {
			return qvalue(p[2:])
		}
	}
	return 1000, true
}

func qvalue(p []byte) (thousandths int, ok bool) {
	if len(p) == 0 || len(p) > 5 || p[0] != '0' && p[0] != '1' || len(p) > 1 && p[1] != '.' {
		return 0, false
	}
	n, unit := int(p[0]-'0')*1000, 100
	for i := 2; i < len(p); i++ {
		if !Digit(p[i]) {
			return 0, false
		}
		n += int(p[i]-'0') * unit
		unit /= 10
	}
	return n, n <= 1000
}
