// Package slow holds slow clients, who take many connections and give little, and the ordinary
// client beside them whose answers must not suffer.
package slow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// Ordinary is a client that asks at a steady rate, whatever comes of it, each time on a
// connection of its own.
type Ordinary struct {
	From    string        // its address
	URLs    []string      // asked in turn
	Rate    int           // requests a second
	Timeout time.Duration // after which there is no answer
}

// Report is what an ordinary client met.
type Report struct {
	Asked, Answered int
	P50, P99, Max   time.Duration  // of those answered
	Failures        map[string]int // by what went wrong
}

// Share is the part that was answered, in percent.
func (r Report) Share() float64 { return 100 * float64(r.Answered) / float64(max(1, r.Asked)) }

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// Run asks until ctx ends.
func (o Ordinary) Run(ctx context.Context) Report {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(o.From)}}
	client := &http.Client{Timeout: o.Timeout, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		r    = Report{Failures: map[string]int{}}
		took []time.Duration
	)
	tick := time.NewTicker(time.Second / time.Duration(o.Rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			wg.Wait()
			slices.Sort(took)
			if k := len(took); k > 0 {
				r.P50, r.P99, r.Max = took[k/2], took[k*99/100], took[k-1]
			}
			return r
		case <-tick.C:
		}
		url := o.URLs[n%len(o.URLs)]
		wg.Go(func() {
			from := time.Now()
			err := ask(client, url)
			d := time.Since(from)
			mu.Lock()
			defer mu.Unlock()
			r.Asked++
			if err != nil {
				r.Failures[reason(err)]++
				return
			}
			r.Answered++
			took = append(took, d)
		})
	}
}

func ask(c *http.Client, url string) error {
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// reason is err without what differs each time.
func reason(err error) string {
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &op):
		return fmt.Sprintf("%s: %v", op.Op, op.Err)
	}
	return err.Error()
}
