package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
	"github.com/relais-edge/relais/internal/pop"
)

//go:embed up.yaml
var upDocuments []byte

// upFlags are the flags of the demo.
type upFlags struct {
	serveFlags
	listen, listenTLS string
	capacity          int
	service           time.Duration
	visitors          float64
	duration          time.Duration
}

func upCommand() *cobra.Command {
	f := upFlags{serveFlags: serveFlags{metrics: "", accessLog: "off", cacheMemory: "256MiB", explain: 4096, logFormat: "text"}}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "A demo: a real little shop in two clusters behind the edge",
		Long: "Up runs a shop in two clusters (home, with a set capacity, and overflow), the edge in front of\n" +
			"them with everything on, and a few visitors. It shows what happens each second and prints things\n" +
			"to try. Baskets and orders are kept on disk and survive the death of either cluster.",
		Example: "  relais up\n  relais up --listen 127.0.0.1:80 --listen-tls 127.0.0.1:443\n  relais up --visitors 0 --for 1m",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return up(cmd, &f) },
	}
	fl := cmd.Flags()
	dataFlag(cmd, &f.data)
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8080", "address of the shop")
	fl.StringVar(&f.listenTLS, "listen-tls", "127.0.0.1:8443", "address of the shop over TLS (own CA)")
	fl.IntVar(&f.capacity, "capacity", 4, "requests that the home cluster works on at once")
	fl.DurationVar(&f.service, "service-time", 100*time.Millisecond, "mean time that a page takes in a cluster")
	fl.Float64Var(&f.visitors, "visitors", 1, "visitors that arrive each second")
	fl.DurationVar(&f.duration, "for", 0, "end after this time; 0 goes on until interrupted")
	fl.StringVar(&f.accessLog, "access-log", "off", "file for the JSON access log, - for standard output, or off")
	return cmd
}

// demo is a running demonstration.
type demo struct {
	flags    *upFlags
	out      io.Writer
	paint    paint
	in       *instance
	clusters []*cluster
	ledger   string
}

func up(cmd *cobra.Command, f *upFlags) error {
	ctx := cmd.Context()
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	d := &demo{flags: f, out: cmd.OutOrStdout(), paint: paintFor(cmd.OutOrStdout()), ledger: filepath.Join(f.data, "shop")}
	if err := os.MkdirAll(d.ledger, 0o700); err != nil {
		return failed(fmt.Errorf("%w; choose another folder with --data", err))
	}
	documents := filepath.Join(f.data, "up.yaml")
	if err := os.WriteFile(documents, upDocuments, 0o600); err != nil {
		return failed(err)
	}
	for _, name := range []string{"home", "overflow"} {
		addr, err := freeAddr(ctx)
		if err != nil {
			return failed(err)
		}
		d.clusters = append(d.clusters, &cluster{name: name, addr: addr, data: d.ledger, capacity: f.capacity, service: f.service, died: d.died})
	}
	f.files = []string{documents}
	var err error
	if d.in, err = wire(cmd, &f.serveFlags, nil); err != nil {
		return err
	}
	defer d.in.Close()
	d.in.source = pop.New(pop.Config{Paths: f.files, Env: d.env, Apply: d.in.edge, Report: d.in.report})
	g, gctx := errgroup.WithContext(ctx)
	fmt.Fprintln(d.out, "starting the shop's two clusters …")
	if err := d.startClusters(gctx, g); err != nil {
		return failed(err)
	}
	fmt.Fprintln(d.out, "starting the edge: compiling the firewall's rules …")
	g.Go(func() error {
		err := d.in.run(gctx, cmd.ErrOrStderr(), func(pop.Change) { d.serving(gctx, g) })
		if err == nil {
			err = context.Canceled // the edge has drained: end the rest
		}
		return err
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// env answers the variables of up.yaml.
func (d *demo) env(name string) (string, bool) {
	switch name {
	case "LISTEN":
		return d.flags.listen, true
	case "LISTEN_TLS":
		return d.flags.listenTLS, true
	case "CAPACITY":
		return strconv.Itoa(d.flags.capacity), true
	case "HOME_CLUSTER":
		return d.clusters[0].addr, true
	case "OVERFLOW_CLUSTER":
		return d.clusters[1].addr, true
	}
	return os.LookupEnv(name)
}

func (d *demo) startClusters(ctx context.Context, g *errgroup.Group) error {
	up := make(chan struct{}, len(d.clusters))
	for _, c := range d.clusters {
		g.Go(func() error { return c.run(ctx, func() { up <- struct{}{} }) })
	}
	for range d.clusters {
		select {
		case <-up:
		case <-ctx.Done():
			return g.Wait()
		}
	}
	return nil
}

func (d *demo) died(name string) {
	fmt.Fprintf(d.out, "%s\n", d.paint.red("cluster "+name+" died; it comes back in "+restartPause.String()))
}

// serving is called once the edge accepts connections.
func (d *demo) serving(ctx context.Context, g *errgroup.Group) {
	d.hints()
	if d.flags.visitors > 0 {
		g.Go(func() error { return d.visit(ctx) })
	}
	g.Go(func() error { return d.live(ctx) })
}

func (d *demo) visit(ctx context.Context) error {
	gen, err := visitors.New(visitors.Config{
		Target: "http://" + d.flags.listen, Rate: visitors.Constant(d.flags.visitors), MaxLive: 500,
		Funnel:  visitors.Funnel{Think: 1500 * time.Millisecond, Basket: 0.5},
		Sources: demoSources, Seed: uint64(time.Now().UnixNano()),
	})
	if err != nil {
		return failed(err)
	}
	_, err = gen.Run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return failed(err)
}

// live prints a line a second on a terminal, in place, and one in ten elsewhere.
func (d *demo) live(ctx context.Context) error {
	ledger, err := shop.OpenLedger(d.ledger)
	if err != nil {
		return failed(err)
	}
	defer ledger.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := d.in.edge.Totals()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		orders, err := ledger.Count(ctx)
		if err != nil {
			continue // the next second will tell
		}
		now := d.in.edge.Totals()
		if !d.paint.on && n%10 != 0 {
			continue
		}
		per := uint64(1)
		if !d.paint.on {
			per = 10
		}
		t := now.Since(last)
		last = now
		line := fmt.Sprintf("  %s  %5d req/s   hits %3d%%   overflow %3d%%   blocked %d   errors %d   orders %d",
			time.Now().Format(time.TimeOnly), t.Requests/per, share(t.Hits, t.Requests), share(t.Spilled, t.Requests-t.Hits), now.Blocked, now.Errors, orders)
		if d.paint.on {
			fmt.Fprintf(d.out, "\r\x1b[K%s", line)
		} else {
			fmt.Fprintln(d.out, line)
		}
	}
}

func share(part, whole uint64) uint64 {
	if whole == 0 {
		return 0
	}
	return part * 100 / whole
}

// hints prints the addresses and things to try.
func (d *demo) hints() {
	url, p := "http://"+d.flags.listen, d.paint
	picture := "/img/" + shop.NewCatalogue().Products()[0].SKU + "-400.jpg"
	self := os.Args[0]
	data := ""
	if d.flags.data != "relais-data" {
		data = " --data " + d.flags.data
	}
	fmt.Fprintf(d.out, "\n  %s  %s/      https://%s/ (own CA)\n", p.bold("shop"), p.green(url), d.flags.listenTLS)
	fmt.Fprintf(d.out, "  clusters  home pid %d, overflow pid %d     documents  %s\n\n", d.clusters[0].pid.Load(), d.clusters[1].pid.Load(), d.flags.files[0])
	for _, h := range [][2]string{
		{"a cached picture (twice: miss, then hit)", "curl -so /dev/null -D- " + url + picture + " | grep -i cache-status"},
		{"an injection that is blocked, with a request id", "curl -s '" + url + "/search?q=1%27%20OR%20%271%27=%271'"},
		{"why it was blocked", self + " explain" + data + " ID"},
		{"a load that fills the home cluster: see the overflow", self + " visitors --rate 15 --for 40s --think 500ms " + url},
		{"kill the home cluster: no order is lost", "kill -9 " + strconv.FormatInt(d.clusters[0].pid.Load(), 10)},
		{"change the documents while it runs", "$EDITOR " + d.flags.files[0]},
	} {
		fmt.Fprintf(d.out, "  %s\n    %s\n", p.dim(h[0]), h[1])
	}
	fmt.Fprintln(d.out)
}
