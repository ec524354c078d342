//go:build !unix

package observe

// Here the processors never count as saturated.

type usage struct{}

func (*usage) share() float64 { return 0 }

type probe struct{ closed chan struct{} }

func newProbe() (*probe, error) { return &probe{make(chan struct{})}, nil }

func (*probe) send() {}

func (p *probe) wait() bool {
	<-p.closed
	return false
}

func (p *probe) close() { close(p.closed) }
