package edge

import (
	"strconv"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// The status codes of gRPC that the edge gives.
const (
	grpcCancelled         = 1
	grpcUnknown           = 2
	grpcInvalidArgument   = 3
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// fillGRPC makes the answer to a gRPC request what gRPC calls Trailers-Only: status 200, and
// the outcome in the fields of the one header block.
func fillGRPC(resp *message.Response, w words, e *stage.Error, id stage.RequestID) {
	resp.Status = 200
	resp.AddString(message.ContentType, "application/grpc")
	resp.AddLine([]byte("grpc-status"), strconv.AppendInt(nil, int64(grpcStatus(e)), 10))
	resp.AddLine([]byte("grpc-message"), grpcMessage(w.title+" ("+e.Code+", "+id.String()+")"))
	resp.ContentLength = 0
}

// grpcStatus is the status of an error: that of gRPC's mapping from HTTP, and where we know
// better than a client could, the one that says what happened.
func grpcStatus(e *stage.Error) int {
	switch e.Status {
	case 401:
		return grpcUnauthenticated
	case 403, 421, 451:
		return grpcPermissionDenied
	case 404, 405, 501:
		return grpcUnimplemented
	case 408, 504:
		return grpcDeadlineExceeded
	case 413, 414, 429, 431:
		return grpcResourceExhausted
	case 499:
		return grpcCancelled
	case 400:
		return grpcInvalidArgument
	case 502, 503:
		return grpcUnavailable
	case 500:
		return grpcInternal
	}
	return grpcUnknown
}

// deadlineSlack is how much earlier than here a call's deadline may come at the origin, which is
// told what is left of it in whole units.
const deadlineSlack = time.Millisecond

// late is e, or the end of the deadline when that of a gRPC call has passed: the origin keeps the
// same one, and a stream that it has reset for that is no fault of anybody.
func late(x *stage.Exchange, e *stage.Error) *stage.Error {
	if e.Status != 502 && e.Status != 503 || x.In == nil || !message.IsGRPC(&x.In.Fields) {
		return e
	}
	if d, ok := message.GRPCTimeout(&x.In.Fields); !ok || x.Lap()+deadlineSlack < d {
		return e
	}
	return &stage.Error{Code: "http_response_timeout", Side: e.Side, Status: 504, Err: e}
}

// grpcMessage percent-encodes what is not printable ASCII, as Grpc-Message asks.
func grpcMessage(s string) []byte {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}
