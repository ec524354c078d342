package smug

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
)

// head is what the recorder needs of a request head to find its end and to
// answer it.
type head struct {
	method         string
	contentLength  []string
	transferCoding []string
	expectContinue bool
	close          bool // close after the answer
}

// inspectBytes notes bytes that no line of a head may hold (RFC 9112 2.2, RFC 9110 5.5).
func (r *Recorder) inspectBytes(line string) {
	for i := range len(line) {
		switch b := line[i]; {
		case b == '\r':
			r.find("bare-cr")
		case (b < 0x20 && b != '\t') || b == 0x7f:
			r.find("ctl-0x%02x", b)
		}
	}
}

// inspect notes what is ambiguous in a head.
func (r *Recorder) inspect(lines []string) head {
	version := r.inspectRequestLine(lines[0])
	h := head{close: version == "1.0"}
	h.method, _, _ = strings.Cut(lines[0], " ")
	hosts := 0
	for _, line := range lines[1:] {
		name, value, ok := r.inspectField(line)
		if !ok {
			continue
		}
		switch name {
		case "host":
			hosts++
		case "content-length":
			h.contentLength = append(h.contentLength, value)
		case "transfer-encoding":
			h.transferCoding = append(h.transferCoding, value)
		case "content_length", "transfer_encoding":
			r.find("underscore-framing")
		case "expect":
			h.expectContinue = h.expectContinue || strings.EqualFold(value, "100-continue")
		case "connection":
			for option := range strings.SplitSeq(value, ",") {
				h.close = h.close || strings.EqualFold(strings.TrimSpace(option), "close")
			}
		}
	}
	if hosts > 1 {
		r.find("dup-host")
	}
	if hosts == 0 && version == "1.1" {
		r.find("no-host")
	}
	r.inspectFraming(h, version)
	return h
}

// inspectRequestLine gives the version, or "" when the line is not one that
// RFC 9112 3 allows.
func (r *Recorder) inspectRequestLine(line string) string {
	parts := strings.Split(line, " ")
	if len(parts) == 3 && isToken(parts[0]) && isTarget(parts[1]) {
		if version, ok := strings.CutPrefix(parts[2], "HTTP/"); ok && (version == "1.0" || version == "1.1") {
			return version
		}
	}
	r.find("bad-request-line")
	if strings.HasSuffix(line, "1.0") {
		return "1.0"
	}
	if strings.HasSuffix(line, "1.1") {
		return "1.1"
	}
	return ""
}

// inspectField gives the lower-case name and the trimmed value.
func (r *Recorder) inspectField(line string) (name, value string, ok bool) {
	if line[0] == ' ' || line[0] == '\t' {
		r.find("obs-fold")
		return "", "", false
	}
	name, value, ok = strings.Cut(line, ":")
	if !ok {
		r.find("no-colon")
		return "", "", false
	}
	if !isToken(name) {
		r.find("bad-name:%s", strconv.Quote(short(name)))
	}
	return strings.ToLower(strings.TrimSpace(name)), strings.Trim(value, " \t"), true
}

// inspectFraming notes every way to state the length of the body but one
// Content-Length or one Transfer-Encoding: chunked (RFC 9112 6).
func (r *Recorder) inspectFraming(h head, version string) {
	if len(h.contentLength) > 1 {
		r.find("dup-cl")
	}
	for _, v := range h.contentLength {
		if !allBytes(v, isDigit) {
			r.find("bad-cl:%s", strconv.Quote(short(v)))
		}
	}
	if len(h.contentLength) > 0 && len(h.transferCoding) > 0 {
		r.find("cl+te")
	}
	if len(h.transferCoding) > 1 {
		r.find("dup-te")
	}
	for _, v := range h.transferCoding {
		if !strings.EqualFold(v, "chunked") {
			r.find("te:%s", strconv.Quote(short(v)))
		}
	}
	if len(h.transferCoding) > 0 && version == "1.0" {
		r.find("te-in-1.0")
	}
}

var errFramingLost = errors.New("framing lost")

// readBody reads the body as most origins would: chunked when any
// Transfer-Encoding is there, else the first Content-Length. It gives its length.
func (r *Recorder) readBody(br *bufio.Reader, h head) (int64, error) {
	if len(h.transferCoding) > 0 {
		return r.readChunks(br)
	}
	if len(h.contentLength) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseInt(h.contentLength[0], 10, 31)
	if err != nil || n < 0 {
		n = 0
	}
	return io.CopyN(io.Discard, br, n)
}

func (r *Recorder) readChunks(br *bufio.Reader) (int64, error) {
	var total int64
	left := maxHead
	for {
		size, err := r.readChunkSize(br, &left)
		if err != nil {
			return total, err
		}
		if size == 0 {
			return total, r.readTrailer(br, &left)
		}
		n, err := io.CopyN(io.Discard, br, size)
		total += n
		if err != nil {
			return total, err
		}
		end, err := readLine(br, &left)
		if err != nil {
			return total, err
		}
		if end != "\r\n" {
			r.find("chunk-bad-end")
		}
	}
}

func (r *Recorder) readChunkSize(br *bufio.Reader, left *int) (int64, error) {
	line, err := readLine(br, left)
	if err != nil {
		return 0, err
	}
	if !strings.HasSuffix(line, "\r\n") {
		r.find("chunk-bare-lf")
	}
	text := strings.TrimRight(line, "\r\n")
	if i := strings.IndexAny(text, "; \t"); i >= 0 {
		r.find("chunk-ext")
		text = text[:i]
	}
	if !allBytes(text, isHex) {
		r.find("bad-chunk-size:%s", strconv.Quote(short(text)))
		return 0, errFramingLost
	}
	size, err := strconv.ParseInt(text, 16, 32)
	if err != nil {
		r.find("chunk-overflow")
		return 0, errFramingLost
	}
	return size, nil
}

// readTrailer notes fields that must never come in a trailer section (RFC 9110 6.5.1).
func (r *Recorder) readTrailer(br *bufio.Reader, left *int) error {
	for {
		line, err := readLine(br, left)
		if err != nil {
			return err
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return nil
		}
		name, _, _ := strings.Cut(line, ":")
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case "content-length", "transfer-encoding", "host", "x-smug":
			r.find("trailer:%s", name)
		}
	}
}

// short keeps a finding readable.
func short(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func allBytes(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return s != ""
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isHex(b byte) bool {
	return isDigit(b) || (b >= 'a' && b <= 'f') || (b >= 'A' && b <= 'F')
}

func isTchar(b byte) bool {
	return isDigit(b) || (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

func isToken(s string) bool { return allBytes(s, isTchar) }

// isTarget tells that s has no byte at which a parser could end a request target.
func isTarget(s string) bool {
	return allBytes(s, func(b byte) bool { return b > 0x20 && b != 0x7f })
}
