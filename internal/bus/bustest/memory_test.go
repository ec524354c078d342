package bustest

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryIsABus(t *testing.T) {
	Run(t, func(*testing.T) Bed {
		var m bus.Memory
		var ends []*bus.End
		return Bed{
			Join: func(t *testing.T, r bus.Rights) bus.Bus {
				e := m.JoinAs(r)
				ends = append(ends, e)
				t.Cleanup(func() { _ = e.Close() })
				return e
			},
			Break: func(*testing.T) {
				for _, e := range ends {
					e.Cut()
				}
			},
			Mend: func(*testing.T) {
				for _, e := range ends {
					e.Mend()
				}
			},
		}
	})
}
