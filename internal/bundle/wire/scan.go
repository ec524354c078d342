package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// scan looks through JSON before anything is made of it: how deep it goes, and how many values there are of which each
// may become a large struct, though it is written in a byte or two. That it is well formed is for the decoder to find.
func scan(data []byte, most int) error {
	if len(data) > most {
		return fmt.Errorf("has %d bytes; %d are the most", len(data), most)
	}
	values, depth := 0, 0
	first := true // a value may begin here
	for i := 0; i < len(data); i++ {
		switch c := data[i]; c {
		case '"':
			end, err := text(data, i+1)
			if err != nil {
				return err
			}
			i, first = end, false
		case '{', '[':
			values++
			if depth++; depth > maxDepth {
				return fmt.Errorf("has more than %d values in one another", maxDepth)
			}
			first = c == '['
		case '}', ']':
			depth--
			first = false
		case ',', ':':
			first = true
		case ' ', '\t', '\n', '\r':
		default:
			if first { // a number, true, false or null, which a list of structs takes for an empty one
				values++
			}
			first = false
		}
		if values > maxValues {
			return fmt.Errorf("has more than %d values", maxValues)
		}
	}
	return nil
}

var errText = errors.New("a text has no end")

// text finds the end of a text, and looks at each byte but once.
func text(data []byte, i int) (int, error) {
	end := -1 // the next quote
	for i <= len(data) {
		if end < i {
			n := bytes.IndexByte(data[i:], '"')
			if n < 0 {
				break
			}
			end = i + n
		}
		escape := bytes.IndexByte(data[i:end], '\\')
		if escape < 0 {
			return end, nil
		}
		i += escape + 2
	}
	return 0, errText
}

// mangled says whether the encoder replaced bytes of a text that are no UTF-8. It escapes what it puts in their place, and
// writes the same character as it is where it was one.
func mangled(data []byte) bool {
	if !bytes.Contains(data, []byte(`\ufffd`)) {
		return false
	}
	for i := 0; i+5 < len(data); i++ {
		if data[i] == '\\' {
			if string(data[i:i+6]) == `\ufffd` {
				return true
			}
			i++
		}
	}
	return false
}
