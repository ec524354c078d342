package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
)

func visitorsCommand() *cobra.Command {
	var rate, spike float64
	var duration, think time.Duration
	var insecure bool
	var host, ledger string
	cmd := &cobra.Command{
		Use:   "visitors URL",
		Short: "Send shoppers to the demo shop and report what they lived through",
		Long: "Visitors is the generator of shoppers of the demo: people with browsers who look around, fill\n" +
			"baskets and order. It is made for the demo shop. With --ledger it compares what buyers were told\n" +
			"with what the shop wrote down, and fails when an order was lost.",
		Example: "  relais visitors --rate 20 --for 30s http://127.0.0.1:8080/\n" +
			"  relais visitors --rate 10 --spike 5 --for 1m --ledger relais-data/shop http://127.0.0.1:8080/",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			arrivals := visitors.Constant(rate)
			if spike > 0 {
				arrivals = visitors.Spike(rate, spike, duration/4, duration*3/4)
			}
			g, err := visitors.New(visitors.Config{
				Target: args[0], Host: host, Rate: arrivals, Duration: duration, Insecure: insecure,
				Funnel: visitors.Funnel{Think: think}, Sources: demoSources, Seed: uint64(time.Now().UnixNano()),
			})
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			report, err := g.Run(cmd.Context())
			fmt.Fprintln(cmd.OutOrStdout(), report)
			if err != nil || ledger == "" {
				return failed(err)
			}
			return verify(cmd, report, ledger)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&rate, "rate", 5, "visitors that arrive each second")
	f.Float64Var(&spike, "spike", 0, "how many times as many arrive in the middle half of the time")
	f.DurationVar(&duration, "for", 30*time.Second, "how long visitors arrive")
	f.DurationVar(&think, "think", 2*time.Second, "median pause between two pages")
	f.StringVar(&host, "host", "", "the site to ask for, when it is not the URL's")
	f.BoolVar(&insecure, "insecure", false, "accept any certificate")
	f.StringVar(&ledger, "ledger", "", "the shop's folder, to compare orders with")
	return cmd
}

func verify(cmd *cobra.Command, report visitors.Report, dir string) error {
	l, err := shop.OpenLedger(dir)
	if err != nil {
		return failed(err)
	}
	defer l.Close()
	v, err := report.Verify(cmd.Context(), l)
	if err != nil {
		return failed(err)
	}
	fmt.Fprintln(cmd.OutOrStdout(), v)
	if len(v.Lost) > 0 {
		return failed(fmt.Errorf("%d orders were lost", len(v.Lost)))
	}
	return nil
}

// demoSources are the addresses that demo visitors come from: loopback, without any set-up.
var demoSources = netip.MustParsePrefix("127.1.0.0/16")
