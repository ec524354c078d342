package differential

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// line is one field line; its name is in lower case.
type line struct{ name, value string }

func (l line) String() string { return l.name + ": " + l.value }

// fields are field lines in the order of arrival.
type fields []line

func (f fields) get(name string) string {
	for _, l := range f {
		if l.name == name {
			return l.value
		}
	}
	return ""
}

func (f fields) count(name string) (n int) {
	for _, l := range f {
		if l.name == name {
			n++
		}
	}
	return n
}

// sorted orders lines by name. Lines of one name keep their order, which has a meaning (RFC
// 9110 section 5.3).
func (f fields) sorted() fields {
	g := slices.Clone(f)
	slices.SortStableFunc(g, func(a, b line) int { return strings.Compare(a.name, b.name) })
	return g
}

// How a body is delimited.
const (
	framingNone    = "none"
	framingLength  = "length"
	framingChunked = "chunked"
	framingClose   = "close"
)

// content is a body as it was on the wire.
type content struct {
	framing string
	body    []byte
	trailer fields
	whole   bool
}

// answer is a response with what came before it.
type answer struct {
	interim []interim
	version string
	status  int
	reason  string
	fields  fields
	content
}

type interim struct {
	status int
	fields fields
}

// request is what an origin was asked.
type request struct {
	method, target string
	fields         fields
	content
}

// wireError is a breach of the protocol by the sender.
type wireError struct{ what string }

func (e *wireError) Error() string { return e.what }

func breach(format string, args ...any) error { return &wireError{fmt.Sprintf(format, args...)} }

// cut makes an unexpected end of any error of the transport.
func cut(err error) error {
	var w *wireError
	if errors.As(err, &w) {
		return err
	}
	return io.ErrUnexpectedEOF
}

// maxLine bounds a line that is read.
const maxLine = 256 << 10

// readLine reads a line that ends with CR LF and has no other CR, LF or NUL.
func readLine(br *bufio.Reader) (string, error) {
	var b []byte
	for {
		part, err := br.ReadSlice('\n')
		b = append(b, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull || len(b) > maxLine {
			if len(b) == 0 { // an end or a reset between two messages
				return "", io.EOF
			}
			return "", cut(err)
		}
	}
	if !bytes.HasSuffix(b, []byte("\r\n")) {
		return "", breach("a line ends with LF alone: %q", b)
	}
	s := string(b[:len(b)-2])
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return "", breach("a control byte in %q", s)
		}
	}
	return s, nil
}

// readFields reads field lines up to the empty line.
func readFields(br *bufio.Reader) (fields, error) {
	var f fields
	for {
		s, err := readLine(br)
		if err != nil {
			return f, cut(err)
		}
		if s == "" {
			return f, nil
		}
		name, value, ok := strings.Cut(s, ":")
		if !ok || !token(name) {
			return f, breach("no field line: %q", s)
		}
		f = append(f, line{strings.ToLower(name), strings.Trim(value, " \t")})
	}
}

func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// framingOf finds how a body is delimited, and refuses what could be read in two ways.
func framingOf(f fields) (framing string, length int64, err error) {
	te, cl := f.count("transfer-encoding"), f.count("content-length")
	switch {
	case te > 0 && cl > 0:
		return "", 0, breach("Content-Length and Transfer-Encoding together")
	case te > 1 || te == 1 && f.get("transfer-encoding") != "chunked":
		return "", 0, breach("Transfer-Encoding is not exactly: chunked")
	case te == 1:
		return framingChunked, -1, nil
	case cl > 1:
		return "", 0, breach("several Content-Length")
	case cl == 1:
		v := f.get("content-length")
		n, err := strconv.ParseUint(v, 10, 62)
		if err != nil || v != strconv.FormatUint(n, 10) {
			return "", 0, breach("Content-Length %q", v)
		}
		return framingLength, int64(n), nil
	}
	return framingNone, -1, nil
}

// readContent reads a body. Its error is a breach; a body that was cut short is not whole.
func (c *content) readContent(br *bufio.Reader, length int64) error {
	var err error
	switch c.framing {
	case framingLength:
		c.body, err = io.ReadAll(io.LimitReader(br, length))
		c.whole = err == nil && int64(len(c.body)) == length
		return nil
	case framingClose:
		c.body, err = io.ReadAll(br)
		c.whole = err == nil
		return nil
	case framingChunked:
		err = c.readChunks(br)
		var w *wireError
		if errors.As(err, &w) {
			return err
		}
		c.whole = err == nil
		return nil
	}
	c.whole = true
	return nil
}

// readChunks reads a chunked body without extensions, which nobody here has a reason to send.
func (c *content) readChunks(br *bufio.Reader) error {
	for {
		s, err := readLine(br)
		if err != nil {
			return cut(err)
		}
		n, err := strconv.ParseUint(s, 16, 40)
		if err != nil || strings.ContainsAny(s, "+_xX") {
			return breach("chunk size %q", s)
		}
		if n == 0 {
			c.trailer, err = readFields(br)
			return err
		}
		b := make([]byte, n+2)
		m, err := io.ReadFull(br, b)
		if c.body = append(c.body, b[:min(m, int(n))]...); err != nil {
			return cut(err)
		}
		if string(b[n:]) != "\r\n" {
			return breach("a chunk ends with %q", b[n:])
		}
	}
}

// readAnswer reads the answer to a request with this method; io.EOF when there is none.
func readAnswer(br *bufio.Reader, method string, onInterim func(status int)) (*answer, error) {
	a := &answer{}
	for {
		if err := a.readHead(br); err != nil {
			return a, err
		}
		if a.status >= 200 || a.status == 101 {
			break
		}
		if a.fields.count("content-length")+a.fields.count("transfer-encoding") > 0 {
			return a, breach("framing fields with status %d (RFC 9110 section 8.6)", a.status)
		}
		a.interim = append(a.interim, interim{a.status, a.fields})
		onInterim(a.status)
	}
	framing, length, err := framingOf(a.fields)
	if err != nil {
		return a, err
	}
	switch {
	case a.status == 101:
		a.framing = framingClose // what the tunnel brings
	case a.status == 204 && framing != framingNone:
		return a, breach("framing fields with status 204 (RFC 9110 section 8.6)")
	case a.status == 204 || a.status == 304 || method == "HEAD":
		a.framing, a.whole = framingNone, true
		return a, nil
	case framing == framingNone:
		a.framing = framingClose
	default:
		a.framing = framing
	}
	return a, a.readContent(br, length)
}

func (a *answer) readHead(br *bufio.Reader) error {
	s, err := readLine(br)
	if err != nil {
		return err
	}
	version, rest, _ := strings.Cut(s, " ")
	code, reason, ok := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if version != "HTTP/1.1" && version != "HTTP/1.0" || !ok || err != nil || len(code) != 3 || status < 100 {
		return breach("status line %q", s)
	}
	a.version, a.status, a.reason = version, status, reason
	a.fields, err = readFields(br)
	return err
}

// readRequest reads what an edge sends to an origin; head is told before the body is read.
func readRequest(br *bufio.Reader, head func(*request)) (*request, error) {
	r := &request{}
	s, err := readLine(br)
	if err != nil {
		return r, err
	}
	part := strings.Split(s, " ")
	if len(part) != 3 || !token(part[0]) || part[1] == "" || part[2] != "HTTP/1.1" || strings.ContainsRune(part[1], '#') {
		return r, breach("request line %q", s)
	}
	r.method, r.target = part[0], part[1]
	if r.fields, err = readFields(br); err != nil {
		return r, err
	}
	if n := r.fields.count("host"); n != 1 {
		return r, breach("%d Host fields", n)
	}
	framing, length, err := framingOf(r.fields)
	if err != nil {
		return r, err
	}
	r.framing = framing
	head(r)
	return r, r.readContent(br, length)
}
