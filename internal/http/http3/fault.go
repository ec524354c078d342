package http3

import (
	"errors"

	"github.com/quic-go/quic-go"
)

// The error codes of RFC 9114 section 8.1, and of RFC 9204 section 6.
const (
	codeNone             = 0x100
	codeProtocol         = 0x101
	codeInternal         = 0x102
	codeStreamCreation   = 0x103
	codeClosedCritical   = 0x104
	codeFrameUnexpected  = 0x105
	codeFrame            = 0x106
	codeExcessiveLoad    = 0x107
	codeID               = 0x108
	codeSettings         = 0x109
	codeMissingSettings  = 0x10a
	codeRequestRejected  = 0x10b
	codeRequestCancelled = 0x10c
	codeIncomplete       = 0x10d
	codeMessage          = 0x10e
	codeConnect          = 0x10f
	codeDecompression    = 0x200
	codeEncoderStream    = 0x201
	codeDecoderStream    = 0x202
)

// connError is what ends the connection.
type connError struct {
	code quic.ApplicationErrorCode
	text string
}

// Error implements error.
func (e *connError) Error() string { return "http3: " + e.text }

// What a client may break of RFC 9114. The codes are those of the sections named.
var (
	errFrameType      = &connError{codeFrameUnexpected, "a frame that must not come here (section 7.2)"}
	errFrameOrder     = &connError{codeFrameUnexpected, "DATA before HEADERS, or a frame after the trailers (section 4.1)"}
	errFrameTunnel    = &connError{codeFrameUnexpected, "a frame other than DATA in a tunnel (section 4.4)"}
	errFrameCut       = &connError{codeFrame, "the stream ended within a frame (section 7.1)"}
	errFrameShape     = &connError{codeFrame, "a frame whose payload is not what its type says (section 7.1)"}
	errTwoSettings    = &connError{codeFrameUnexpected, "a second SETTINGS (section 7.2.4)"}
	errNoSettings     = &connError{codeMissingSettings, "the control stream does not begin with SETTINGS (section 6.2.1)"}
	errSetting        = &connError{codeSettings, "a setting that is reserved, repeated or out of range (section 7.2.4)"}
	errTwoControl     = &connError{codeStreamCreation, "a second control, encoder or decoder stream (section 6.2.1)"}
	errPushStream     = &connError{codeStreamCreation, "a push stream of a client (section 6.2.2)"}
	errCritical       = &connError{codeClosedCritical, "a critical stream was closed (section 6.2.1)"}
	errPushID         = &connError{codeID, "a push that was never promised (section 7.2.3)"}
	errMaxPushID      = &connError{codeID, "MAX_PUSH_ID went back (section 7.2.7)"}
	errGoAwayID       = &connError{codeID, "GOAWAY went up (section 5.2)"}
	errPriorityID     = &connError{codeID, "PRIORITY_UPDATE of what is no request (RFC 9218 section 7.2)"}
	errQPACK          = &connError{codeDecompression, "a field section that cannot be decoded (RFC 9204 section 2.2)"}
	errEncoderStream  = &connError{codeEncoderStream, "an insert into a table whose capacity is 0 (RFC 9204 section 3.2.2)"}
	errDecoderStream  = &connError{codeDecoderStream, "an acknowledgement of what was never sent (RFC 9204 section 4.4)"}
	errFloodUnknown   = &connError{codeExcessiveLoad, "too many unknown frames"}
	errFloodEmpty     = &connError{codeExcessiveLoad, "too many empty DATA frames"}
	errFloodControl   = &connError{codeExcessiveLoad, "too many frames on the control stream"}
	errFloodStreams   = &connError{codeExcessiveLoad, "too many unknown streams"}
	errFloodReset     = &connError{codeExcessiveLoad, "too many requests were given up, or refused"}
	errFloodDecoder   = &connError{codeExcessiveLoad, "too much on the decoder stream"}
	errInternal       = &connError{codeInternal, "a fault of ours"}
	errNoControlWrite = &connError{codeInternal, "the control stream cannot be opened"}
)

// fault is why a request is refused.
type fault struct {
	status       int // of the page; 0 when the stream is given up without one
	code, detail string
	malformed    bool // RFC 9114 section 4.1.2: the stream is reset
	kill         *connError
}

// The faults of a head. RFC 9114 unless another is named.
var (
	faultUpper      = &fault{400, "bad_field_name", "a field name is not a token in lower case (section 4.2)", true, nil}
	faultValue      = &fault{400, "control_byte", "a control byte, or space at an end, in a field value (section 4.2, RFC 9110 section 5.5)", true, nil}
	faultPseudo     = &fault{400, "bad_pseudo_header", "an unknown, repeated, late or missing pseudo-header (section 4.3)", true, nil}
	faultConnection = &fault{400, "connection_field", "a connection-specific field, or TE other than trailers (section 4.2)", true, nil}
	faultLength     = &fault{400, "bad_content_length", "Content-Length is not one decimal number (RFC 9110 section 8.6)", true, nil}
	faultHostDiffer = &fault{400, "host_differs", "Host is not :authority, or there are several (section 4.3.1)", true, nil}
	faultHostNone   = &fault{400, "no_host", "neither :authority nor Host (section 4.3.1)", true, nil}
	faultPathForm   = &fault{400, "bad_target", "an empty :path, or one without / (section 4.3.1)", true, nil}
	faultConnect    = &fault{400, "bad_connect", "CONNECT takes an authority with a port, and no scheme and path (section 4.4)", true, nil}
	faultProtocol   = &fault{501, "unknown_protocol", "an extended CONNECT for something other than WebSocket (RFC 9220 section 3)", false, nil}
	faultMethod     = &fault{400, "bad_method", "the method is not a token (RFC 9110 section 9.1)", true, nil}
	faultMethodLong = &fault{501, "method_too_long", "the method is longer than any known one", false, nil}
	faultScheme     = &fault{400, "bad_scheme", "the scheme is not https (section 4.3.1)", false, nil}
	faultHost       = &fault{400, "bad_host", "the authority is not a host and port (RFC 3986 section 3.2)", false, nil}
	faultTarget     = &fault{400, "bad_target", "a byte of the target that must be percent-encoded (RFC 3986 section 2)", false, nil}
	faultTargetLong = &fault{414, "target_too_long", "the target is over the limit", false, nil}
	faultHeadLong   = &fault{431, "head_too_long", "the head is over the limit", false, nil}
	faultFields     = &fault{431, "too_many_fields", "the head has too many field lines", false, nil}
	faultCollision  = &fault{400, "field_name_collision", "a name that some origins read as a framing, host or forwarding field", false, nil}
	faultExpect     = &fault{417, "expectation_failed", "an expectation other than 100-continue (RFC 9110 section 10.1.1)", false, nil}
	faultBodyLong   = &fault{413, "body_too_large", "the body is over the limit", false, nil}
	faultSlow       = &fault{408, "head_timeout", "the head did not come in time", false, nil}
	faultEarly      = &fault{425, "too_early", "the request must not be served in early data, and the handshake did not end (RFC 8470)", false, nil}
	faultWebSocket  = &fault{502, "websocket_refused", "the origin has answered an extended CONNECT with something that is no WebSocket (RFC 6455 section 4.2.2)", false, nil}
	faultPanic      = &fault{500, "panic", "the handler panicked", false, nil}
	faultCut        = &fault{0, "request_incomplete", "the stream ended before a whole head (section 4.1)", true, nil}
	faultGone       = &fault{0, "gone", "the client gave the request up", false, nil}
)

// faultOf makes a fault of what ends the connection.
func faultOf(e *connError) *fault { return &fault{code: "connection", detail: e.text, kill: e} }

// Ends of answers, in an Outcome.
var (
	errTooLong    = errors.New("the body is longer than its Content-Length")
	errTooShort   = errors.New("the body is shorter than its Content-Length")
	errPanic      = errors.New("the answer's body panicked")
	errNoNeed     = errors.New("the body is not needed")
	errMalformed  = errors.New("the request is malformed")
	errTunnelIdle = errors.New("nothing passed through the tunnel for too long")
)
