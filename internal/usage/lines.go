package usage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// lines reads lines of a bounded length; empty ones are left out.
type lines struct {
	s    *bufio.Scanner
	most int
	n    int
}

func newLines(from io.Reader, most int) *lines {
	l := &lines{s: bufio.NewScanner(from), most: most}
	l.s.Buffer(nil, most)
	return l
}

// next gives a line, good until the next call, or io.EOF.
func (l *lines) next() ([]byte, error) {
	for l.s.Scan() {
		l.n++
		if b := bytes.TrimSpace(l.s.Bytes()); len(b) > 0 {
			return b, nil
		}
	}
	switch err := l.s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, &BreakError{Line: l.n + 1, Why: fmt.Sprintf("the line is longer than %d bytes", l.most)}
	case err != nil:
		return nil, fmt.Errorf("usage: line %d: %w", l.n+1, err)
	}
	return nil, io.EOF
}
