package http1

// fault is why bytes are no acceptable message.
type fault struct {
	status       int
	code, detail string
}

// Error implements error; the client side returns faults of answers as errors.
func (f *fault) Error() string { return f.code + ": " + f.detail }

// The faults of a head. RFC 9112 unless another is named.
var (
	faultBareCR     = &fault{400, "bare_cr", "a CR without its LF (section 2.2)"}
	faultBareLF     = &fault{400, "bare_lf", "a line ended by LF alone (section 2.2)"}
	faultControl    = &fault{400, "control_byte", "a control byte in the head (RFC 9110 section 5.5)"}
	faultMethod     = &fault{400, "bad_method", "the method is not a token (section 3.1)"}
	faultMethodLong = &fault{501, "method_too_long", "the method is longer than any known one (section 3)"}
	faultLine       = &fault{400, "bad_request_line", "not: method, one space, target, one space, version (section 3)"}
	faultProtocol   = &fault{400, "not_http", "the request line names another protocol (section 2.3)"}
	faultVersion    = &fault{505, "http_version_not_supported", "neither HTTP/1.1 nor HTTP/1.0 (section 2.3)"}
	faultTarget     = &fault{400, "bad_target", "the target has no form that the method allows (section 3.2)"}
	faultTargetLong = &fault{414, "target_too_long", "the target is over the limit"}
	faultHeadLong   = &fault{431, "head_too_long", "the head is over the limit"}
	faultFields     = &fault{431, "too_many_fields", "the head has too many field lines"}
	faultFold       = &fault{400, "obs_fold", "a field line begins with space (section 5.2)"}
	faultColon      = &fault{400, "space_before_colon", "space between a field's name and its colon (section 5.1)"}
	faultName       = &fault{400, "bad_field_name", "a field name is not a token, or a line has no colon (section 5)"}
	faultCollision  = &fault{400, "field_name_collision", "a name that some origins read as a framing, host or forwarding field"}
	faultHostNone   = &fault{400, "no_host", "HTTP/1.1 without Host (section 3.2)"}
	faultHostMany   = &fault{400, "many_hosts", "more than one Host (section 3.2)"}
	faultHost       = &fault{400, "bad_host", "Host is not a host and port (RFC 3986 section 3.2)"}
	faultHostDiffer = &fault{400, "host_differs", "Host is not the authority of the target (section 3.2.2)"}
	faultLength     = &fault{400, "bad_content_length", "Content-Length is not one decimal number (section 6.3)"}
	faultBoth       = &fault{400, "length_and_encoding", "Content-Length and Transfer-Encoding together (section 6.1)"}
	faultCoding     = &fault{400, "bad_transfer_encoding", "Transfer-Encoding is not exactly: chunked (section 6.1)"}
	faultCodingNew  = &fault{501, "unknown_transfer_encoding", "a transfer coding other than chunked (section 6.1)"}
	faultCodingOld  = &fault{400, "transfer_encoding_on_http10", "Transfer-Encoding on HTTP/1.0 (section 6.1)"}
	faultConnection = &fault{400, "bad_connection", "Connection names a field that is not for one hop (RFC 9110 section 7.6.1)"}
	faultExpect     = &fault{417, "expectation_failed", "an expectation other than 100-continue (RFC 9110 section 10.1.1)"}
	faultBodyLong   = &fault{413, "body_too_large", "the body is over the limit"}
	faultSlow       = &fault{408, "head_timeout", "the head did not come in time"}
	faultPanic      = &fault{500, "panic", "the handler panicked"}

	faultStatus = &fault{502, "bad_status_line", "not: version, space, three digits (section 4)"}
)
