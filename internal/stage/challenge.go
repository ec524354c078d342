package stage

import "github.com/relais-edge/relais/internal/http/message"

// Challenger asks visitors for a proof of work before they go on. A stage that cannot tell visitors from
// an attack asks through it and writes no page itself; package edge/challenge implements it.
//
//	if suspicious && !c.Passed(x) {
//		if resp := c.Challenge(x, 0); resp != nil {
//			return resp, nil
//		}
//	}
type Challenger interface {
	// Passed says that x need not be challenged: it brings the proof of a puzzle that was solved, or it is
	// Exempt. It allocates nothing.
	Passed(x *Exchange) bool
	// Challenge answers x with a puzzle that costs about 2 to the effort hashes; 0 leaves that to the site.
	// It is nil when x is to go on: nobody who is Exempt is challenged, whoever asks. The caller does not
	// ask next then. It does not read the request's body.
	Challenge(x *Exchange, effort int) *message.Response
}
