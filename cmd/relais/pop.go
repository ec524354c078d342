package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/bus/nats"
	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/identity"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/pop"
	"github.com/relais-edge/relais/internal/pop/orders"
	"github.com/relais-edge/relais/internal/pop/spool"
)

func popCommand() *cobra.Command {
	f := serveFlags{follow: true}
	cmd := &cobra.Command{
		Use:   "pop",
		Short: "Serve one edge that follows a control plane",
		Long: "Pop serves what the control plane says, of which it joined the fleet with relais pop join. It keeps what it\n" +
			"serves on its disk: it starts, and goes on, without a control plane.\n" +
			"SIGTERM, SIGHUP, SIGUSR2 and relais upgrade do what they do with relais serve.",
		Example: "  relais pop join relais-join-... --data /var/lib/relais\n  relais pop --data /var/lib/relais",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return serve(cmd, &f) },
	}
	f.add(cmd)
	cmd.AddCommand(popJoinCommand(), popTokenCommand(), popListCommand(), popRevokeCommand())
	return cmd
}

func popJoinCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Make this machine a PoP, with a token of the control plane",
		Long: "Join shows the token to the control plane, which it knows by the token, and keeps the certificate that it\n" +
			"is given in --data. The token works once; where the answer was lost, the same command may be given again\n" +
			"for five minutes.",
		Example: "  relais pop join relais-join-... --data /var/lib/relais",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(data, 0o700); err != nil {
				return failed(err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			s, err := identity.Join(ctx, args[0], data, nil)
			if err != nil {
				return failed(err)
			}
			id, _, err := whoIs(s)
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "this machine is PoP %s of %s; serve with relais pop --data %s\n", id.Name, id.Domain, data)
			return nil
		},
	}
	dataFlag(cmd, &data)
	return cmd
}

func whoIs(s identity.State) (identity.Identity, *identity.Credentials, error) {
	c, err := s.Open(nil)
	if err != nil {
		return identity.Identity{}, nil, err
	}
	id, err := c.Identity()
	return id, c, err
}

// follower is the source of what an edge serves that follows a control plane.
type follower struct {
	in     *instance
	agent  *pop.Agent
	keeper *identity.Keeper
	usage  *pop.Usage

	mu   sync.Mutex
	last pop.Change // of the edge
}

// joined is what an instance needs of a fleet before its edge is made.
type joined struct {
	state       identity.State
	name        string
	credentials *identity.Credentials
	end         *nats.End
}

// secret is what all PoPs share, so that a key of a shared limit is the same at each.
func (j *joined) secret() (s [2]uint64) {
	if b := j.state.Shared; len(b) == 16 {
		s[0], s[1] = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	}
	return s
}

// enter opens what joining left, and the bus.
func enter(data string, logger *slog.Logger) (*joined, error) {
	s, err := identity.Load(data)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("this machine has not joined: relais pop join TOKEN --data %s", data)
	}
	if err != nil {
		return nil, err
	}
	id, credentials, err := whoIs(s)
	if err != nil {
		return nil, err
	}
	end, err := nats.Dial(nats.DialOptions{Addresses: s.Addresses, TLS: credentials.TLS(identity.Any(identity.Control)), Rights: bus.PopRights(id.Name), Name: id.Name, Log: logger})
	if err != nil {
		return nil, err
	}
	return &joined{state: s, name: id.Name, credentials: credentials, end: end}, nil
}

// newFollower makes the source of an edge.
func newFollower(in *instance) (*follower, error) {
	j, e := in.joined, in.edge
	dir := filepath.Join(in.flags.data, "pop")
	set := manifest.KeySet{}
	ids := make([]string, 0, len(j.state.Keys))
	for id := range j.state.Keys {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		set.Keys = append(set.Keys, manifest.Key{Public: j.state.Keys[id]})
	}
	f := &follower{in: in}
	seen := &watched{e: e}
	loader := pop.NewTenants(pop.TenantsConfig{Platform: j.state.Platform, Edge: seen, Logger: in.logger, Metrics: in.metrics})
	var err error
	f.agent, err = pop.NewAgent(pop.AgentConfig{
		Pop: j.name, Dir: dir, Keys: set, Bus: j.end, Loader: loader, Purger: e.FleetPurges(in.metrics), Counters: e, Switcher: switcher{e},
		Served:  f.served,
		Version: version, Logger: in.logger, Metrics: in.metrics,
	})
	if err != nil {
		return nil, err
	}
	f.keeper = &identity.Keeper{Dir: in.flags.data, Credentials: j.credentials, Over: j.end, Log: in.logger}
	kept, err := spool.Open(spool.Config{Dir: filepath.Join(in.flags.data, "usage"), Pop: j.name, Report: in.logger.Error})
	if err != nil {
		return nil, err
	}
	f.usage = pop.NewUsage(pop.UsageConfig{Pop: j.name, Bus: j.end, Spool: kept, Take: e.Usage, Logger: in.logger, Metrics: in.metrics})
	seen.told = f.told
	return f, nil
}

// watched is an edge of which each change is told.
type watched struct {
	e    *edge.Edge
	told func(*bundle.Bundle, time.Duration)
}

// Apply implements pop.Applier.
func (c *watched) Apply(ctx context.Context, b *bundle.Bundle) error {
	begin := time.Now()
	if err := c.e.Apply(ctx, b); err != nil {
		return err
	}
	c.told(b, time.Since(begin))
	return nil
}

// told notes what the edge was given last; which state that was is known a moment later.
func (f *follower) told(b *bundle.Bundle, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = pop.Change{Sites: len(b.Sites), Services: len(b.Services), Took: took}
}

// served tells which state is in service.
func (f *follower) served(p manifest.Position) {
	f.mu.Lock()
	c := f.last
	f.mu.Unlock()
	c.Revision = position(p)
	f.in.report(c)
}

func position(p manifest.Position) string { return fmt.Sprintf("%d.%d", p.Epoch, p.Revision) }

// revision is that of the manifest.
func (f *follower) revision() string { return position(f.agent.State().Position) }

// sites that are in service.
func (f *follower) sites() int {
	if b := f.in.edge.Bundle(); b != nil {
		return len(b.Sites)
	}
	return 0
}

// Load implements source: what was served last, or the first that the control plane sends.
func (f *follower) Load(ctx context.Context) pop.Change {
	begin := time.Now()
	err := f.agent.Boot(ctx)
	if errors.Is(err, pop.ErrNothing) {
		f.in.logger.Info("this PoP serves nothing yet; it waits for its control plane", "pop", f.in.joined.name, "addresses", strings.Join(f.in.joined.state.Addresses, " "))
		err = nil
	}
	return pop.Change{Revision: f.revision(), Sites: f.sites(), Took: time.Since(begin), Err: err}
}

// State implements source.
func (f *follower) State() pop.State {
	s := f.agent.State()
	return pop.State{Revision: position(s.Position), Sites: f.sites(), Problem: s.Problem}
}

// Run implements source.
func (f *follower) Run(ctx context.Context, _ <-chan os.Signal) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.agent.Run(ctx) })
	g.Go(func() error {
		f.keeper.Run(ctx)
		return nil
	})
	g.Go(func() error { return f.usage.Run(ctx) })
	return errors.Join(g.Wait(), f.in.joined.end.Close())
}

// switcher leaves out what orders say.
type switcher struct{ e *edge.Edge }

// Switch implements pop.Switcher.
func (s switcher) Switch(ctx context.Context, list []orders.Order) error {
	off := make([]edge.Switch, 0, len(list))
	for _, o := range list {
		off = append(off, edge.Switch{Protection: o.Protection, Organization: o.Organization, Site: bundle.Key(o.Site)})
	}
	return s.e.SetSwitches(ctx, off)
}
