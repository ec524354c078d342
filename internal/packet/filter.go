package packet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Filter is the packet filter of a machine's interfaces. New makes one, Run has it filter.
type Filter struct {
	cfg   Config
	guard *guard
	rules *Rules
	meter *meter

	mu     sync.Mutex
	status Status
}

// kernel is what filters: XDP or nftables.
type kernel interface {
	table
	// tick is called some times a second, and keeps the filter alive. A kernel that has lost an interface
	// says so.
	tick(now time.Time) error
	// about adds to a status what the kernel counts.
	about(s *Status)
	// close has the kernel filter nothing any more.
	close() error
}

// Status is how a filter is.
type Status struct {
	Asked      Mode     `json:"asked"`
	Mode       Mode     `json:"mode"` // off when nothing filters
	How        string   `json:"how,omitempty"`
	Interfaces []string `json:"interfaces,omitempty"`
	// Unprotected says in sentences what is not protected, and why.
	Unprotected []string       `json:"unprotected,omitempty"`
	Rules       int            `json:"rules"`
	ByReason    map[string]int `json:"rulesByReason,omitempty"`
	Refused     uint64         `json:"rulesRefused"`
	Expired     uint64         `json:"rulesExpired"`
	Counts      []Count        `json:"counts,omitempty"`
	Cookies     string         `json:"synCookies,omitempty"` // ready, sent, or kernel
	Management  []netip.Prefix `json:"management,omitempty"`
	Ports       []uint16       `json:"managementPorts,omitempty"`
}

// Count is how many packets a reason decided on.
type Count struct {
	Reason  string `json:"reason"`
	Dropped bool   `json:"dropped"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// New returns a filter; it starts nothing, and an error says what is wrong with the configuration.
// Rules may be written at once.
func New(cfg Config) (*Filter, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	g := newGuard(cfg.Management, cfg.ManagementPorts)
	f := &Filter{cfg: cfg, guard: g, rules: newRules(g, time.Now), meter: newMeter(cfg.Metrics)}
	f.status = Status{Asked: cfg.Mode, Mode: Off}
	return f, nil
}

// Rules are the filter's rules.
func (f *Filter) Rules() *Rules { return f.rules }

// How often the filter looks after itself, and how often it tries to attach.
const (
	tickEvery   = 250 * time.Millisecond
	attachEvery = 250 * time.Millisecond
	attachFor   = lease + 2*time.Second // for an interface that another process holds, or held until it was killed
	waitFor     = 30 * time.Second      // with Config.Waits
)

// lease is how long the program filters after user space has last said that it lives. Then it passes
// everything: a process that hangs cuts nobody off. A process that ends takes the program with it.
const lease = 5 * time.Second

// errBusy is that of an interface on which somebody else filters.
var errBusy = errors.New("another program filters there")

// Run filters until ctx ends, and then nothing any more. It returns an error at once when just this
// mode was asked for and cannot be; with Auto it goes on, and Status says what is unprotected.
func (f *Filter) Run(ctx context.Context) error {
	if f.cfg.Mode == Off {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	f.guard.now()
	k, err := f.attach(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f.unprotected(err)
		if f.cfg.Mode != Auto && !f.cfg.Waits {
			return err
		}
		f.cfg.Logger.Warn("no packet filter: floods of packets reach the kernel's own stack", "err", err)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	defer func() {
		_ = f.rules.attach(nil)
		if err := k.close(); err != nil {
			f.cfg.Logger.Error("the packet filter could not be taken away", "err", err)
		}
		f.mu.Lock()
		f.status = Status{Asked: f.cfg.Mode, Mode: Off}
		f.mu.Unlock()
	}()
	f.cfg.Logger.Info("packet filter", "by", f.Status().Mode, "how", f.Status().How, "interfaces", f.cfg.Interfaces)
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-t.C:
			f.tick(k, now)
		}
	}
}

// attach has a kernel filter, or says why none can.
func (f *Filter) attach(ctx context.Context) (kernel, error) {
	for began := time.Now(); ; {
		waited := time.Since(began)
		k, err := f.attachOnce(f.cfg.Waits && waited < waitFor)
		if err == nil || !errors.Is(err, errBusy) || waited > attachFor && (!f.cfg.Waits || waited > waitFor) {
			return k, err
		}
		f.unprotected(err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(attachEvery):
		}
	}
}

// attachOnce tries what was asked for, in order. A patient one does not take the second for the first
// where that is held: the process before this one leaves soon.
func (f *Filter) attachOnce(patient bool) (kernel, error) {
	var why []error
	for _, m := range []Mode{XDP, NFTables} {
		if f.cfg.Mode != Auto && f.cfg.Mode != m {
			continue
		}
		open := openXDP
		if m == NFTables {
			open = openNFTables
		}
		k, err := open(&f.cfg, f.guard)
		if err == nil {
			if err = f.rules.attach(k); err == nil {
				f.attached(k, m, why)
				return k, nil
			}
			_ = k.close()
		}
		why = append(why, fmt.Errorf("%s: %w", m, err))
		if errors.Is(err, errBusy) && patient {
			break
		}
	}
	return nil, fmt.Errorf("packet filter: %w", errors.Join(why...))
}

func (f *Filter) attached(k kernel, m Mode, why []error) {
	s := Status{Asked: f.cfg.Mode, Mode: m, Interfaces: slices.Clone(f.cfg.Interfaces)}
	for _, err := range why {
		s.Unprotected = append(s.Unprotected, err.Error())
	}
	k.about(&s)
	f.mu.Lock()
	f.status = s
	f.mu.Unlock()
	for _, u := range s.Unprotected {
		f.cfg.Logger.Warn("packet filter", "unprotected", u)
	}
}

func (f *Filter) unprotected(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = Status{Asked: f.cfg.Mode, Mode: Off, Unprotected: []string{
		err.Error(), "nothing is dropped before the kernel's own stack: malformed packets, reflections, denied sources, floods of one source",
	}}
}

// tick keeps the filter going.
func (f *Filter) tick(k kernel, now time.Time) {
	if f.guard.look(now) {
		if err := f.rules.again(); err != nil {
			f.cfg.Logger.Error("management addresses did not reach the packet filter", "err", err)
		}
	}
	if err := f.rules.sweep(); err != nil {
		f.cfg.Logger.Error("rules did not reach the packet filter; it is tried again", "err", err)
	}
	s := Status{Asked: f.cfg.Mode}
	f.mu.Lock()
	s.Mode, s.Interfaces = f.status.Mode, f.status.Interfaces
	f.mu.Unlock()
	if err := k.tick(now); err != nil {
		s.Unprotected = append(s.Unprotected, err.Error())
	}
	k.about(&s)
	f.meter.add(s.Counts)
	f.mu.Lock()
	f.status = s
	f.mu.Unlock()
}

// Status says how the filter is, at most a quarter of a second ago.
func (f *Filter) Status() Status {
	f.mu.Lock()
	s := f.status
	f.mu.Unlock()
	s.Rules, s.ByReason, s.Refused, s.Expired = f.rules.count()
	s.Management, s.Ports = f.guard.prefixes(), slices.Clone(f.cfg.ManagementPorts)
	return s
}
