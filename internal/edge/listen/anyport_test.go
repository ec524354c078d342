package listen

import (
	"fmt"
	"net"
	"testing"
)

// TestAnyPortIsFreeOverTCPAndUDP: where any port will do, one that another program has over UDP ends
// nothing. The test holds a seventh of the ports that TCP may be given, over UDP.
func TestAnyPortIsFreeOverTCPAndUDP(t *testing.T) {
	for range 4000 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
	}
	r := newRig(t)
	for i := range 20 {
		r.apply(listener(fmt.Sprint("l", i), withTLS, withH3))
	}
}
