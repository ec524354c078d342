package edge

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// dnsServer answers from a table, by UDP: addresses by name, and records of SRV as "weight port target".
type dnsServer struct {
	address string
	mu      sync.Mutex
	table   map[string][]string
}

func newDNS(t *testing.T) *dnsServer {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dnsServer{address: pc.LocalAddr().String(), table: map[string][]string{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(d.answer(buf[:n]), from)
		}
	})
	t.Cleanup(func() { _ = pc.Close(); wg.Wait() })
	return d
}

func (d *dnsServer) set(name string, records ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.table[name] = records
}

// answer is the answer to a question (RFC 1035 section 4).
func (d *dnsServer) answer(q []byte) []byte {
	var labels []string
	i := 12
	for ; q[i] != 0; i += int(q[i]) + 1 {
		labels = append(labels, string(q[i+1:i+1+int(q[i])]))
	}
	end := i + 5
	kind := binary.BigEndian.Uint16(q[i+1:])
	d.mu.Lock()
	records, known := d.table[strings.ToLower(strings.Join(labels, "."))]
	d.mu.Unlock()
	out := append([]byte{q[0], q[1], 0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
	if !known {
		out[3] |= 3 // NXDOMAIN
	}
	count := 0
	for _, r := range records {
		var data []byte
		var weight, port int
		var target string
		if n, _ := fmt.Sscanf(r, "%d %d %s", &weight, &port, &target); n == 3 {
			if kind != 33 {
				continue
			}
			data = binary.BigEndian.AppendUint16([]byte{0, 1}, uint16(weight))
			data = binary.BigEndian.AppendUint16(data, uint16(port))
			for l := range strings.SplitSeq(target, ".") {
				data = append(append(data, byte(len(l))), l...)
			}
			data = append(data, 0)
		} else if a := netip.MustParseAddr(r); a.Is4() == (kind == 1) && (kind == 1 || kind == 28) {
			data = a.AsSlice()
		} else {
			continue
		}
		count++
		out = append(out, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 1)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(data))), data...)
	}
	out[7] = byte(count)
	return out
}

// samePort starts an origin on each address, all on one port, and returns the port.
func samePort(t *testing.T, addresses ...string) string {
	t.Helper()
	for range 20 {
		port := "0"
		var list []net.Listener
		for _, a := range addresses {
			l, err := net.Listen("tcp", net.JoinHostPort(a, port))
			if err != nil {
				break
			}
			list = append(list, l)
			_, port, _ = net.SplitHostPort(l.Addr().String())
		}
		if len(list) < len(addresses) {
			for _, l := range list {
				_ = l.Close()
			}
			continue
		}
		for i, l := range list {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Origin", addresses[i])
				w.Header().Set("X-Check", r.UserAgent())
			}))
			_ = s.Listener.Close()
			s.Listener = l
			s.Start()
			t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		}
		return port
	}
	t.Fatal("no port is free on all addresses")
	return ""
}

func TestOriginsExpandAndFollowDNS(t *testing.T) {
	port := samePort(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	dns := newDNS(t)
	dns.set("shop.test", "127.0.0.1", "127.0.0.2")
	c := &crew{}
	b := newBed(t, nil, c.poolOf("", `{algorithm: round-robin, discovery: {interval: 1s}, connection: {resolvers: ["`+dns.address+`"]}, tiers: [{origins: [{address: "shop.test:`+port+`", expand: true}]}]}`))
	if n := b.asks(10, "/"); n["127.0.0.1"] != 5 || n["127.0.0.2"] != 5 {
		t.Errorf("the first requests: %v", n)
	}
	dns.set("shop.test", "127.0.0.2", "127.0.0.3")
	until(t, "the change is not seen", func() bool { n := b.asks(4, "/"); return n["127.0.0.3"] > 0 && n["127.0.0.1"] == 0 })
	dns.set("shop.test")
	until(t, "nothing is said of a name that resolves to nothing", func() bool { return b.balance.Status()[0].Names[0].Error != "" })
	if n := b.asks(10, "/"); n["127.0.0.2"] != 5 || n["127.0.0.3"] != 5 {
		t.Errorf("when the name resolves to nothing: %v", n)
	}
	// A name that never resolved is said too, and is no reason to refuse the documents.
	b.apply(c.poolOf("", `{discovery: {interval: 1s}, connection: {resolvers: ["`+dns.address+`"]}, tiers: [{origins: [{address: "nobody.test:`+port+`", expand: true}]}]}`))
	resp, _ := b.get("http1", "/")
	st := b.balance.Status()[0]
	if resp.StatusCode != 503 || st.Names[0].Found != 0 || !strings.Contains(st.Names[0].Error, "no such host") {
		t.Errorf("%d, %+v", resp.StatusCode, st.Names)
	}
	dns.set("nobody.test", "127.0.0.1")
	until(t, "it does not come into service", func() bool { return b.asks(1, "/")["127.0.0.1"] == 1 })
}

func TestOriginsOfSRVRecords(t *testing.T) {
	one, two := samePort(t, "127.0.0.1"), samePort(t, "127.0.0.2")
	dns := newDNS(t)
	dns.set("_http._tcp.shop.test", "30 "+one+" one.shop.test", "10 "+two+" two.shop.test")
	dns.set("one.shop.test", "127.0.0.1")
	dns.set("two.shop.test", "127.0.0.2")
	c := &crew{}
	b := newBed(t, nil, c.poolOf("", `{algorithm: round-robin, connection: {resolvers: ["`+dns.address+`"]}, tiers: [{origins: [{srv: _http._tcp.shop.test}]}]}`))
	if n := b.asks(12, "/"); n["127.0.0.1"] != 9 || n["127.0.0.2"] != 3 {
		t.Errorf("%v, want 3 to 1", n)
	}
}

func TestConnectionResolversAndAddressesThatDoNotAnswer(t *testing.T) {
	port := samePort(t, "127.0.0.2")
	dns := newDNS(t)
	// Nobody listens at the first two, and nobody may at the third.
	dns.set("shop.test", "::1", "127.0.0.9", "169.254.169.254", "127.0.0.2")
	c := &crew{}
	b := newBed(t, nil, c.poolOf("", `{connection: {resolvers: ["`+dns.address+`"]}, retries: {attempts: 0}, tiers: [{origins: [{address: "shop.test:`+port+`"}]}]}`))
	begin := time.Now()
	if n := b.asks(3, "/"); n["127.0.0.2"] != 3 {
		t.Errorf("%v", n)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
	// A name that leads only where a cloud keeps its secrets is refused, for requests and for checks.
	dns.set("evil.test", "169.254.169.254")
	b.apply(c.poolOf("", `{connection: {resolvers: ["`+dns.address+`"]}, retries: {attempts: 0}, health: {path: /latest/meta-data, interval: 100ms, unhealthyAfter: 1}, tiers: [{origins: [{address: "evil.test:80"}]}]}`))
	resp, _ := b.get("http1", "/")
	if !strings.Contains(resp.Header.Get("Proxy-Status"), "destination_ip_prohibited") {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	until(t, "the check is not refused", func() bool {
		return strings.Contains(b.balance.Status()[0].Tiers[0].Origins[0].Why, "connection.allow")
	})
}
