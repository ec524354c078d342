package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/relais-edge/relais/test/conformance/smug"
)

// runBattery is the subcommand smug: the battery against a proxy that the user
// has started and pointed at the recording origin.
func runBattery(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("conformance smug", flag.ContinueOnError)
	http1 := f.String("http1", "", "host:port of the proxy's HTTP/1.1 listener; empty leaves those cases out")
	http2 := f.String("http2", "", "host:port of its h2c listener (prior knowledge); empty leaves those cases out")
	origin := f.String("origin", "127.0.0.1:9000", "listen here as the origin that the proxy forwards "+smug.Host+" to")
	only := f.String("only", "", "run the cases whose name contains this")
	quiet := f.Duration("quiet", 300*time.Millisecond, "listen this long for an answer too many")
	file := f.String("json", "", "write every outcome to this file, - for stdout")
	list := f.Bool("list", false, "list the cases and end")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, c := range smug.Cases() {
			fmt.Fprintf(out, "%-7s %-40s %s\n", c.Want, c.Name, c.Rule)
		}
		return nil
	}
	if *http1 == "" && *http2 == "" {
		return fmt.Errorf("name the proxy with -http1, -http2 or both")
	}
	l, err := net.Listen("tcp", *origin)
	if err != nil {
		return fmt.Errorf("-origin: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rec := smug.NewRecorder()
	go func() { _ = rec.Serve(ctx, l) }()
	battery, err := smug.Run(ctx, []smug.Lane{{HTTP1: *http1, HTTP2: *http2, Recorder: rec}}, smug.Options{
		Quiet: *quiet,
		Pick:  func(c smug.Case) bool { return strings.Contains(c.Name, *only) },
	})
	if err != nil {
		return err
	}
	r := suiteRun{Suite: "smug", Outcomes: fromSmug(battery)}
	writeOpen(out, r)
	writeTable(out, "proxy", []suiteRun{r}, nil)
	if err := writeJSON(out, *file, battery.Results); err != nil {
		return err
	}
	if battery.Dead {
		return fmt.Errorf("the proxy does not answer a plain GET after the battery, so its refusals mean nothing")
	}
	if tally(r.Outcomes)[Pass] < len(r.Outcomes) {
		return errBroken
	}
	return nil
}
