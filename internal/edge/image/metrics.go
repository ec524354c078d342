package image

import "github.com/relais-edge/relais/internal/observe"

// outcome is what became of an original.
type outcome uint8

// The outcomes.
const (
	made      outcome = iota // a variant was made
	fine                     // it was good enough as it was
	notImage                 // no picture that can be read here
	forbidden                // no-transform, an answer in a coding, or not a 200
	animated                 // has several frames
	tooLarge                 // more bytes or pixels than allowed
	damaged                  // could not be read
	busy                     // no worker or no memory was free
	late                     // took too long
	panicked                 // a decoder or encoder panicked
	outcomes
)

var outcomeNames = [outcomes]string{"made", "fine", "no-image", "forbidden", "animated", "too-large", "damaged", "busy", "late", "panicked"}

// passing says whether an outcome may be another one in a moment.
func (o outcome) passing() bool { return o == busy || o == late || o == panicked }

type metrics struct {
	answers [outcomes]observe.Counter
	formats [formats]observe.Counter
	in, out observe.Counter
	seconds observe.Histogram
	refused observe.Counter
}

func newMetrics(m *observe.Registry, s *Stage) *metrics {
	out := &metrics{}
	answers := m.Counters("relais_image_answers_total", "Originals by what became of them: made into a variant, or sent as they are and why.", int(outcomes), "result")
	for o := range outcomes {
		out.answers[o] = answers.With(outcomeNames[o])
	}
	made := m.Counters("relais_image_made_total", "Variants that were made, by format.", int(formats), "format")
	for f := jpegFormat; f < auto; f++ {
		out.formats[f] = made.With(formatNames[f])
	}
	volume := m.Counters("relais_image_bytes_total", "Bytes of originals (in) of which variants were made, and of those (out).", 2, "direction")
	out.in, out.out = volume.With("in"), volume.With("out")
	out.seconds = m.Histograms("relais_image_seconds", "Time in which a worker made a variant.", 1, []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}).With()
	out.refused = m.Counters("relais_image_refused_total", "Requests for what an ImagePolicy does not allow.", 1).With()
	m.GaugeFunc("relais_image_waiting", "Variants that wait for a worker.", func() float64 { return float64(s.pool.waiting()) })
	m.GaugeFunc("relais_image_memory_bytes", "Memory for originals and what is made of them, by estimate.", func() float64 { return float64(s.memory.used.Load()) })
	return out
}
