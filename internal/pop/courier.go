package pop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/usage"
)

// keptWithin is how long a control plane may take for a batch: others wait before it, and it is on disk there when the answer
// comes. What comes later is sent again, and counted once.
const keptWithin = 30 * time.Second

// delivery brings usage to a control plane over the bus; a spool.Deliverer.
type delivery struct {
	pop  string
	bus  bus.Bus
	kept int // batches; of the one goroutine that delivers
}

// Deliver returns when the batch is counted for good, or why that is not known. Errors of the bus are bus.ErrAway and
// bus.ErrNobody, as there are always some; a *usage.GapError says that records before it are missed.
func (d *delivery) Deliver(ctx context.Context, b *usage.Batch) error {
	data, err := b.Append(nil)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, keptWithin)
	defer cancel()
	got, err := d.bus.Request(wait, bus.Up(d.pop, bus.Usage), data)
	if err != nil {
		return err
	}
	var a fleet.UsageAnswer
	switch err := json.Unmarshal(got, &a); {
	case err != nil:
		return fmt.Errorf("the control plane's answer cannot be read: %w", err)
	case a.Kept == b.Last():
		d.kept++
		return nil
	case a.Want > 0:
		return &usage.GapError{Want: a.Want, Have: b.First()}
	case a.Why == "":
		return errors.New("the control plane says that it has other records than those that were sent")
	}
	return fmt.Errorf("the control plane does not take it: %s", cut(a.Why))
}
