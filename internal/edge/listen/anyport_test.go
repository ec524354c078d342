package listen

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

// TestAnyPortIsFreeOverTCPAndUDP: where any port will do, one that another program has over UDP ends
// nothing. The test holds thousands of the ports that TCP may be given, over UDP, at an address of its own: two
// such tests at one address would leave each other none.
func TestAnyPortIsFreeOverTCPAndUDP(t *testing.T) {
	own := "127.0.0.1:0"
	if pid := os.Getpid(); runtime.GOOS == "linux" { // which has all of 127.0.0.0/8
		own = fmt.Sprintf("127.%d.%d.%d:0", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff)
	}
	for range 6000 {
		pc, err := net.ListenPacket("udp", own)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
	}
	r := newRig(t)
	for i := range 100 {
		r.apply(listener(fmt.Sprint("l", i), withTLS, func(s *v1.ListenerSpec) { s.Address, s.Protocols = own, []v1.Protocol{"http1", "h2", "h3"} }))
	}
}
