package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
)

// mark is a field that only the origin's answers have: they show that a request came through.
const mark = "X-Origin"

// origin answers every request alike, whatever it is, so that what refuses one is the server before it.
type origin struct {
	listener net.Listener
	answer   string
	reached  atomic.Int64
}

func newOrigin() (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	body := strings.Repeat("x", 1<<10)
	return &origin{listener: l, answer: fmt.Sprintf("HTTP/1.1 200 OK\r\n%s: yes\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n%s", mark, len(body), body)}, nil
}

func (o *origin) addr() string { return o.listener.Addr().String() }

// run serves until ctx ends.
func (o *origin) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = o.listener.Close() })
	defer stop()
	for {
		c, err := o.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			end := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer end()
			_ = o.serve(c)
		}()
	}
}

func (o *origin) serve(c net.Conn) error {
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		head, err := readHead(in)
		if err != nil {
			return err
		}
		if err := head.skipBody(in); err != nil {
			return err
		}
		o.reached.Add(1)
		answer := o.answer
		if strings.HasPrefix(line, "HEAD ") {
			answer, _, _ = strings.Cut(answer, "\r\n\r\n")
			answer += "\r\n\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil || head.closes {
			return err
		}
	}
}

// head is what a peer needs of the fields.
type head struct {
	length          int64
	chunked, closes bool
	fields          map[string]string // by canonical name, the last
}

var errHead = errors.New("a head that cannot be read")

func readHead(in *bufio.Reader) (h head, err error) {
	h.fields = map[string]string{}
	for n := 0; ; n++ {
		line, err := in.ReadString('\n')
		if err != nil {
			return h, err
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			break
		}
		if n > 2000 || len(line) > 1<<20 {
			return h, errHead
		}
		k, v, _ := strings.Cut(line, ":")
		h.fields[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(k))] = strings.TrimSpace(v)
	}
	h.chunked = strings.Contains(strings.ToLower(h.fields["Transfer-Encoding"]), "chunked")
	h.closes = strings.EqualFold(h.fields["Connection"], "close")
	if v := h.fields["Content-Length"]; v != "" && !h.chunked {
		if h.length, err = strconv.ParseInt(v, 10, 64); err != nil || h.length < 0 {
			return h, errHead
		}
	}
	return h, nil
}

func (h *head) skipBody(in *bufio.Reader) error {
	if !h.chunked {
		_, err := in.Discard(int(h.length))
		return err
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		digits, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 31)
		if err != nil {
			return errHead
		}
		if n == 0 {
			_, err := readHead(in) // trailers
			return err
		}
		if _, err := in.Discard(int(n) + 2); err != nil {
			return err
		}
	}
}
