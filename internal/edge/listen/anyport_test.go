package listen

import (
	"fmt"
	"net"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

// TestAnyPortIsFreeOverTCPAndUDP: where any port will do, one that another program has over UDP ends
// nothing. The test holds thousands of the ports that TCP may be given, over UDP.
func TestAnyPortIsFreeOverTCPAndUDP(t *testing.T) {
	for range 6000 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
	}
	r := newRig(t)
	for i := range 100 {
		r.apply(listener(fmt.Sprint("l", i), withTLS, func(s *v1.ListenerSpec) { s.Protocols = []v1.Protocol{"http1", "h2", "h3"} }))
	}
}
