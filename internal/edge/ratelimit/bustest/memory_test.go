package bustest

import (
	"testing"

	"github.com/relais-edge/relais/internal/edge/ratelimit"
)

func TestMemoryIsABus(t *testing.T) {
	var m ratelimit.Memory
	Run(t, func(*testing.T) (ratelimit.Bus, func()) {
		s := m.Join()
		return s, s.Close
	})
}
