package image

import (
	"bytes"
	"errors"
)

// patient is a reader that ends when ended gives an error, so that a decoder does too.
type patient struct {
	ended func() error
	r     *bytes.Reader
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if err := p.ended(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// ReadByte implements io.ByteReader.
func (p *patient) ReadByte() (byte, error) { return p.r.ReadByte() }

// maxResult bounds what is made, in bytes.
const maxResult = 64 << 20

var errResult = errors.New("what is made is too long")

// limited gathers what an encoder writes until ended gives an error.
type limited struct {
	ended func() error
	b     []byte
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if err := l.ended(); err != nil {
		return 0, err
	}
	if len(l.b)+len(p) > maxResult {
		return 0, errResult
	}
	l.b = append(l.b, p...)
	return len(p), nil
}
