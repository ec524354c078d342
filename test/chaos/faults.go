package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// fault is something that goes wrong for a while and is mended then.
type fault struct {
	name string
	// toxic is what toxiproxy does to the connections of one origin, as its API's JSON; empty for none.
	toxic string
	do    func(ctx context.Context, b *bed, victim int) error
	undo  func(ctx context.Context, b *bed, victim int) error
}

// toxic makes a fault of one of toxiproxy's; stream is upstream for what goes to the origin and
// downstream for what comes from it.
func toxic(name, kind, stream, attributes string) fault {
	return fault{name: name, toxic: fmt.Sprintf(`{"name":"fault","type":%q,"stream":%q,"toxicity":1,"attributes":{%s}}`, kind, stream, attributes)}
}

func faults() []fault {
	return []fault{
		toxic("answers 400 ms late, give or take 300", "latency", "downstream", `"latency":400,"jitter":300`),
		toxic("requests 400 ms late", "latency", "upstream", `"latency":400`),
		toxic("answers at 20 kB/s", "bandwidth", "downstream", `"rate":20`),
		toxic("answers in slices of 40 bytes", "slicer", "downstream", `"average_size":40,"size_variation":20,"delay":200`),
		toxic("nothing comes back", "timeout", "downstream", `"timeout":0`),
		toxic("nothing gets there", "timeout", "upstream", `"timeout":0`),
		toxic("cut in the middle of the answer's head", "limit_data", "downstream", `"bytes":60`),
		toxic("cut in the middle of the answer's body", "limit_data", "downstream", `"bytes":2500`),
		toxic("cut in the middle of the request", "limit_data", "upstream", `"bytes":120`),
		toxic("reset after 50 ms", "reset_peer", "downstream", `"timeout":50`),
		toxic("slow to close", "slow_close", "downstream", `"delay":3000`),
		{name: "connections refused", do: stopProxy, undo: startProxy},
		{name: "origin killed and born again", do: killOrigin, undo: bearOrigin},
		{name: "edge told to reload", do: reload},
		{name: "edge killed (kill -9) and started again", do: killEdge},
	}
}

// begin lets the fault come.
func (f fault) begin(ctx context.Context, b *bed, victim int) error {
	if f.toxic != "" {
		_, err := b.proxies[victim].Toxics.AddToxicJson(strings.NewReader(f.toxic))
		return err
	}
	return f.do(ctx, b, victim)
}

// end mends it. What toxiproxy holds of a connection may not want to go; it is given a moment.
func (f fault) end(ctx context.Context, b *bed, victim int) error {
	if f.toxic != "" {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return b.proxies[victim].Toxics.RemoveToxic(ctx, "fault")
	}
	if f.undo != nil {
		return f.undo(ctx, b, victim)
	}
	return nil
}

func stopProxy(_ context.Context, b *bed, victim int) error {
	b.proxies[victim].Stop()
	return nil
}

func startProxy(_ context.Context, b *bed, victim int) error { return b.proxies[victim].Start() }

func killOrigin(_ context.Context, b *bed, victim int) error { return b.origins[victim].srv.Close() }

func bearOrigin(ctx context.Context, b *bed, victim int) error { return b.origins[victim].start(ctx) }

func reload(_ context.Context, b *bed, _ int) error { return b.contender.reload(b) }

func killEdge(ctx context.Context, b *bed, _ int) error {
	b.edge.Stop(0)
	return b.startEdge(ctx)
}
