// Command cachepurge runs the benchmarks of purges, and compares them with their goals: a tag that a million objects carry
// against one that one object carries, and purges a second with a log on a disk. It exits 1 when one is short.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
)

// goal is what a metric of a benchmark must not exceed, or must reach.
type goal struct {
	benchmark, metric, about string
	bound                    float64
	most                     bool
}

func goals() []goal {
	return []goal{
		{"BenchmarkPurgeTag", "million/one", "a tag on a million objects, over a tag on one", 1.10, true},
		{"BenchmarkPurgesKept/clients=1", "purges/s", "purges/s, one client that waits for the disk each time", 0, false},
		{"BenchmarkPurgesKept/clients=64", "purges/s", "purges/s, kept on the disk, 64 clients a processor", 5000, false},
	}
}

var errShort = errors.New("a goal is missed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkPurge(Tag|sKept)$", "-benchtime", "1x", "./internal/edge/cache")
	kept := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkPurgesKept$", "-benchtime", "3s", "./internal/edge/cache")
	err := run([]*exec.Cmd{cmd, kept}, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cachepurge:", err)
		os.Exit(1)
	}
}

func run(commands []*exec.Cmd, w io.Writer) error {
	metrics := map[string]float64{}
	for _, cmd := range commands {
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w\n%s", err, out.Bytes())
		}
		read(out.String(), metrics)
	}
	return judge(metrics, w)
}

// read takes the metrics of a benchmark's lines, by "name metric"; the last one counts.
func read(out string, metrics map[string]float64) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := f[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 { // the number of processors
			name = name[:i]
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				metrics[name+" "+f[i+1]] = v
			}
		}
	}
}

func judge(metrics map[string]float64, w io.Writer) error {
	var err error
	for _, g := range goals() {
		v, ok := metrics[g.benchmark+" "+g.metric]
		word := "ok"
		switch {
		case !ok, g.most && v > g.bound, !g.most && v < g.bound:
			word, err = "short", errShort
		}
		fmt.Fprintf(w, "bench-cache/%s  measured %.2f  goal %s %.2f  peer none  %s\n", g.about, v, map[bool]string{true: "<=", false: ">="}[g.most], g.bound, word)
	}
	return err
}
