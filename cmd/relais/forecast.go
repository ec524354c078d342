package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/forecast"
	"github.com/relais-edge/relais/internal/pop"
)

// forecastFlags are what the command is asked.
type forecastFlags struct {
	files, fail, capacity, logs []string
	rate, from, to, zone        string
	output, data                string
	window                      time.Duration
	mean                        bool
}

func forecastCommand() *cobra.Command {
	f := &forecastFlags{}
	cmd := &cobra.Command{
		Use:   "forecast -f PATH...",
		Short: "Where traffic would go if something failed, or more came",
		Long: "Forecast runs the balancer's own code in virtual time on the load that was recorded: by the edge that\n" +
			"runs on this machine (the last hour), or in access logs. It says tier by tier what would be there,\n" +
			"what would spill and why, and who would be refused. It is a simulation: what rests on an estimate is said.\n\n" +
			"Without --fail and --rate it shows what the model makes of the recorded load itself.\n\n" +
			"--fail takes a tier (home, shop/home or demo/shop/home), an origin (10.0.1.10:8080) or a zone (fra, or\n" +
			"zone:fra). It exits with 0 when all is answered, with 3 when somebody would be refused or not answered\n" +
			"in time, with 2 when the question is wrong and with 1 when something went wrong.",
		Example: "  relais forecast -f shop.yaml --fail home\n" +
			"  relais forecast -f shop.yaml --rate x1.5 --capacity home=200 --capacity overflow=400\n" +
			"  relais forecast -f shop.yaml --fail zone:fra --rate 1200/s --window 30m\n" +
			"  relais forecast -f shop.yaml --fail home --access-log access.log --from '2026-11-23 18:00' --to '2026-11-23 21:00'\n" +
			"  zcat access.log.*.gz | relais forecast -f shop.yaml --rate x3 --access-log - -o json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&f.files, "file", "f", nil, "file or folder of documents, or - for standard input; may be repeated")
	fl.StringArrayVar(&f.fail, "fail", nil, "tier, origin or zone that fails; may be repeated")
	fl.StringVar(&f.rate, "rate", "", "load: a multiple of the recorded one such as x1.5, or of all pools together such as 1200/s")
	fl.StringArrayVar(&f.capacity, "capacity", nil, "how many requests at once a tier works on, such as home=200; may be repeated")
	fl.StringVar(&f.from, "from", "", "load from this time on: 2026-11-23T18:00:00Z, '2026-11-23 18:00' or 18:00, in UTC")
	fl.StringVar(&f.to, "to", "", "load up to this time")
	fl.DurationVar(&f.window, "window", forecast.DefaultWindow, "load of this long until --to or until now, unless --from is given")
	fl.BoolVar(&f.mean, "mean", false, "begin with the mean of that time in place of its busiest minute")
	fl.StringArrayVar(&f.logs, "access-log", nil, "access log to read in place of asking the edge, or - for standard input; may be repeated")
	fl.StringVar(&f.zone, "zone", "", "zone of the edge, as for serve")
	outputFlag(cmd, &f.output)
	dataFlag(cmd, &f.data)
	_ = cmd.MarkFlagRequired("file")
	return cmd
}

// usage is an error of the question.
func usage(err error) error { return &exitError{code: exitUsage, err: err} }

func (f *forecastFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return usage(fmt.Errorf("-o %s: the output is text or json", f.output))
	}
	q, err := f.question(time.Now())
	if err != nil {
		return usage(err)
	}
	b, problems := pop.Compile(f.files, os.LookupEnv)
	if len(problems) > 0 {
		printProblems(cmd.ErrOrStderr(), problems)
		return &exitError{code: exitUsage, err: errors.New("the documents are wrong"), said: true}
	}
	q.Pools = poolsOf(b)
	if len(q.Pools) == 0 {
		return usage(errors.New("the documents have no site with a pool, so there is nothing to forecast"))
	}
	if err := q.Check(); err != nil { // before a log of hours is read
		return usage(err)
	}
	show1 := progress(cmd.ErrOrStderr())
	var stats *forecast.LogStats
	if len(f.logs) > 0 {
		logs := &forecast.Logs{Names: f.logs, Stdin: cmd.InOrStdin(), Window: q.Window, Only: onlyPools(b), Progress: func(read, all int64) {
			if all > 0 {
				show1("reading %d of %d MiB", read>>20, all>>20)
			} else {
				show1("reading, %d MiB so far", read>>20)
			}
		}}
		q.Loads, stats, err = logs.Read(cmd.Context())
	} else {
		q.Loads, err = f.ask(cmd.Context(), q.Pools)
	}
	if err == nil {
		q.Progress = func(share float64) { show1("simulating, %.0f %%", 100*share) }
		err = nil
	}
	if err != nil {
		show1("")
		return failed(err)
	}
	r, err := forecast.Run(cmd.Context(), q)
	show1("")
	if err != nil {
		if errors.Is(err, forecast.ErrNoLoad) && stats != nil {
			err = fmt.Errorf("%w; the logs have %.0f lines, %.0f of them unreadable and %.0f that asked no origin", err, stats.Lines, stats.Unreadable, stats.Elsewhere)
		}
		return failed(err)
	}
	r.Read(stats)
	if err := show(cmd.OutOrStdout(), f.output, r, func(w io.Writer) { printForecast(w, r) }); err != nil {
		return err
	}
	if !r.Fits {
		return &exitError{code: exitFull, err: errors.New(r.Verdict), said: true}
	}
	return nil
}

// question reads the flags.
func (f *forecastFlags) question(now time.Time) (*forecast.Question, error) {
	q := &forecast.Question{Seed: 1, Where: balance.Where{Zone: f.zone}, WhatIf: forecast.WhatIf{Fail: f.fail}}
	var err error
	if f.rate != "" {
		if q.WhatIf.Rate, err = forecast.ParseRate(f.rate); err != nil {
			return nil, err
		}
	}
	for _, c := range f.capacity {
		s, err := forecast.ParseSlots(c)
		if err != nil {
			return nil, err
		}
		q.WhatIf.Capacity = append(q.WhatIf.Capacity, s)
	}
	q.Window = forecast.Window{Last: f.window, Mean: f.mean}
	if f.window <= 0 {
		return nil, fmt.Errorf("--window %s: write a time above 0, such as 30m", f.window)
	}
	if q.Window.From, err = moment("--from", f.from, now); err != nil {
		return nil, err
	}
	if q.Window.To, err = moment("--to", f.to, now); err != nil {
		return nil, err
	}
	if !q.Window.From.IsZero() && !q.Window.To.IsZero() && !q.Window.From.Before(q.Window.To) {
		return nil, fmt.Errorf("--from %s is not before --to %s", f.from, f.to)
	}
	return q, nil
}

// moment reads a time; empty is the zero time.
func moment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.Parse("2006-01-02 15:04", s); err == nil {
		return t, nil
	}
	if t, err := time.Parse("15:04", s); err == nil {
		y, m, d := now.UTC().Date()
		t = time.Date(y, m, d, t.Hour(), t.Minute(), 0, 0, time.UTC)
		if t.After(now) {
			t = t.AddDate(0, 0, -1)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%s %q: write a time such as 2026-11-23T18:00:00Z, '2026-11-23 18:00' or 18:00, in UTC", flag, s)
}

// poolsOf lists the pools of the sites.
func poolsOf(b *bundle.Bundle) map[bundle.Key]*v1.OriginPoolSpec {
	pools := map[bundle.Key]*v1.OriginPoolSpec{}
	for _, s := range b.Sites {
		org, _ := s.Key.Split()
		for name, spec := range s.Pools {
			pools[bundle.NewKey(org, name)] = spec
		}
	}
	return pools
}

// onlyPools has the pool of each site that has a single one.
func onlyPools(b *bundle.Bundle) map[string]string {
	only := map[string]string{}
	for _, s := range b.Sites {
		org, _ := s.Key.Split()
		for name := range s.Pools {
			if len(s.Pools) == 1 {
				only[string(s.Key)] = string(bundle.NewKey(org, name))
			}
		}
	}
	return only
}

// ask asks the edge of this machine for what it recorded of the pools.
func (f *forecastFlags) ask(ctx context.Context, pools map[bundle.Key]*v1.OriginPoolSpec) ([]balance.PoolLoad, error) {
	c := admin.NewClient(filepath.Join(f.data, adminSocket))
	var loads []balance.PoolLoad
	for key := range pools {
		var one []balance.PoolLoad
		if err := c.Get(ctx, "/load?pool="+url.QueryEscape(string(key)), &one); err != nil {
			return nil, fmt.Errorf("%w; or name access logs with --access-log", err)
		}
		loads = append(loads, one...)
	}
	return loads, nil
}

// progress returns what shows a line that is written over, on a terminal only; an empty one takes it away.
func progress(w io.Writer) func(format string, args ...any) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func(string, ...any) {}
	}
	last, shown := time.Now(), false
	return func(format string, args ...any) {
		switch {
		case format == "":
			if shown {
				fmt.Fprint(w, "\r\x1b[K")
			}
		case time.Since(last) > 200*time.Millisecond:
			last, shown = time.Now(), true
			fmt.Fprintf(w, "\r\x1b[K"+format, args...)
		}
	}
}
