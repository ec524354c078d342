package smug

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxRecorded   = 64               // requests or findings kept of one case
	maxHead       = 4 << 20          // bytes of a head or trailer section read before the connection is dropped
	originTimeout = 20 * time.Second // from one request of a connection to the next
)

// Record is what reached the origin during one case.
type Record struct {
	Requests []string // request lines, in order of arrival
	Findings []string // ambiguities, sorted
}

// hidden tells that a request ran which no reader of the whole message sends.
func (r Record) hidden() bool {
	return slices.ContainsFunc(r.Requests, func(line string) bool { return strings.Contains(line, "smuggled") })
}

// Recorder is the origin behind the proxy under test. It answers every request
// that it can find the end of with 200, and notes whatever another parser
// could read differently. It is safe for concurrent use.
type Recorder struct {
	mu       sync.Mutex
	requests []string
	findings map[string]bool
}

// NewRecorder gives a Recorder that has seen nothing.
func NewRecorder() *Recorder {
	return &Recorder{findings: map[string]bool{}}
}

// Reset forgets what was recorded.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
	clear(r.findings)
}

// Record gives what was recorded since the last Reset.
func (r *Recorder) Record() Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := Record{Requests: slices.Clone(r.requests), Findings: make([]string, 0, len(r.findings))}
	for f := range r.findings {
		rec.Findings = append(rec.Findings, f)
	}
	slices.Sort(rec.Findings)
	return rec
}

func (r *Recorder) find(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.findings) < maxRecorded {
		r.findings[fmt.Sprintf(format, args...)] = true
	}
}

func (r *Recorder) request(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.requests) < maxRecorded {
		r.requests = append(r.requests, line)
	}
}

// Serve answers the connections of l until ctx ends; then it closes l and
// them, and returns when the last is done.
func (r *Recorder) Serve(ctx context.Context, l net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("recording origin: %w", err)
		}
		conns.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			r.serveConn(conn)
		})
	}
}

// serveConn reads requests until their framing is lost or the peer is done.
func (r *Recorder) serveConn(conn net.Conn) {
	br := bufio.NewReaderSize(conn, 128<<10)
	for {
		if conn.SetDeadline(time.Now().Add(originTimeout)) != nil {
			return
		}
		lines, err := r.readHead(br)
		if err != nil {
			return
		}
		h := r.inspect(lines)
		r.request(lines[0])
		if h.expectContinue {
			if _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return
			}
		}
		length, err := r.readBody(br, h)
		if err != nil {
			return
		}
		if answer(conn, h, length) != nil || h.close {
			return
		}
	}
}

func answer(w io.Writer, h head, length int64) error {
	// The rest of the body is there for suites that play with flow control.
	body := fmt.Sprintf("b=%-1022d", length)
	text := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n\r\n", len(body))
	if h.method != "HEAD" {
		text += body
	}
	_, err := io.WriteString(w, text)
	return err
}

var errHeadTooLong = errors.New("head too long")

// readLine reads up to and with the next LF.
func readLine(br *bufio.Reader, left *int) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		*left -= len(part)
		line = append(line, part...)
		if *left < 0 {
			return string(line), errHeadTooLong
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return string(line), err
		}
	}
}

// readHead reads a request line and field lines, without their line ends.
func (r *Recorder) readHead(br *bufio.Reader) ([]string, error) {
	var lines []string
	left := maxHead
	for {
		line, err := readLine(br, &left)
		if err != nil {
			if len(line) > 0 || len(lines) > 0 {
				r.find("partial-head")
			}
			return nil, err
		}
		text, ended := strings.CutSuffix(line, "\r\n")
		if !ended {
			r.find("bare-lf")
			text = strings.TrimSuffix(line, "\n")
		}
		if text == "" {
			if len(lines) == 0 {
				continue // RFC 9112 2.2 lets an empty line go before a request
			}
			return lines, nil
		}
		r.inspectBytes(text)
		lines = append(lines, text)
	}
}
