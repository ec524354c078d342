package observe

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// Load says how hard the processors are pressed.
type Load struct {
	// Share is the share of the processors' time that the process uses, 0 to 1.
	Share float64
	// Delay is how long what the kernel has ready for the process waits until a goroutine reads it: what each
	// visitor waits before anything is done for it. It grows when the processors are saturated, also
	// where others have a part of them, which Share cannot know.
	Delay time.Duration
}

// Processor measures the Load while Run runs; before and after, and where the system does not tell, it is zero.
type Processor struct {
	share atomic.Uint64 // bits of a float64
	delay atomic.Int64
	since atomic.Int64 // when the byte on its way was sent, in nanoseconds since epoch; 0 for none
	epoch time.Time
	told  struct{ share, delay Gauge }
}

// NewProcessor returns one that does not run yet. Its metrics are relais_processor_share and
// relais_processor_delay_seconds.
func NewProcessor(r *Registry) *Processor {
	p := &Processor{epoch: time.Now()}
	p.told.share = r.Gauges("relais_processor_share", "Share of the processors' time that the process uses.", 1).With()
	p.told.delay = r.Gauges("relais_processor_delay_seconds", "How long what is ready waits until it is read: what each visitor waits before anything is done.", 1).With()
	return p
}

const (
	// loadEvery is how often the share is measured, and the delay while there is none; probeEvery is how often
	// the delay is measured while it is more than probeCalm.
	loadEvery  = 100 * time.Millisecond
	probeEvery = 10 * time.Millisecond
	probeCalm  = time.Millisecond
	// probeKeep is what is left of the mean of delays after a probe.
	probeKeep = 0.7
)

// Load is the last that was measured. It is cheap, and any goroutine may ask.
func (p *Processor) Load() Load {
	l := Load{Share: math.Float64frombits(p.share.Load()), Delay: time.Duration(p.delay.Load())}
	if at := p.since.Load(); at > 0 { // what has not come back yet waits already
		l.Delay = max(l.Delay, time.Since(p.epoch)-time.Duration(at))
	}
	return l
}

// Run measures until ctx ends.
func (p *Processor) Run(ctx context.Context) error {
	probe, err := newProbe()
	if err != nil {
		return err
	}
	defer func() {
		p.share.Store(0)
		p.delay.Store(0)
		p.since.Store(0)
	}()
	back := make(chan time.Duration)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.listen(probe, back)
	}()
	defer func() {
		probe.close()
		for range back { // until listen has ended
		}
		<-done
	}()
	var used usage
	used.share()
	t := time.NewTimer(loadEvery)
	defer t.Stop()
	var measured time.Time
	mean, every := 0.0, loadEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-back:
			if !ok {
				return nil
			}
			mean = mean*probeKeep + float64(d)*(1-probeKeep)
			p.delay.Store(int64(mean))
			if every = loadEvery; mean > float64(probeCalm) {
				every = probeEvery
			}
		case now := <-t.C:
			if now.Sub(measured) >= loadEvery {
				share := used.share()
				p.share.Store(math.Float64bits(share))
				p.told.share.Set(share)
				p.told.delay.Set(p.Load().Delay.Seconds())
				measured = now
			}
			if p.since.Load() == 0 {
				p.since.Store(int64(time.Since(p.epoch)))
				probe.send()
			}
			t.Reset(every)
		}
	}
}

// listen waits for what Run sends, as a visitor's connection waits for its request.
func (p *Processor) listen(probe *probe, back chan<- time.Duration) {
	defer close(back)
	for probe.wait() {
		at := p.since.Swap(0)
		back <- time.Since(p.epoch) - time.Duration(at)
	}
}
