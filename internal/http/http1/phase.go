package http1

import "github.com/relais-edge/relais/internal/http/deadline"

// What a connection does in one direction.
const (
	phaseNone   deadline.Phase = iota // no limit
	phaseFresh                        // nothing came yet
	phaseIdle                         // between requests
	phaseHead                         // part of a head is there
	phaseBody                         // waiting for more of a body
	phaseBusy                         // a request is being answered; the time is when that began
	phaseWrite                        // waiting for room to write
	phaseTunnel                       // no byte moved in a tunnel
	phaseLinger                       // waiting for the other side to close
)
