package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/demo/shop"
)

// shopCommand runs one cluster of the demo shop as a process of its own, so that it can be killed.
func shopCommand() *cobra.Command {
	var listen string
	var tied bool
	cfg := shop.Config{ReportLoad: true}
	cmd := &cobra.Command{
		Use:     "shop",
		Short:   "Run one cluster of the demo shop (up starts two)",
		Example: "  relais shop --cluster home --listen 127.0.0.1:9000 --data relais-data/shop\n  ORIGIN=127.0.0.1:9000 relais serve -f examples/full.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)).With("cluster", cfg.Cluster)
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			if tied {
				go func() { // whoever started us holds the other end; when it is gone, so are we
					_, _ = io.Copy(io.Discard, os.Stdin)
					cancel()
				}()
			}
			return failed(runShop(ctx, cmd.OutOrStdout(), cfg, listen))
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Cluster, "cluster", "home", "name of the cluster")
	f.StringVar(&listen, "listen", "127.0.0.1:9000", "address to serve on")
	f.StringVar(&cfg.DataDir, "data", "relais-data/shop", "folder of baskets and orders, shared by the clusters")
	f.IntVar(&cfg.Capacity, "capacity", 40, "requests worked on at once")
	f.DurationVar(&cfg.ServiceTime, "service-time", 40*time.Millisecond, "mean time that a page takes")
	f.BoolVar(&tied, "tied", false, "end when standard input ends")
	return cmd
}

func runShop(ctx context.Context, out io.Writer, cfg shop.Config, listen string) error {
	s, err := shop.New(cfg)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		_ = s.Close()
		return fmt.Errorf("shop: %w; choose another address with --listen", err)
	}
	fmt.Fprintf(out, "shop %s serves on %s\n", cfg.Cluster, ln.Addr())
	return s.Run(ctx, ln)
}
