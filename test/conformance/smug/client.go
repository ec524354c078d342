package smug

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Garbage stands among the statuses for bytes that are no HTTP/1 answer, as
// an HTTP/0.9 server sends them.
const Garbage = 9

const (
	dialTimeout  = 2 * time.Second
	writeTimeout = 3 * time.Second
	maxAnswers   = 1 << 20 // bytes read of one connection
)

// exchange is what came back on one connection.
type exchange struct {
	statuses []int
	closed   bool
}

// sendHTTP1 sends the bytes of a case on a connection of their own and counts
// the answers. It waits at most patience for those that the case expects, and
// then as long as quiet for one too many.
func sendHTTP1(ctx context.Context, addr string, c Case, t timing) exchange {
	conn, err := dial(ctx, addr)
	if err != nil {
		return exchange{closed: true}
	}
	defer conn.Close()
	// Large heads may be refused before they are sent in full, so the answer is
	// read at the same time.
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, _ = io.WriteString(conn, c.Raw)
	}()
	defer func() { _ = conn.Close(); <-sent }()

	var all []byte
	var out exchange
	buf := make([]byte, 64<<10)
	deadline := time.Now().Add(t.patience)
	for len(all) < maxAnswers {
		_ = conn.SetReadDeadline(deadline)
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		out.statuses = finalStatuses(all, strings.HasPrefix(c.Raw, "HEAD "))
		if err != nil {
			out.closed = !errors.Is(err, os.ErrDeadlineExceeded)
			break
		}
		if len(out.statuses) >= c.Answers {
			deadline = time.Now().Add(t.quiet)
		}
	}
	return out
}

func dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, "tcp", addr)
}

// finalStatuses finds the status codes of the final answers in b. bodyless
// tells that the answers are to HEAD. It stops where the framing ends.
func finalStatuses(b []byte, bodyless bool) []int {
	var codes []int
	for len(b) > 0 {
		if !bytes.HasPrefix(b, []byte("HTTP/")) {
			if len(codes) == 0 && !strings.HasPrefix("HTTP/", string(b)) {
				codes = append(codes, Garbage)
			}
			return codes
		}
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end < 0 {
			return codes
		}
		head := string(b[:end])
		b = b[end+4:]
		code := statusCode(head)
		if code >= 100 && code < 200 {
			continue
		}
		codes = append(codes, code)
		length, ok := bodyLength(head, b)
		if bodyless || code == 204 || code == 304 {
			length, ok = 0, true
		}
		if !ok {
			return codes
		}
		b = b[min(length, len(b)):]
	}
	return codes
}

func statusCode(head string) int {
	const at = len("HTTP/1.1 ")
	if len(head) < at+3 {
		return 0
	}
	code, _ := strconv.Atoi(head[at : at+3])
	return code
}

// bodyLength is how many bytes of rest the body of an answer takes; ok is
// false when it goes to the end of the connection or is not there in full.
func bodyLength(head string, rest []byte) (n int, ok bool) {
	for _, line := range strings.Split(head, "\r\n")[1:] {
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "content-length":
			n, err := strconv.Atoi(strings.TrimSpace(value))
			return n, err == nil && n >= 0
		case "transfer-encoding":
			return chunksLength(rest)
		}
	}
	return 0, false
}

func chunksLength(b []byte) (n int, ok bool) {
	for {
		end := bytes.Index(b[n:], []byte("\r\n"))
		if end < 0 {
			return n, false
		}
		text, _, _ := strings.Cut(string(b[n:n+end]), ";")
		size, err := strconv.ParseUint(strings.TrimSpace(text), 16, 31)
		if err != nil {
			return n, false
		}
		n += end + 2
		if size > 0 {
			n += int(size) + 2
			if n > len(b) {
				return n, false
			}
			continue
		}
		for { // trailer section
			end := bytes.Index(b[n:], []byte("\r\n"))
			if end < 0 {
				return n, false
			}
			n += end + 2
			if end == 0 {
				return n, true
			}
		}
	}
}
