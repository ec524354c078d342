package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bus/limits"
	"github.com/relais-edge/relais/internal/document"
	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/cache"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/handover"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/packet"
	"github.com/relais-edge/relais/internal/pop"
)

// adminSocket is the name of the admin socket in the data folder.
const adminSocket = "admin.sock"

func dataFlag(cmd *cobra.Command, to *string) {
	def := os.Getenv("RELAIS_DATA")
	if def == "" {
		def = "relais-data"
	}
	cmd.Flags().StringVar(to, "data", def, "folder for keys and the admin socket (or RELAIS_DATA)")
}

// serveFlags are the flags of an edge.
type serveFlags struct {
	files       []string
	data        string
	accessLog   string
	metrics     string
	cacheMemory string
	cacheDisk   string
	cacheSize   string   // of cacheDisk
	quotas      []string // of organizations in memory, and on the disk
	diskQuotas  []string
	explain     int
	logFormat   string
	verbose     bool
	pidFile     string
	within      time.Duration // for a new program to be ready
	zone        string
	number      int
	record      recordFlags
	geoip       []string
	packet      packetFlags
	follow      bool // a control plane, and no files
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve -f PATH...",
		Short: "Serve one edge from documents",
		Long: "Serve reads documents from files or folders, serves what they say, and reloads when they change\n" +
			"or on SIGHUP, which also begins a new file for the access log when the old one was moved away.\n" +
			"A bad change is reported and changes nothing. SIGTERM ends in good order: no new\n" +
			"connections, requests under way are answered (a listener's timeouts.drain bounds it).\n" +
			"SIGUSR2, or relais upgrade, starts the program that is on disk now, hands the sockets over\n" +
			"once it serves, and ends in good order; when it cannot serve, nothing changes.\n" +
			"It prints one line when it accepts connections.",
		Example: "  ORIGIN=10.0.0.5:8080 relais serve -f examples/proxy.yaml\n" +
			"  relais serve -f /etc/relais --access-log /var/log/relais.json --metrics 127.0.0.1:9090",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd, &f) },
	}
	cmd.Flags().StringArrayVarP(&f.files, "file", "f", nil, "file or folder of documents, or - for standard input; may be repeated")
	f.add(cmd)
	_ = cmd.MarkFlagRequired("file")
	return cmd
}

// add makes the flags that an edge has wherever its documents come from.
func (f *serveFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	dataFlag(cmd, &f.data)
	fl.StringVar(&f.accessLog, "access-log", "off", "file for the JSON access log, - for standard output, or off")
	fl.StringVar(&f.metrics, "metrics", "", "address that serves Prometheus metrics at /metrics (they are on the admin socket too)")
	fl.StringVar(&f.cacheMemory, "cache-memory", "256MiB", "memory for stored answers")
	fl.StringVar(&f.cacheDisk, "cache-disk", "", "folder of the cache's own for stored answers that outlive the process; without it they are in memory only")
	fl.StringVar(&f.cacheSize, "cache-disk-size", "16GiB", "how much of --cache-disk is used")
	fl.StringArrayVar(&f.quotas, "cache-quota", nil, "how much of --cache-memory an organization may have, as ORGANIZATION=SIZE; * is each that is not named; may be repeated")
	fl.StringArrayVar(&f.diskQuotas, "cache-disk-quota", nil, "the same of --cache-disk-size")
	fl.IntVar(&f.explain, "explain", 4096, "how many of the last requests can be explained")
	fl.StringVar(&f.logFormat, "log", "text", "form of the process's own log: text or json")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	fl.StringVar(&f.pidFile, "pid-file", "", "file for the process id; after an upgrade it holds that of the new process")
	fl.DurationVar(&f.within, "upgrade-within", 2*time.Minute, "how long a new program may take until it serves")
	fl.StringVar(&f.zone, "zone", os.Getenv("RELAIS_ZONE"), "where this edge is, for pools with zones.prefer: own (or RELAIS_ZONE)")
	fl.IntVar(&f.number, "edge-number", -1, "number of this edge, from 0, among those that share the origins of tiers with a subset; -1 makes one of the host name")
	f.record.add(cmd)
	fl.StringArrayVar(&f.geoip, "geoip", nil, "MMDB file that says in which country or network an address is (GeoLite2, IPinfo, DB-IP …); may be repeated; it is read again when it changes")
	f.packet.add(cmd)
}

// edgeNumber is the number that was given, or one that the host name leads to: even by chance only.
func edgeNumber(n int) uint64 {
	if n >= 0 {
		return uint64(n)
	}
	name, _ := os.Hostname()
	h := fnv.New64a()
	_, _ = io.WriteString(h, name)
	return h.Sum64() >> 32
}

// source is where an edge has its documents from.
type source interface {
	// Load puts in service what there is.
	Load(ctx context.Context) pop.Change
	// Run follows changes until ctx ends; wake has what there is looked at anew.
	Run(ctx context.Context, wake <-chan os.Signal) error
	State() pop.State
}

// instance is an edge that is wired and not yet running.
type instance struct {
	edge    *edge.Edge
	source  source
	joined  *joined      // nil for an edge of files
	access  *record.File // nil when there is no file
	metrics *observe.Registry
	packet  *packet.Filter
	logger  *slog.Logger
	flags   *serveFlags
	close   []io.Closer
	serving atomic.Bool // the first documents are in service

	inherited *handover.Inherited
	self      string       // the program's file, also when another lies there by now
	upgrades  chan upgrade // nil where the process cannot be replaced
	admin     net.Listener // nil when it could not be had
	scrape    net.Listener // of metrics; nil without
}

func serve(cmd *cobra.Command, f *serveFlags) error {
	self, err := program()
	if err != nil {
		return failed(err)
	}
	inherited, err := handover.Receive()
	if err != nil {
		return failed(err)
	}
	err = serveWith(cmd, f, self, inherited)
	if err != nil { // a process before this one, if any, goes on serving and wants to know why
		inherited.Failed(err.Error())
	}
	return err
}

func serveWith(cmd *cobra.Command, f *serveFlags, self string, inherited *handover.Inherited) error {
	in, err := wire(cmd, f, inherited)
	if err != nil {
		return err
	}
	defer in.Close()
	in.self, in.upgrades = self, make(chan upgrade)
	ready := func(c pop.Change) {
		fmt.Fprintf(cmd.OutOrStdout(), "relais serves %s on %s (revision %s, %s)\n", counted(c.Sites, c.Services), strings.Join(in.edge.Addresses(), " "), c.Revision, c.Took.Round(time.Millisecond))
		in.warnOfFiles()
		in.takeOver()
	}
	return in.run(cmd.Context(), cmd.ErrOrStderr(), ready)
}

// counted says how many sites and services there are.
func counted(sites, services int) string {
	s := plural(sites, "site")
	if services > 0 {
		s += " and " + plural(services, "service")
	}
	return s
}

// plural is n with its noun.
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprint(n, " ", noun)
}

// wire makes an edge of the flags.
func wire(cmd *cobra.Command, f *serveFlags, inherited *handover.Inherited) (*instance, error) {
	usage := func(err error) error { return &exitError{code: exitUsage, err: err} }
	memory, disk, err := cacheSizes(f)
	if err != nil {
		return nil, usage(err)
	}
	quotas, err := cacheQuotas(f)
	if err != nil {
		return nil, usage(err)
	}
	if f.explain < 1 || f.explain > 1_000_000 {
		return nil, usage(errors.New("--explain: give a number from 1 to 1000000"))
	}
	if f.number < -1 {
		return nil, usage(errors.New("--edge-number: give a number from 0, or -1"))
	}
	logger, err := newLogger(cmd.ErrOrStderr(), f)
	if err != nil {
		return nil, usage(err)
	}
	keep, err := f.record.config(f.data, logger)
	if err != nil {
		return nil, usage(err)
	}
	in := &instance{metrics: observe.New(), logger: logger, flags: f, inherited: inherited}
	log, err := openAccessLog(f.accessLog, cmd.OutOrStdout(), in)
	if err != nil {
		return nil, failed(err)
	}
	_, visitorFiles := fileLimit()
	if in.packet, err = in.packetFilter(); err != nil {
		in.Close()
		return nil, usage(err)
	}
	cfg := edge.Config{
		Data: f.data, AccessLog: log, CacheBytes: memory, CacheDisk: disk, CacheQuotas: quotas, Explain: f.explain, Record: keep, Inherited: inherited, Files: visitorFiles, Zone: f.zone, Number: edgeNumber(f.number), Places: f.geoip, Logger: logger, Metrics: in.metrics,
	}
	if packet.Mode(f.packet.mode) != packet.Off {
		cfg.Denier = in.packet.Rules()
	}
	if f.follow {
		if in.joined, err = enter(f.data, logger); err != nil {
			in.Close()
			return nil, failed(err)
		}
		if cfg.Bus, err = limits.Join(in.joined.end, in.joined.name); err != nil {
			in.Close()
			return nil, failed(err)
		}
		cfg.BusSecret = in.joined.secret()
	}
	if in.edge, err = edge.New(cfg); err != nil {
		in.Close()
		return nil, failed(fmt.Errorf("%w (--data names the folder)", err))
	}
	if !f.follow {
		in.source = pop.New(pop.Config{Paths: f.files, Env: os.LookupEnv, Apply: in.edge, Report: in.report})
		return in, nil
	}
	if in.source, err = newFollower(in); err != nil {
		in.Close()
		return nil, failed(err)
	}
	return in, nil
}

// cacheQuotas reads what organizations may have of the cache.
func cacheQuotas(f *serveFlags) (map[string]cache.Quota, error) {
	quotas := map[string]cache.Quota{}
	if len(f.diskQuotas) > 0 && f.cacheDisk == "" {
		return nil, errors.New("--cache-disk-quota: there is no disk; give one with --cache-disk")
	}
	for _, list := range [...]struct {
		flag string
		of   []string
		set  func(q *cache.Quota, bytes int64)
	}{
		{"--cache-quota", f.quotas, func(q *cache.Quota, bytes int64) { q.Memory = bytes }},
		{"--cache-disk-quota", f.diskQuotas, func(q *cache.Quota, bytes int64) { q.Disk = bytes }},
	} {
		for _, text := range list.of {
			name, number, ok := strings.Cut(text, "=")
			if !ok || name == "" {
				return nil, fmt.Errorf("%s %s: give an organization and a size, such as acme=2GiB", list.flag, text)
			}
			var size v1.Size
			if err := size.UnmarshalText([]byte(number)); err != nil {
				return nil, fmt.Errorf("%s %s: %w", list.flag, text, err)
			}
			if size <= 0 {
				return nil, fmt.Errorf("%s %s: give more than nothing; without a quota there is no bound", list.flag, text)
			}
			q := quotas[name]
			list.set(&q, int64(size))
			quotas[name] = q
		}
	}
	return quotas, nil
}

// cacheSizes reads the flags of the cache.
func cacheSizes(f *serveFlags) (memory int64, disk cache.Disk, err error) {
	var size v1.Size
	if err := size.UnmarshalText([]byte(f.cacheMemory)); err != nil {
		return 0, disk, fmt.Errorf("--cache-memory: %w", err)
	}
	if memory = int64(size); memory < cache.MinBytes {
		return 0, disk, fmt.Errorf("--cache-memory %s: give at least 256KiB", f.cacheMemory)
	}
	if f.cacheDisk == "" {
		return memory, disk, nil
	}
	if err := size.UnmarshalText([]byte(f.cacheSize)); err != nil {
		return 0, disk, fmt.Errorf("--cache-disk-size: %w", err)
	}
	disk = cache.Disk{Dir: f.cacheDisk, Bytes: int64(size)}
	if disk.Bytes < cache.MinDisk {
		return 0, disk, fmt.Errorf("--cache-disk-size %s: give at least 64MiB", f.cacheSize)
	}
	if info, err := os.Stat(f.cacheDisk); err == nil && !info.IsDir() {
		return 0, disk, fmt.Errorf("--cache-disk %s is a file: give a folder of the cache's own", f.cacheDisk)
	}
	return memory, disk, nil
}

// Close closes what wire opened.
func (in *instance) Close() {
	for _, c := range in.close {
		_ = c.Close()
	}
}

func newLogger(w io.Writer, f *serveFlags) (*slog.Logger, error) {
	opt := &slog.HandlerOptions{Level: slog.LevelInfo}
	if f.verbose {
		opt.Level = slog.LevelDebug
	}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opt)), nil
	}
	return nil, fmt.Errorf("--log %s: the form is text or json", f.logFormat)
}

func openAccessLog(name string, out io.Writer, in *instance) (io.Writer, error) {
	switch name {
	case "off", "":
		return nil, nil
	case "-":
		return out, nil
	}
	file, err := record.OpenFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another file with --access-log", err)
	}
	in.access, in.close = file, append(in.close, file)
	return file, nil
}

// report says what came of a change of the documents; of the first ones, run speaks.
func (in *instance) report(c pop.Change) {
	if len(c.Problems) == 0 && c.Err == nil {
		in.edge.SetRevision(c.Revision)
		if n := len(c.Unused); n > 0 {
			in.logger.Warn("documents that only a control plane (relais control) has a use for; one edge serves without them", "documents", n, "first", c.Unused[0])
		}
	}
	switch {
	case !in.serving.Load():
	case len(c.Problems) > 0:
		in.logger.Error("documents are wrong; what was served is still served", "problems", len(c.Problems), "first", c.Problems[0].String())
	case c.Err != nil:
		in.logger.Error("documents could not be put in service; what was served is still served", "err", c.Err)
	default:
		in.logger.Info("documents are in service", "revision", c.Revision, "sites", c.Sites, "took", c.Took.Round(time.Millisecond))
	}
}

// run serves until ctx ends or another process has taken over, then drains. Ready is called once
// connections are accepted.
func (in *instance) run(ctx context.Context, errs io.Writer, ready func(pop.Change)) error {
	life, end := context.WithCancel(context.Background())
	defer end()
	g, life := errgroup.WithContext(life)
	g.Go(func() error { return in.edge.Run(life) })
	first := in.source.Load(ctx)
	if err := firstError(errs, first); err != nil {
		end()
		_ = g.Wait()
		return err
	}
	in.serving.Store(true)
	present, leave := context.WithCancel(life) // until another process is in charge
	defer leave()
	if err := in.beside(present, g); err != nil {
		end()
		_ = g.Wait()
		return failed(err)
	}
	ready(first)
	if in.stay(ctx, life) {
		leave()
	}
	if life.Err() == nil {
		in.logger.Info("draining")
		_ = handover.Notify(handover.StateStopping)
		if err := in.edge.Drain(life); err != nil {
			in.logger.Warn("drained", "err", err)
		}
	}
	end()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return failed(err)
	}
	return nil
}

// beside starts what a process does beside serving visitors, until ctx ends.
func (in *instance) beside(ctx context.Context, g *errgroup.Group) error {
	hup, again := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	started := time.Now()
	g.Go(func() error {
		defer signal.Stop(hup)
		return until(ctx, in.source.Run(ctx, again))
	})
	g.Go(func() error {
		in.followHangups(ctx, hup, again)
		return nil
	})
	if err := in.openSides(ctx); err != nil {
		return err
	}
	g.Go(func() error { return until(ctx, in.packet.Run(ctx)) })
	if in.admin != nil {
		g.Go(func() error {
			err := admin.New(in.adminConfig(started)).Run(ctx)
			if ctx.Err() == nil { // visitors are served without it
				in.logger.Warn("this edge cannot be asked to explain", "err", err)
			}
			return nil
		})
	}
	if in.scrape != nil {
		g.Go(func() error { return until(ctx, serveMetrics(ctx, in.scrape, in.metrics)) })
	}
	return nil
}

// followHangups begins a new access log at each SIGHUP, as log rotation wants it, and has the
// documents read again.
func (in *instance) followHangups(ctx context.Context, hup <-chan os.Signal, again chan<- os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-hup:
			if in.access != nil {
				if err := in.access.Reopen(); err != nil {
					in.logger.Error("the access log could not be begun anew; the old file is written on", "err", err)
				}
			}
			select {
			case again <- s:
			default: // they are about to be read anyway
			}
		}
	}
}

// until forgives an error that comes of the end of ctx.
func until(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// firstError prints why the first documents cannot be served.
func firstError(errs io.Writer, c pop.Change) error {
	if len(c.Problems) > 0 {
		printProblems(errs, c.Problems)
		return &exitError{code: exitUsage, err: fmt.Errorf("%s (%d problems in all)", c.Problems[0], len(c.Problems)), said: true}
	}
	return failed(c.Err)
}

func printProblems(w io.Writer, problems []document.Problem) {
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
}
