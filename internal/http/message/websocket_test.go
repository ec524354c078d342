package message

import (
	"io"
	"testing"
)

type noTunnel struct{ io.ReadWriter }

func (noTunnel) Close() error { return nil }

func TestUpgradeWebSocketMakesTheHandshakeRFC8441Section4(t *testing.T) {
	var r Request
	r.SetMethod([]byte("CONNECT"))
	r.SetPath([]byte("/chat"))
	r.SetAuthority([]byte("example.com"))
	r.AddString(SecWebSocketProtocol, "chat")
	r.AddString(SecWebSocketKey, "the client's, which means nothing")
	r.ContentLength = -1
	r.UpgradeWebSocket()
	if r.Method != GET || string(r.MethodName()) != "GET" || r.ContentLength != 0 || r.Body != nil {
		t.Errorf("%s with a body of %d", r.MethodName(), r.ContentLength)
	}
	for id, want := range map[ID]string{
		Upgrade: "websocket", Connection: "Upgrade", SecWebSocketVersion: "13", SecWebSocketProtocol: "chat",
	} {
		if got := string(r.Get(id)); got != want {
			t.Errorf("%v: got %q, want %q", id, got, want)
		}
	}
	if n := r.Count(SecWebSocketKey); n != 1 || len(r.Get(SecWebSocketKey)) != keyLen {
		t.Errorf("%d keys, the first %q", n, r.Get(SecWebSocketKey))
	}
	if string(r.Path()) != "/chat" || string(r.Authority()) != "example.com" {
		t.Errorf("the target became %s%s", r.Authority(), r.Path())
	}
	first := string(r.Get(SecWebSocketKey))
	r.UpgradeWebSocket()
	if string(r.Get(SecWebSocketKey)) == first {
		t.Error("two handshakes have one key")
	}
}

func TestUpgradeWebSocketKeepsTheVersion(t *testing.T) {
	var r Request
	r.AddString(SecWebSocketVersion, "8")
	r.UpgradeWebSocket()
	if r.Count(SecWebSocketVersion) != 1 || string(r.Get(SecWebSocketVersion)) != "8" {
		t.Errorf("the version became %q", r.Get(SecWebSocketVersion))
	}
}

// The key and its answer are the example of RFC 6455 section 1.3.
func TestAcceptWebSocket(t *testing.T) {
	var r Request
	r.AddString(SecWebSocketKey, "dGhlIHNhbXBsZSBub25jZQ==")
	answer := func(accept string) *Response {
		resp := &Response{Status: 101, Upgrade: noTunnel{}}
		resp.AddString(Upgrade, "websocket")
		resp.AddString(Connection, "Upgrade")
		resp.AddString(SecWebSocketAccept, accept)
		resp.AddString(SecWebSocketProtocol, "chat")
		return resp
	}
	resp := answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
	if !AcceptWebSocket(&r, resp) || resp.Status != 200 {
		t.Fatalf("a good answer became %d", resp.Status)
	}
	if resp.Len() != 1 || string(resp.Get(SecWebSocketProtocol)) != "chat" {
		t.Errorf("%d fields are left", resp.Len())
	}
	resp = answer("not it")
	if AcceptWebSocket(&r, resp) || resp.Status != 101 {
		t.Errorf("a wrong Sec-WebSocket-Accept passes as %d", resp.Status)
	}
	if resp = (&Response{Status: 200}); AcceptWebSocket(&r, resp) {
		t.Error("a page passes for a tunnel")
	}
	resp = &Response{Status: 403}
	if !AcceptWebSocket(&r, resp) || resp.Status != 403 {
		t.Errorf("a refusal became %d", resp.Status)
	}
}
