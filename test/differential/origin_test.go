package differential

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// The fields by which a case and its origin speak.
const (
	caseField = "X-Case" // which request of which case
	planField = "X-Plan" // how the origin answers
	fromField = "X-From" // on every answer of the origin
)

// origin is a server that reads raw and strictly, remembers what it was asked, and answers
// as the request's plan says.
type origin struct {
	ln net.Listener
	wg sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	seen     map[string][]*request // by the value of caseField
	breaches []string
}

func newOrigin() (*origin, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{ln: ln, conns: map[net.Conn]struct{}{}, seen: map[string][]*request{}}
	o.wg.Go(o.accept)
	return o, nil
}

func (o *origin) addr() string { return o.ln.Addr().String() }

func (o *origin) accept() {
	for {
		nc, err := o.ln.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.conns[nc] = struct{}{}
		o.mu.Unlock()
		o.wg.Go(func() { o.serve(nc) })
	}
}

// close ends all connections and waits until everything that was sent has been read.
func (o *origin) close() {
	_ = o.ln.Close()
	o.wg.Wait()
}

func (o *origin) note(r *request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := r.fields.get(strings.ToLower(caseField))
	o.seen[id] = append(o.seen[id], r)
}

func (o *origin) serve(nc net.Conn) {
	defer nc.Close()
	br := bufio.NewReaderSize(nc, 64<<10)
	for {
		var p plan
		r, err := readRequest(br, func(r *request) {
			o.note(r)
			p = planOf(r)
			if strings.EqualFold(r.fields.get("expect"), "100-continue") && !p.refuse {
				_, _ = io.WriteString(nc, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			if p.refuse {
				_, _ = nc.Write(p.bytes(r))
				_ = nc.(*net.TCPConn).CloseWrite()
			}
		})
		var w *wireError
		if errors.As(err, &w) {
			o.mu.Lock()
			o.breaches = append(o.breaches, fmt.Sprintf("case %s: %s", r.fields.get(strings.ToLower(caseField)), w.what))
			o.mu.Unlock()
		}
		if err != nil || !r.whole || p.refuse {
			return
		}
		if _, err := nc.Write(p.bytes(r)); err != nil {
			return
		}
		if p.upgrade {
			_, _ = io.Copy(nc, br)
			return
		}
		if p.closes() {
			return
		}
	}
}

// plan is how an origin answers.
type plan struct {
	status  int
	size    int
	framing string
	old     bool // as HTTP/1.0
	interim int  // status of an interim answer; 0 for none
	trailer bool
	extra   string
	bad     string
	refuse  bool // answer before the body is read, and close
	upgrade bool
}

func planOf(r *request) plan {
	v, _ := url.ParseQuery(r.fields.get(strings.ToLower(planField)))
	n := func(name string, def int) int {
		if i, err := strconv.Atoi(v.Get(name)); err == nil {
			return i
		}
		return def
	}
	return plan{
		status: n("status", 200), size: n("size", 5), framing: v.Get("framing"), old: v.Has("old"), interim: n("interim", 0),
		trailer: v.Has("trailer"), extra: v.Get("extra"), bad: v.Get("bad"), refuse: v.Has("refuse"),
		upgrade: v.Has("upgrade") && r.fields.get("upgrade") != "",
	}
}

func (p *plan) closes() bool {
	return p.framing == framingClose || p.old || p.bad != "" || p.extra == "close"
}

// extras are field lines that an answer may have.
func extras(name string) string {
	switch name {
	case "hop":
		return "Connection: X-Hop\r\nX-Hop: for the edge\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n"
	case "close":
		return "Connection: close\r\n"
	case "cookies":
		return "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nset-cookie: a=3\r\n"
	case "names":
		return "x-lower: 1\r\nX-UPPER: 2\r\nx-MiXeD: 3\r\nX_Under: 4\r\n"
	case "values":
		return "X-Empty:\r\nX-Latin: caf\xe9\r\nX-Utf: caf\xc3\xa9\r\nX-Tab: a\tb\r\nX-Spaces:  \t a  b \t \r\n"
	case "date":
		return "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\nServer: shop/1\r\nAge: 3\r\nVia: 1.0 inner\r\n"
	case "validators":
		return "ETag: \"v1\"\r\nLast-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\nVary: Accept\r\nVary: Accept-Encoding\r\nAccept-Ranges: bytes\r\n"
	case "upgrade":
		return "Upgrade: websocket\r\nConnection: Upgrade\r\n"
	case "many":
		var b strings.Builder
		for i := range 60 {
			fmt.Fprintf(&b, "X-Many-%d: %s\r\n", i%20, strings.Repeat("v", i))
		}
		return b.String()
	}
	return ""
}

// pattern is a body of n bytes in which every place looks different.
func pattern(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = append(b, strconv.Itoa(i)...)
		b = append(b, '\n')
	}
	return b[:n]
}

// bytes are the answer to r.
func (p *plan) bytes(r *request) []byte {
	var b bytes.Buffer
	version := "HTTP/1.1"
	if p.old {
		version = "HTTP/1.0"
	}
	if p.upgrade {
		fmt.Fprintf(&b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\n%s: 1\r\n\r\n", r.fields.get("upgrade"), fromField)
		return b.Bytes()
	}
	if p.interim != 0 && !p.old {
		fmt.Fprintf(&b, "HTTP/1.1 %d Soon\r\nLink: </a.css>; rel=preload\r\nX-Interim: 1\r\n\r\n", p.interim)
	}
	if p.bad == "line" {
		return []byte("HTTP/1.1 abc no\r\n\r\n")
	}
	fmt.Fprintf(&b, "%s %d Reason\r\n%s: 1\r\nContent-Type: text/plain\r\n%s", version, p.status, fromField, extras(p.extra))
	if p.closes() && p.extra != "close" { // said, so that the connection is never found dead
		b.WriteString("Connection: close\r\n")
	}
	body := pattern(p.size)
	if p.bad == "chunk" && p.size == 0 {
		body = pattern(1) // a chunk of 0 would end it
	}
	switch p.bad {
	case "lengths":
		b.WriteString("Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345")
		return b.Bytes()
	case "both":
		b.WriteString("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n")
		return b.Bytes()
	case "short":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body)+10, body)
		return b.Bytes()
	case "chunk":
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\nzz\r\n", len(body), body)
		return b.Bytes()
	}
	if p.status == 204 || p.status == 304 {
		b.WriteString("\r\n")
		return b.Bytes()
	}
	switch p.framing {
	case framingChunked:
		p.chunks(&b, body, r)
		return b.Bytes()
	case framingClose:
	default:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	if r.method != "HEAD" {
		b.Write(body)
	}
	return b.Bytes()
}

func (p *plan) chunks(b *bytes.Buffer, body []byte, r *request) {
	if p.trailer {
		b.WriteString("Trailer: X-Sum\r\n")
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	if r.method == "HEAD" {
		return
	}
	for i := 1; len(body) > 0; i = i*3 + 1 {
		n := min(i, len(body))
		fmt.Fprintf(b, "%x;n=%d\r\n%s\r\n", n, i, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n")
	if p.trailer {
		b.WriteString("X-Sum: 42\r\nx-sum: 43\r\nContent-Length: 7\r\n")
	}
	b.WriteString("\r\n")
}
