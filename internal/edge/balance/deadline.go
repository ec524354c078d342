package balance

import (
	"strconv"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// grpcTimeout is the field in which gRPC says how long a client waits for a call.
const grpcTimeout = "grpc-timeout"

// limit finds out until when the request's answer must be there: the route's limit, or what the client asks
// for when that is less. The route's counts from the end of the request: how long a client may send is
// bounded by its listener, and no fault of the origin.
func (a *attempt) limit(x *stage.Exchange, now int64) {
	a.deadline, a.grpc, a.wait = 0, 0, 0
	if r := x.Route; r != nil {
		switch limit := v1.Value(r.Spec.Timeouts.Request); {
		case limit <= 0:
		case a.replay.coming():
			a.wait = limit.Std()
		default:
			a.deadline = now + int64(limit)
		}
		if h := r.Spec.Timeouts.Header; h != "" {
			if ms, ok := milliseconds(x.In.Lookup(h)); ok {
				a.sooner(a.stage.clockOf(x.Start) + ms*int64(time.Millisecond))
			}
		}
	}
	if message.IsGRPC(&x.Out.Fields) {
		if d, ok := message.GRPCTimeout(&x.Out.Fields); ok && d < maxGRPC {
			a.grpc = a.stage.clockOf(x.Start) + int64(d)
			a.sooner(a.grpc)
		}
	}
}

// maxGRPC is the longest time that is counted: eight digits of seconds, more than three years.
const maxGRPC = 99_999_999 * time.Second

func (a *attempt) sooner(until int64) {
	if a.deadline == 0 || until < a.deadline {
		a.deadline = until
	}
}

// tell returns until when the answer's head must be there for a try that begins now; 0 is no limit. It tells
// the origin how much time is left where the route names a field for it, and goes on counting down the
// time of a gRPC call.
func (a *attempt) tell(x *stage.Exchange, now int64) (until int64) {
	until = a.deadline
	var digits [24]byte
	if r := x.Route; r != nil {
		switch try := r.Spec.Timeouts.Try.Std(); {
		case try <= 0:
		case !a.replay.coming():
			if t := now + int64(try); until == 0 || t < until {
				until = t
			}
		case a.wait == 0 || try < a.wait:
			a.wait = try
		}
		switch h := r.Spec.Timeouts.Header; {
		case h == "":
		case until == 0:
			x.Out.DelLine(h) // what the client wrote there was no number
		default:
			x.Out.SetLine(h, strconv.AppendInt(digits[:0], max(until-now, 0)/int64(time.Millisecond), 10))
		}
	}
	if a.grpc != 0 {
		left, unit := max(a.grpc-now, 0)/int64(time.Millisecond), byte('m')
		if left > 99_999_999 {
			left, unit = left/1000, 'S'
		}
		x.Out.SetLine(grpcTimeout, append(strconv.AppendInt(digits[:0], left, 10), unit))
	}
	return until
}

// milliseconds reads a whole number of nine digits at most.
func milliseconds(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
