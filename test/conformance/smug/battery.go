package smug

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Lane is one proxy under test with the origin behind it. A battery may run on
// several lanes with equal proxies; each carries one case at a time.
type Lane struct {
	HTTP1    string // host:port that speaks HTTP/1.1; "" leaves those cases out
	HTTP2    string // host:port that speaks HTTP/2 with prior knowledge; "" leaves those cases out
	Recorder *Recorder
}

// Options changes how a battery runs. The zero value is right for most uses.
type Options struct {
	// Quiet is how long to listen for an answer too many after the last one
	// that was expected. 0 means 300 ms; less makes slow proxies look better
	// than they are.
	Quiet time.Duration
	// Patience is how long to wait for the answers that are expected. 0 means 2 s.
	Patience time.Duration
	// Pick chooses cases; nil takes all.
	Pick func(Case) bool
}

// Report is the outcome of a battery, in the order of Cases.
type Report struct {
	Results []Result
	Dead    bool // a lane does not answer a plain GET after its last case
}

type timing struct{ quiet, patience time.Duration }

// settle lets bytes that are on their way to the origin arrive.
const settle = 30 * time.Millisecond

func (o Options) timing() timing {
	t := timing{o.Quiet, o.Patience}
	if t.quiet == 0 {
		t.quiet = 300 * time.Millisecond
	}
	if t.patience == 0 {
		t.patience = 2 * time.Second
	}
	return t
}

// Run sends the cases through the lanes and judges each. It fails when ctx
// ends first or no lane is given.
func Run(ctx context.Context, lanes []Lane, opt Options) (Report, error) {
	if len(lanes) == 0 {
		return Report{}, errors.New("no proxy to test")
	}
	var cases []Case
	for _, c := range Cases() {
		reachable := (c.H2 == nil && lanes[0].HTTP1 != "") || (c.H2 != nil && lanes[0].HTTP2 != "")
		if reachable && (opt.Pick == nil || opt.Pick(c)) {
			cases = append(cases, c)
		}
	}
	report := Report{Results: make([]Result, len(cases))}
	dead := make([]bool, len(lanes))
	next := make(chan int)
	var workers sync.WaitGroup
	for i, lane := range lanes {
		workers.Go(func() {
			for n := range next {
				report.Results[n] = runCase(ctx, lane, cases[n], opt.timing())
			}
			dead[i] = !alive(ctx, lane, opt.timing())
		})
	}
	for i := range cases {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	for _, d := range dead {
		report.Dead = report.Dead || d
	}
	if err := context.Cause(ctx); err != nil {
		return Report{}, fmt.Errorf("battery stopped: %w", err)
	}
	return report, nil
}

func runCase(ctx context.Context, lane Lane, c Case, t timing) Result {
	lane.Recorder.Reset()
	var seen exchange
	if c.H2 != nil {
		seen = sendHTTP2(ctx, lane.HTTP2, c, t)
	} else {
		seen = sendHTTP1(ctx, lane.HTTP1, c, t)
	}
	pause(ctx, settle)
	return judge(c, seen, lane.Recorder.Record())
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// alive tells whether the proxy still answers on the lane.
func alive(ctx context.Context, lane Lane, t timing) bool {
	if lane.HTTP1 == "" {
		return true
	}
	lane.Recorder.Reset()
	plain := Case{Name: "alive/get", Want: Serve, Answers: 1, Raw: get("Connection: close\r\n")}
	seen := sendHTTP1(ctx, lane.HTTP1, plain, t)
	return len(seen.statuses) == 1 && seen.statuses[0] == 200
}
