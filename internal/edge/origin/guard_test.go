package origin

import (
	"errors"
	"net/netip"
	"testing"
)

func TestPublicRefusesWhatIsNotGlobal(t *testing.T) {
	g, err := newGuard(true, []string{"10.1.0.0/16", "fd12::/32", "127.0.0.1/32"})
	if err != nil {
		t.Fatal(err)
	}
	for address, ok := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "93.184.215.14": true, "172.15.0.1": true, "172.32.0.1": true, "192.169.0.1": true,
		"2606:4700::1111": true, "2a00:1450::1": true, "2001:4860:4860::8888": true,
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "fd12::1": true, "127.0.0.1": true, // allowed

		"0.0.0.0": false, "10.0.0.1": false, "10.2.0.1": false, "100.64.0.1": false, "100.100.100.200": false,
		"127.0.0.2": false, "127.255.255.255": false, "169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false,
		"192.0.0.192": false, "192.0.2.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.51.100.1": false,
		"203.0.113.1": false, "224.0.0.1": false, "239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false,
		"168.63.129.16": false,
		"::":            false, "::1": false, "::ffff:127.0.0.2": false, "::ffff:169.254.169.254": false, "::127.0.0.2": false,
		"64:ff9b::a00:1": false, "64:ff9b::808:808": true, "64:ff9b:1::808:808": false, "64:ff9b::7f00:2": false,
		"2002:a00:1::1": false, "2002:808:808::1": true, "2001::1": false, "2001:db8::1": false, "3fff::1": false,
		"fc00::1": false, "fd00:ec2::254": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false,
		"100::1": false, "5f00::1": false,
	} {
		err := g.check(netip.MustParseAddr(address))
		if (err == nil) != ok {
			t.Errorf("%s: %v, want allowed %v", address, err, ok)
		}
		if err != nil && !errors.Is(err, errProhibited) {
			t.Errorf("%s: %v does not wrap errProhibited", address, err)
		}
	}
	open, _ := newGuard(false, nil)
	if err := open.check(netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Errorf("without public: %v", err)
	}
	if err := g.control(t.Context(), "tcp4", "169.254.169.254:80", nil); !errors.Is(err, errProhibited) {
		t.Errorf("control: %v", err)
	}
	if _, err := newGuard(true, []string{"10.0.0"}); err == nil {
		t.Error("what is no network was accepted")
	}
	one, err := newGuard(true, []string{"10.0.0.1"})
	if err != nil || one.check(netip.MustParseAddr("10.0.0.1")) != nil || one.check(netip.MustParseAddr("10.0.0.2")) == nil {
		t.Errorf("one address without length: %v", err)
	}
	// Where a cloud keeps secrets is refused in any pool that does not list it.
	for _, address := range []string{"169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254", "100.100.100.200"} {
		if err := open.check(netip.MustParseAddr(address)); !errors.Is(err, errMetadata) {
			t.Errorf("%s: %v", address, err)
		}
	}
	listed, _ := newGuard(false, []string{"169.254.169.254/32"})
	if err := listed.check(netip.MustParseAddr("169.254.169.254")); err != nil {
		t.Errorf("listed: %v", err)
	}
}

func TestHostPart(t *testing.T) {
	for in, want := range map[string]string{
		"a.example": "a.example", "a.example:443": "a.example", "[::1]": "::1", "[::1]:80": "::1", "10.0.0.1:8": "10.0.0.1", "": "",
	} {
		if got := string(hostPart([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
