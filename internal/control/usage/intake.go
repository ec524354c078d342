package usage

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/usage"
)

const (
	// intakeDepth is how many batches wait: some seconds' worth. One that is dropped is sent again.
	intakeDepth = 256
	// intakeTime bounds the work on a batch; a PoP waits for 30 s.
	intakeTime = 20 * time.Second
)

// Ingester counts batches for good; *Service does.
type Ingester interface {
	Ingest(ctx context.Context, pop string, b *usage.Batch) error
}

// IntakeConfig of an Intake.
type IntakeConfig struct {
	Bus     bus.Bus
	Service Ingester
	Logger  *slog.Logger
	Metrics *observe.Registry
}

// Intake takes batches in that PoPs send over the bus, one at a time, and answers when they are on disk. Control planes share
// the PoPs: any may take any batch, as the numbers of records are in the store.
type Intake struct {
	cfg     IntakeConfig
	batches func(result string) observe.Counter
	said    string // what was said last, so that it is not said again and again; of the subscription's goroutine
}

// NewIntake makes one; Run does the work.
func NewIntake(cfg IntakeConfig) *Intake {
	f := cfg.Metrics.Counters("relais_usage_batches_total", "Batches of use that PoPs sent: kept, gap (earlier ones come first), refused, failed, unanswered.", 5, "result")
	return &Intake{cfg: cfg, batches: func(result string) observe.Counter { return f.With(result) }}
}

// Run takes batches in until ctx ends.
func (i *Intake) Run(ctx context.Context) error {
	sub, err := i.cfg.Bus.Subscribe(bus.Up("*", bus.Usage), bus.Control, intakeDepth, func(m bus.Message) { i.hear(ctx, m) })
	if err != nil {
		return err
	}
	<-ctx.Done()
	return sub.Close()
}

// hear takes in one batch.
func (i *Intake) hear(ctx context.Context, m bus.Message) {
	words := strings.Split(m.Subject, ".")
	if m.Respond == nil || len(words) != 3 { // whom nobody can tell that it is kept sends it again
		i.batches("refused").Inc()
		return
	}
	answer, result := i.take(ctx, words[1], m.Data)
	if ctx.Err() != nil && answer.Kept == 0 {
		return // another control plane takes it
	}
	i.batches(result).Inc()
	data, err := json.Marshal(answer)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		i.batches("unanswered").Inc()
	}
}

// take counts what a PoP sent. The bus lets a PoP use its own name in a subject alone: that name is who it is, whatever the
// batch says.
func (i *Intake) take(ctx context.Context, pop string, data []byte) (a fleet.UsageAnswer, result string) {
	b, err := usage.ReadBatch(data)
	if err == nil {
		within, cancel := context.WithTimeout(ctx, intakeTime)
		defer cancel()
		err = i.cfg.Service.Ingest(within, pop, b)
	}
	var gap *usage.GapError
	switch {
	case err == nil:
		i.said = ""
		return fleet.UsageAnswer{Kept: b.Last()}, "kept"
	case errors.As(err, &gap):
		return fleet.UsageAnswer{Want: gap.Want, Why: gap.Error()}, "gap"
	case errors.Is(err, usage.ErrInvalid) || errors.Is(err, ErrDenied):
		i.say("a batch of use is refused", pop, err)
		return fleet.UsageAnswer{Why: shorten(err.Error())}, "refused"
	}
	if ctx.Err() == nil {
		i.say("use cannot be taken in; PoPs keep it", pop, err)
	}
	return fleet.UsageAnswer{Why: "it cannot be kept now; it is to be sent again"}, "failed"
}

func (i *Intake) say(msg, pop string, err error) {
	if text := pop + err.Error(); text != i.said {
		i.said = text
		i.cfg.Logger.Warn(msg, "pop", pop, "err", err)
	}
}

// shorten bounds a text that is sent.
func shorten(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), fleet.MaxText)], "")
}
