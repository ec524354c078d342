package packet

// reason is what decided on a packet: an index into the counters of the program, in the order of
// bpf/parse.h.
type reason uint32

const (
	passed reason = iota
	passedOther
	passedLink
	passedManage
	passedAllowed
	passedSYN
	pressedSYN
	cookieSent
	malformed
	martian
	fragmented
	denied
	reflected
	sourceSYN
	sourceUDP
	sourceOther
	cookieFailed
	samplesLost
	reasons
)

// reasonNames are the names in metrics and in the output of `relais packet status`.
var reasonNames = [reasons]string{
	"passed", "passed-not-ip", "passed-link", "passed-management", "passed-allowed", "passed-syn", "passed-syn-pressed",
	"syn-cookie", "malformed", "martian", "fragment", "denied", "reflection", "source-syn", "source-udp", "source-other",
	"syn-cookie-failed", "samples-lost",
}

func (r reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// drops says whether a packet of this reason went no further.
func (r reason) drops() bool { return r >= malformed && r < samplesLost }

// class is what a source's packets are counted as, each in a bucket of its own.
const (
	classSYN = iota
	classUDP
	classOther
	classes
)

// Bits of a port in the program.
const (
	portManage   = 1
	portReflects = 2
	portServed   = 4
)

// reflectors are UDP ports of services that answer more than they are asked, to whoever the
// question says it is from: 0 stands for fragments and nonsense, then chargen, QOTD, DNS, TFTP,
// portmapper, NTP, NetBIOS, SNMP, CLDAP, RIP, IPMI, SSDP, ARMS, MS-SQL, L2TP, WS-Discovery, mDNS,
// CoAP, Ubiquiti, memcached and others seen in attacks.
var reflectors = []uint16{
	0, 17, 19, 53, 69, 111, 123, 137, 161, 389, 520, 623, 1434, 1701, 1900, 3283, 3702, 5093, 5353,
	5683, 10001, 11211, 27015, 32414, 33848, 37810,
}
