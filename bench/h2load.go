package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// The load of HTTP/2: connections, and streams at once on each.
const (
	h2Conns   = 16
	h2Streams = 10
)

// loadH2 runs h2load. It gives no median of the times, so there is none.
func loadH2(ctx context.Context, _ *site, url string, _, seconds int) (loadResult, error) {
	cmd := exec.CommandContext(ctx, "h2load", "-t1", "-c"+strconv.Itoa(h2Conns), "-m"+strconv.Itoa(h2Streams),
		"-D"+strconv.Itoa(seconds), "--npn-list=h2", url)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("h2load %s: %w\n%s\n(Debian has it in nghttp2-client)", url, err, out)
	}
	return parseH2load(out, time.Duration(seconds)*time.Second)
}

// parseH2load reads the counts of h2load's report.
func parseH2load(out []byte, elapsed time.Duration) (loadResult, error) {
	number := func(pattern string) int64 {
		m := regexp.MustCompile(pattern).FindSubmatch(out)
		if m == nil {
			return -1
		}
		n, err := strconv.ParseInt(string(m[1]), 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	done, failed := number(`(\d+) succeeded`), number(`(\d+) failed`)
	bad4, bad5 := number(`(\d+) 4xx`), number(`(\d+) 5xx`)
	switch {
	case done < 0 || failed < 0 || bad4 < 0 || bad5 < 0:
		return loadResult{}, fmt.Errorf("h2load printed no result:\n%s", out)
	case done == 0:
		return loadResult{}, errors.New("h2load got no answer")
	}
	return loadResult{requests: done, elapsed: elapsed, errors: failed, badStatus: bad4 + bad5}, nil
}
