package http1

import "strconv"

// statusLines are the status lines of the registered codes, from 100 to 511.
var statusLines = [512 - 100]string{
	100 - 100: "HTTP/1.1 100 Continue\r\n",
	101 - 100: "HTTP/1.1 101 Switching Protocols\r\n",
	102 - 100: "HTTP/1.1 102 Processing\r\n",
	103 - 100: "HTTP/1.1 103 Early Hints\r\n",
	200 - 100: "HTTP/1.1 200 OK\r\n",
	201 - 100: "HTTP/1.1 201 Created\r\n",
	202 - 100: "HTTP/1.1 202 Accepted\r\n",
	203 - 100: "HTTP/1.1 203 Non-Authoritative Information\r\n",
	204 - 100: "HTTP/1.1 204 No Content\r\n",
	205 - 100: "HTTP/1.1 205 Reset Content\r\n",
	206 - 100: "HTTP/1.1 206 Partial Content\r\n",
	207 - 100: "HTTP/1.1 207 Multi-Status\r\n",
	208 - 100: "HTTP/1.1 208 Already Reported\r\n",
	226 - 100: "HTTP/1.1 226 IM Used\r\n",
	300 - 100: "HTTP/1.1 300 Multiple Choices\r\n",
	301 - 100: "HTTP/1.1 301 Moved Permanently\r\n",
	302 - 100: "HTTP/1.1 302 Found\r\n",
	303 - 100: "HTTP/1.1 303 See Other\r\n",
	304 - 100: "HTTP/1.1 304 Not Modified\r\n",
	305 - 100: "HTTP/1.1 305 Use Proxy\r\n",
	307 - 100: "HTTP/1.1 307 Temporary Redirect\r\n",
	308 - 100: "HTTP/1.1 308 Permanent Redirect\r\n",
	400 - 100: "HTTP/1.1 400 Bad Request\r\n",
	401 - 100: "HTTP/1.1 401 Unauthorized\r\n",
	402 - 100: "HTTP/1.1 402 Payment Required\r\n",
	403 - 100: "HTTP/1.1 403 Forbidden\r\n",
	404 - 100: "HTTP/1.1 404 Not Found\r\n",
	405 - 100: "HTTP/1.1 405 Method Not Allowed\r\n",
	406 - 100: "HTTP/1.1 406 Not Acceptable\r\n",
	407 - 100: "HTTP/1.1 407 Proxy Authentication Required\r\n",
	408 - 100: "HTTP/1.1 408 Request Timeout\r\n",
	409 - 100: "HTTP/1.1 409 Conflict\r\n",
	410 - 100: "HTTP/1.1 410 Gone\r\n",
	411 - 100: "HTTP/1.1 411 Length Required\r\n",
	412 - 100: "HTTP/1.1 412 Precondition Failed\r\n",
	413 - 100: "HTTP/1.1 413 Content Too Large\r\n",
	414 - 100: "HTTP/1.1 414 URI Too Long\r\n",
	415 - 100: "HTTP/1.1 415 Unsupported Media Type\r\n",
	416 - 100: "HTTP/1.1 416 Range Not Satisfiable\r\n",
	417 - 100: "HTTP/1.1 417 Expectation Failed\r\n",
	421 - 100: "HTTP/1.1 421 Misdirected Request\r\n",
	422 - 100: "HTTP/1.1 422 Unprocessable Content\r\n",
	423 - 100: "HTTP/1.1 423 Locked\r\n",
	424 - 100: "HTTP/1.1 424 Failed Dependency\r\n",
	425 - 100: "HTTP/1.1 425 Too Early\r\n",
	426 - 100: "HTTP/1.1 426 Upgrade Required\r\n",
	428 - 100: "HTTP/1.1 428 Precondition Required\r\n",
	429 - 100: "HTTP/1.1 429 Too Many Requests\r\n",
	431 - 100: "HTTP/1.1 431 Request Header Fields Too Large\r\n",
	451 - 100: "HTTP/1.1 451 Unavailable For Legal Reasons\r\n",
	500 - 100: "HTTP/1.1 500 Internal Server Error\r\n",
	501 - 100: "HTTP/1.1 501 Not Implemented\r\n",
	502 - 100: "HTTP/1.1 502 Bad Gateway\r\n",
	503 - 100: "HTTP/1.1 503 Service Unavailable\r\n",
	504 - 100: "HTTP/1.1 504 Gateway Timeout\r\n",
	505 - 100: "HTTP/1.1 505 HTTP Version Not Supported\r\n",
	506 - 100: "HTTP/1.1 506 Variant Also Negotiates\r\n",
	507 - 100: "HTTP/1.1 507 Insufficient Storage\r\n",
	508 - 100: "HTTP/1.1 508 Loop Detected\r\n",
	511 - 100: "HTTP/1.1 511 Network Authentication Required\r\n",
}

// appendStatus appends the status line; a code that is not registered has no reason.
func appendStatus(b []byte, status int) []byte {
	if i := status - 100; i >= 0 && i < len(statusLines) && statusLines[i] != "" {
		return append(b, statusLines[i]...)
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	return append(b, " \r\n"...)
}
