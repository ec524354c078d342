package message

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
)

// keyLen is the length of a Sec-WebSocket-Key: 16 bytes in base64.
const keyLen = 24

// UpgradeWebSocket makes an extended CONNECT with ":protocol: websocket" (RFC 8441 section 4,
// RFC 9220) the handshake of RFC 6455 section 4.1, which is how WebSocket looks to everybody
// behind the protocols: GET, Upgrade, Connection, Sec-WebSocket-Version and a key of our own.
// The request has no body then: what the stream brings belongs to the tunnel.
func (r *Request) UpgradeWebSocket() {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	var key [keyLen]byte
	base64.StdEncoding.Encode(key[:], nonce[:])
	r.SetMethod([]byte("GET"))
	r.ContentLength, r.Body, r.Trailer = 0, nil, nil
	r.Del(ContentLength)
	r.Del(SecWebSocketKey)
	r.AddString(Upgrade, "websocket")
	r.AddString(Connection, "Upgrade")
	r.Add(SecWebSocketKey, key[:])
	if !r.Has(SecWebSocketVersion) {
		r.AddString(SecWebSocketVersion, "13")
	}
}

// AcceptWebSocket makes resp, which answers the handshake that UpgradeWebSocket made of r, the
// answer to the extended CONNECT: a 101 becomes a 200 without the fields of the handshake. It
// is false, and resp is as it was, when the origin has not agreed to WebSocket but the client
// would take it so: when a 101 does not belong to the key (RFC 6455 section 4.2.2), and when
// there is a 2xx, which means a page to the handshake and a tunnel to CONNECT. Other answers
// are left alone.
func AcceptWebSocket(r *Request, resp *Response) bool {
	if resp.Status != 101 {
		return resp.Status/100 != 2
	}
	if resp.Upgrade == nil {
		return false
	}
	if !WebSocketAgreed(r, resp) {
		return false
	}
	resp.Status = 200
	for _, id := range [...]ID{Upgrade, Connection, SecWebSocketAccept, ContentLength, TransferEncoding} {
		resp.Del(id)
	}
	resp.ContentLength = -1
	return true
}

// WebSocketAgreed says whether the Sec-WebSocket-Accept of resp belongs to the key of r (RFC 6455
// section 4.2.2).
func WebSocketAgreed(r *Request, resp *Response) bool {
	h := sha1.New()
	_, _ = h.Write(r.Get(SecWebSocketKey))
	_, _ = h.Write([]byte("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	var accept [28]byte
	base64.StdEncoding.Encode(accept[:], h.Sum(nil))
	return string(resp.Get(SecWebSocketAccept)) == string(accept[:])
}
