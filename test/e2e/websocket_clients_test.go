package e2e

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// wsKey is a key of the handshake, wsAccept its answer (RFC 6455 section 1.3).
const wsKey = "dGhlIHNhbXBsZSBub25jZQ=="

func wsAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// tunnel is the client's end of an open tunnel.
type tunnel struct {
	io.Reader
	io.Writer
	half  func() error // ends the client's way
	abort func()       // breaks off, as a client that dies
}

// wsDialer opens a WebSocket: status and fields of the answer, and the tunnel where there is one.
type wsDialer func(t *testing.T, path string, fields ...string) (int, http.Header, *tunnel)

// wsProtocols are all that carry a WebSocket. Those in clear go to plain, the others to secure.
func wsProtocols(plain, secure string) map[string]wsDialer {
	return map[string]wsDialer{
		"http1": wsHTTP1(func() (net.Conn, error) { return net.Dial("tcp", plain) }),
		"https": wsHTTP1(func() (net.Conn, error) {
			return tls.Dial("tcp", secure, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		}),
		"h2c": wsHTTP2("http://"+plain, func() (net.Conn, error) { return net.Dial("tcp", plain) }),
		"h2": wsHTTP2("https://"+secure, func() (net.Conn, error) {
			return tls.Dial("tcp", secure, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		}),
		"h3": wsHTTP3(secure),
	}
}

// common are the fields that a browser's handshake has in every version of HTTP.
func common(h http.Header, fields []string) {
	h.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	h.Set("Accept", "*/*")
	h.Set("Origin", "https://shop.example")
	h.Set("Sec-WebSocket-Version", "13")
	for i := 0; i < len(fields); i += 2 {
		h.Set(fields[i], fields[i+1])
	}
}

// wsHTTP1 asks as RFC 6455 section 4.1 says.
func wsHTTP1(dial func() (net.Conn, error)) wsDialer {
	return func(t *testing.T, path string, fields ...string) (int, http.Header, *tunnel) {
		t.Helper()
		nc, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		h := http.Header{}
		common(h, fields)
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		h.Set("Sec-WebSocket-Key", wsKey)
		var b strings.Builder
		fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: shop.example\r\n", path)
		_ = h.Write(&b)
		if _, err := io.WriteString(nc, b.String()+"\r\n"); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(nc)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusSwitchingProtocols {
			return resp.StatusCode, resp.Header, nil
		}
		return 101, resp.Header, &tunnel{r, nc, nc.(interface{ CloseWrite() error }).CloseWrite, func() { reset(nc) }}
	}
}

// reset ends a connection with a RST.
func reset(nc net.Conn) {
	if c, ok := nc.(*tls.Conn); ok {
		nc = c.NetConn()
	}
	_ = nc.(*net.TCPConn).SetLinger(0)
	_ = nc.Close()
}

// wsHTTP2 asks with an extended CONNECT (RFC 8441).
func wsHTTP2(base string, dial func() (net.Conn, error)) wsDialer {
	return func(t *testing.T, path string, fields ...string) (int, http.Header, *tunnel) {
		t.Helper()
		nc, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		//lint:ignore SA1019 the client of net/http has no extended CONNECT
		cc, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(nc)
		if err != nil {
			t.Fatal(err)
		}
		out, in := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		req, err := http.NewRequestWithContext(ctx, http.MethodConnect, base+path, out)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.example"
		common(req.Header, fields)
		req.Header[":protocol"] = []string{"websocket"}
		resp, err := cc.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if resp.StatusCode != 200 {
			_ = in.Close()
			return resp.StatusCode, resp.Header, nil
		}
		return 101, resp.Header, &tunnel{resp.Body, in, in.Close, func() { cancel(); _ = in.CloseWithError(context.Canceled) }}
	}
}

// wsHTTP3 asks with an extended CONNECT (RFC 9220).
func wsHTTP3(addr string) wsDialer {
	return func(t *testing.T, path string, fields ...string) (int, http.Header, *tunnel) {
		t.Helper()
		conf := &tls.Config{InsecureSkipVerify: true, ServerName: "shop.example", NextProtos: []string{"h3"}}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		qc, err := quic.DialAddr(ctx, addr, conf, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = qc.CloseWithError(0x100, "") })
		str, err := new(http3.Transport).NewClientConn(qc).OpenRequestStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest(http.MethodConnect, "https://shop.example"+path, nil)
		req.Proto = "websocket"
		common(req.Header, fields)
		if err := str.SendRequestHeader(req); err != nil {
			t.Fatal(err)
		}
		resp, err := str.ReadResponse()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 {
			return resp.StatusCode, resp.Header, nil
		}
		return 101, resp.Header, &tunnel{str, str, str.Close, func() {
			str.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
			str.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		}}
	}
}
