package netlab

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestAProfileSpeaksAsPeopleDo(t *testing.T) {
	for want, p := range map[string]Profile{
		"perfect": {},
		"20ms, 5ms jitter, 1% loss in bursts of 3, 10Mbit/s with 125000 bytes of queue": {Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.01, Burst: 3, Rate: 10_000_000},
		"0.5% late by 1ms, 0.1% twice":       {Reorder: 0.005, Duplicate: 0.001},
		"2.5Gbit/s with 7 bytes of queue":    {Rate: 2_500_000_000, Queue: 7},
		"56kbit/s with 32768 bytes of queue": {Rate: 56_000},
		"100ms, 10% late by 50ms":            {Delay: 100 * time.Millisecond, Reorder: 0.1},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAProfileThatCannotBeIsRefused(t *testing.T) {
	for want, p := range map[string]Profile{
		"Delay is -1s":          {Delay: -time.Second},
		"Jitter is 2h0m0s":      {Jitter: 2 * time.Hour},
		"Loss is 1.5":           {Loss: 1.5},
		"Loss is NaN":           {Loss: math.NaN()},
		"lose 0.667 at most":    {Loss: 0.8, Burst: 2},
		"Burst is -1":           {Burst: -1},
		"Reorder is -0.1":       {Reorder: -0.1},
		"Duplicate is 2":        {Duplicate: 2},
		"Rate is 10 bits":       {Rate: 10},
		"Queue is -5 bytes":     {Queue: -5},
		"Detour is -1ns":        {Detour: -1},
		"Rate is 1000000000000": {Rate: 1e12},
	} {
		if err := p.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", p, err, want)
		}
	}
	if err := (Profile{Delay: time.Hour, Loss: 1, Burst: 5, Reorder: 1, Duplicate: 1, Rate: maxRate, Queue: maxQueue}).check(); err != nil {
		t.Error(err)
	}
	for want, cfg := range map[string]Config{
		"MTU is 100":    {MTU: 100},
		"Hosts is -1":   {Hosts: -1},
		"Network4 is":   {Network4: prefix("10.0.0.0/30")},
		"Network6 is":   {Network6: prefix("10.0.0.0/16")},
		"Grain is":      {Grain: time.Minute},
		"Packets is":    {Packets: -1},
		"LinkPackets i": {LinkPackets: 1 << 30},
	} {
		if err := cfg.complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", cfg, err, want)
		}
	}
}

func TestAddressesAreEachHostsOwn(t *testing.T) {
	cfg := Config{Hosts: 4096, Network4: prefix("10.200.16.0/20")}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	if cfg.Hosts != 254*16 || cfg.broadcast.String() != "10.200.31.255" {
		t.Errorf("%d hosts, broadcast to %v", cfg.Hosts, cfg.broadcast)
	}
	seen := map[string]bool{}
	for i := range cfg.Hosts {
		a, b := cfg.addr4(i), cfg.addr6(i)
		if !cfg.Network4.Contains(a) || !cfg.Network6.Contains(b) || seen[a.String()] || seen[b.String()] {
			t.Fatalf("host %d has %v and %v", i, a, b)
		}
		if last := a.As4()[3]; last == 0 || last == 255 {
			t.Fatalf("host %d has %v", i, a)
		}
		seen[a.String()], seen[b.String()] = true, true
	}
}

func TestAHistogramBoundsItsQuantiles(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	for i := range 1000 {
		h.add(time.Duration(i) * time.Microsecond)
	}
	if p50, p100 := h.Quantile(0.5), h.Quantile(1); p50 < 499*time.Microsecond || p50 > 1024*time.Microsecond || p100 != 999*time.Microsecond || h.Max != p100 {
		t.Error(h.String())
	}
	h.add(time.Hour)
	if h.Quantile(1) != time.Hour || h.Quantile(0.999) > 1024*time.Microsecond {
		t.Error(h.String())
	}
}
