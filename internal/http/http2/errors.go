package http2

import "strconv"

// ErrCode is an error code of RFC 9113 section 7.
type ErrCode uint32

// The error codes.
const (
	NoError            ErrCode = 0x0
	ProtocolError      ErrCode = 0x1
	InternalError      ErrCode = 0x2
	FlowControlError   ErrCode = 0x3
	SettingsTimeout    ErrCode = 0x4
	StreamClosed       ErrCode = 0x5
	FrameSizeError     ErrCode = 0x6
	RefusedStream      ErrCode = 0x7
	Cancel             ErrCode = 0x8
	CompressionError   ErrCode = 0x9
	ConnectError       ErrCode = 0xa
	EnhanceYourCalm    ErrCode = 0xb
	InadequateSecurity ErrCode = 0xc
	HTTP11Required     ErrCode = 0xd
)

// String returns the code as the RFC writes it.
func (c ErrCode) String() string {
	names := [...]string{
		"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
		"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
		"CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "0x" + strconv.FormatUint(uint64(c), 16)
}

// fault is what the other side did wrong. It ends the connection, or only the stream.
type fault struct {
	code   ErrCode
	stream bool // RST_STREAM is enough
	detail string
}

// Error implements error.
func (f *fault) Error() string { return f.code.String() + ": " + f.detail }

// The faults of frames. RFC 9113.
var (
	faultStreamZero   = &fault{ProtocolError, false, "a frame of a stream on stream 0 (section 6)"}
	faultStreamGiven  = &fault{ProtocolError, false, "a frame of the connection on a stream (section 6)"}
	faultFrameSize    = &fault{FrameSizeError, false, "a frame has not the size that its type asks for (section 6)"}
	faultFrameLarge   = &fault{FrameSizeError, false, "a frame is over SETTINGS_MAX_FRAME_SIZE (section 4.2)"}
	faultPrioritySize = &fault{FrameSizeError, true, "PRIORITY has not 5 bytes (section 6.3)"}
	faultPadding      = &fault{ProtocolError, false, "the padding is not shorter than the payload (section 6.1)"}
	faultPush         = &fault{ProtocolError, false, "PUSH_PROMISE, which nobody allowed (section 8.4)"}
	faultEnablePush   = &fault{ProtocolError, false, "SETTINGS_ENABLE_PUSH is neither 0 nor 1 (section 6.5.2)"}
	faultWindowSize   = &fault{FlowControlError, false, "SETTINGS_INITIAL_WINDOW_SIZE is over 2^31-1 (section 6.5.2)"}
	faultMaxFrame     = &fault{ProtocolError, false, "SETTINGS_MAX_FRAME_SIZE is out of range (section 6.5.2)"}
	faultConnectProto = &fault{ProtocolError, false, "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1, or went back (RFC 8441 section 3)"}
	faultNoPriorities = &fault{ProtocolError, false, "SETTINGS_NO_RFC7540_PRIORITIES is neither 0 nor 1 (RFC 9218 section 2.1)"}
)
