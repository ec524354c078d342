package e2e

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const http3Document = `
apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec:
  address: "${LISTEN_TLS}"
  tls: {earlyData: true}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: backend}
spec:
  tiers:
    - origins: [{address: "${ORIGIN}"}]
---
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec:
  hostnames: ["*"]
  routes:
    - pool: backend
`

// http3Origin answers /large, /sum, /early and /chat.
func http3Origin(t *testing.T, large int64) string {
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			_, _ = io.Copy(w, io.LimitReader(counting{}, large))
		case "/sum":
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
		case "/early":
			if r.Header.Get("Early-Data") == "1" {
				w.WriteHeader(http.StatusTooEarly)
			}
		case "/chat":
			chat(w, r)
		default:
			fmt.Fprint(w, r.Proto)
		}
	})
}

// counting gives bytes without end.
type counting struct{}

func (counting) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i)
	}
	return len(b), nil
}

// chat agrees to a WebSocket and echoes its bytes.
func chat(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" {
		w.WriteHeader(http.StatusUpgradeRequired)
		return
	}
	nc, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer nc.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	_, _ = io.Copy(nc, buf.Reader)
}

func TestHTTP3(t *testing.T) {
	const large = 200 << 20
	file := filepath.Join(t.TempDir(), "http3.yaml")
	write(t, file, http3Document)
	addr := ports(t, 1)[0]
	serve(t, addr, file, "LISTEN_TLS="+addr, "ORIGIN="+http3Origin(t, large))
	conf := &tls.Config{InsecureSkipVerify: true, ServerName: "shop.example", ClientSessionCache: tls.NewLRUClientSessionCache(10)}
	tr := &http3.Transport{TLSClientConfig: conf}
	defer tr.Close()
	c := &http.Client{Transport: tr, Timeout: 2 * time.Minute}

	t.Run("Alt-Svc", func(t *testing.T) {
		resp, err := clients()["tls-http1"].Get("https://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		_, port, _ := strings.Cut(addr, ":")
		if got, want := resp.Header.Get("Alt-Svc"), `h3=":`+port+`"; ma=86400`; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
	t.Run("200 MiB down", func(t *testing.T) {
		resp, err := c.Get("https://" + addr + "/large")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); n != large || err != nil || resp.ProtoMajor != 3 {
			t.Errorf("%d bytes, %v, %s", n, err, resp.Proto)
		}
	})
	t.Run("200 MiB up", func(t *testing.T) {
		h := sha256.New()
		resp, err := c.Post("https://"+addr+"/sum", "application/octet-stream", io.TeeReader(io.LimitReader(counting{}, large), h))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("%d %x <nil>", large, h.Sum(nil)); string(got) != want || err != nil {
			t.Errorf("%s %q %v, want %q", resp.Status, got, err, want)
		}
	})
	t.Run("WebSocket", func(t *testing.T) { webSocketOverHTTP3(t, addr, conf) })
	t.Run("early data", func(t *testing.T) { earlyData(t, addr, conf) })
}

// webSocketOverHTTP3 opens a WebSocket with an extended CONNECT (RFC 9220).
func webSocketOverHTTP3(t *testing.T, addr string, conf *tls.Config) {
	conf = conf.Clone()
	conf.NextProtos = []string{"h3"}
	qc, err := quic.DialAddr(t.Context(), addr, conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer qc.CloseWithError(0x100, "")
	cc := new(http3.Transport).NewClientConn(qc)
	str, err := cc.OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodConnect, "https://shop.example/chat", nil)
	req.Proto = "websocket"
	if err := str.SendRequestHeader(req); err != nil {
		t.Fatal(err)
	}
	resp, err := str.ReadResponse()
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	in := bufio.NewReader(str)
	for _, word := range []string{"hello\n", "there\n"} {
		if _, err := io.WriteString(str, word); err != nil {
			t.Fatal(err)
		}
		if got, err := in.ReadString('\n'); got != word || err != nil {
			t.Fatalf("%q %v", got, err)
		}
	}
	_ = str.Close()
	if _, err := in.ReadByte(); err != io.EOF {
		t.Error(err)
	}
}

// earlyData has a returning client ask in its first packets: the origin learns of it, and its 425
// comes through (RFC 8470).
func earlyData(t *testing.T, addr string, conf *tls.Config) {
	tickets := &countedSessions{ClientSessionCache: conf.ClientSessionCache}
	store := &countedTokens{TokenStore: quic.NewLRUTokenStore(1, 10)}
	conf = conf.Clone()
	conf.ClientSessionCache = tickets
	ask := func(method string) int {
		tr := &http3.Transport{TLSClientConfig: conf, QUICConfig: &quic.Config{TokenStore: store}}
		defer tr.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, method, "https://"+addr+"/early", nil)
		hadTickets, hadTokens := tickets.n.Load(), store.n.Load()
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		eventually(t, "a ticket and a token for the next visit", func() bool { return tickets.n.Load() > hadTickets && store.n.Load() > hadTokens })
		return resp.StatusCode
	}
	if got := ask(http.MethodGet); got != 200 {
		t.Fatal(got)
	}
	// The handshake may be over before a busy machine looks at the request.
	eventually(t, "a request in early data reaches the origin as such", func() bool { return ask(http3.MethodGet0RTT) == 425 })
	if got := ask(http.MethodPost); got != 200 {
		t.Errorf("a POST: %d", got)
	}
}

// countedSessions and countedTokens count what a server has given a client for its next visit.
type (
	countedSessions struct {
		tls.ClientSessionCache
		n atomic.Int64
	}
	countedTokens struct {
		quic.TokenStore
		n atomic.Int64
	}
)

func (c *countedSessions) Put(key string, s *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, s)
	if s != nil {
		c.n.Add(1)
	}
}

func (c *countedTokens) Put(key string, t *quic.ClientToken) {
	c.TokenStore.Put(key, t)
	c.n.Add(1)
}
