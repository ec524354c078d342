package message

import "time"

// IsGRPC says whether a message with these fields is gRPC over HTTP/2: its Content-Type is
// application/grpc, alone or with a "+" or ";" after it. gRPC-Web is not.
func IsGRPC(f *Fields) bool {
	const t = "application/grpc"
	v := f.Get(ContentType)
	if len(v) < len(t) || !EqualFold(v[:len(t)], t) {
		return false
	}
	return len(v) == len(t) || v[len(t)] == '+' || v[len(t)] == ';'
}

// GRPCTimeout reads the Grpc-Timeout of a request: at most eight digits and a unit. It is
// false when there is none or it is malformed.
func GRPCTimeout(f *Fields) (time.Duration, bool) {
	v := f.Lookup("Grpc-Timeout")
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n := time.Duration(0)
	for _, c := range v[:len(v)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + time.Duration(c-'0')
	}
	unit := time.Duration(0)
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if n > (1<<63-1)/unit {
		return 1<<63 - 1, true
	}
	return n * unit, true
}
