// Command h3load asks one URL over HTTP/3 again and again, on several connections with several
// requests at once each, with the client of quic-go. It prints what wrk's report prints.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// tally is what one worker has seen.
type tally struct {
	micros            []int32
	bytes             int64
	failed, badStatus int
}

func main() {
	target := flag.String("url", "", "what to ask for; the connection goes to localhost whatever its host is")
	host := flag.String("host", "", "the authority of the requests; empty for that of the url")
	duration := flag.Duration("d", 3*time.Second, "how long")
	conns := flag.Int("c", 16, "connections")
	streams := flag.Int("m", 10, "requests at once on each")
	flag.Parse()
	if flag.NArg() > 0 || *target == "" {
		flag.Usage()
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), *duration+5*time.Second)
	defer cancel()
	tallies := make([]tally, *conns**streams)
	begin := time.Now()
	end := begin.Add(*duration)
	var wg sync.WaitGroup
	for i := range *conns {
		tr := &http3.Transport{
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"},
			DisableCompression: true,
		}
		defer tr.Close()
		for j := range *streams {
			wg.Go(func() { work(ctx, tr, *target, *host, end, &tallies[i**streams+j]) })
		}
	}
	wg.Wait()
	report(tallies, time.Since(begin))
}

// work asks until end.
func work(ctx context.Context, tr *http3.Transport, target, host string, end time.Time, t *tally) {
	for time.Now().Before(end) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			t.failed++
			return
		}
		req.Host = host
		at := time.Now()
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.failed++
			time.Sleep(10 * time.Millisecond)
			continue
		}
		n, err := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		t.bytes += n
		if err != nil {
			t.failed++
			continue
		}
		if resp.StatusCode >= 400 {
			t.badStatus++
		}
		t.micros = append(t.micros, int32(time.Since(at).Microseconds()))
	}
}

// report prints the requests, microseconds, bytes, errors of connecting, reading, writing and
// waiting, bad statuses, and the median latency in microseconds.
func report(tallies []tally, elapsed time.Duration) {
	var all []int32
	var bytes int64
	failed, bad := 0, 0
	for _, t := range tallies {
		all = append(all, t.micros...)
		bytes += t.bytes
		failed += t.failed
		bad += t.badStatus
	}
	slices.Sort(all)
	p50 := int32(0)
	if len(all) > 0 {
		p50 = all[len(all)/2]
	}
	fmt.Printf("\nresult %d %d %d 0 %d 0 0 %d %d\n", len(all), elapsed.Microseconds(), bytes, failed, bad, p50)
}
