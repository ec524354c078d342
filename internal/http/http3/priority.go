package http3

import "github.com/relais-edge/relais/internal/http/syntax"

// priority is that of RFC 9218 section 4.
type priority struct {
	urgency     int8 // 0 to 7, 0 first
	incremental bool
}

// defaultPriority is that of a request that says nothing.
const defaultUrgency = 3

// readPriority reads a Priority field value (RFC 9218 section 4): a dictionary of which u and
// i count. What is malformed or unknown is passed over, as section 5 has it.
func readPriority(v []byte) priority {
	p := priority{urgency: defaultUrgency}
	for len(v) > 0 {
		var item []byte
		if item, v = syntax.NextItem(v); len(item) == 0 {
			continue
		}
		value := []byte("?1")
		key := item
		for i, c := range item {
			if c == '=' {
				key, value = item[:i], item[i+1:]
				break
			}
			if c == ';' { // a parameter of a key without value
				key = item[:i]
				break
			}
		}
		for i, c := range value {
			if c == ';' {
				value = value[:i]
				break
			}
		}
		switch {
		case len(key) != 1:
		case key[0] == 'u' && len(value) == 1 && value[0] >= '0' && value[0] <= '7':
			p.urgency = int8(value[0] - '0')
		case key[0] == 'i' && string(value) == "?1":
			p.incremental = true
		case key[0] == 'i' && string(value) == "?0":
			p.incremental = false
		}
	}
	return p
}
