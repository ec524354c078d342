package geo

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/relais-edge/relais/internal/observe"
)

// makeFile writes networks with their records to a file.
func makeFile(t testing.TB, name string, records map[string]mmdbtype.Map) {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test", RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for network, r := range records {
		_, n, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(n, r); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(name + ".new")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func country(iso string) mmdbtype.Map {
	return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(iso)}}
}

func TestPlacesOfTheFormsThatAreAbout(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "country.mmdb"), filepath.Join(dir, "asn.mmdb")
	makeFile(t, one, map[string]mmdbtype.Map{
		"192.0.2.0/24": country("CH"), "2001:db8::/32": country("DE"),
		"198.51.100.0/24": {"country_code": mmdbtype.String("fr"), "country": mmdbtype.String("France"), "asn": mmdbtype.String("AS64500")},
		"203.0.113.0/24":  {"registered_country": mmdbtype.Map{"iso_code": mmdbtype.String("AT")}},
		"10.0.0.0/8":      {"country": mmdbtype.Uint32(7), "asn": mmdbtype.Slice{}},
	})
	makeFile(t, two, map[string]mmdbtype.Map{"192.0.2.0/25": {"autonomous_system_number": mmdbtype.Uint32(64496), "autonomous_system_organization": mmdbtype.String("Example")}})
	p, err := New(Config{Files: []string{one, two}}, observe.New())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // read, then remembered
		for a, want := range map[string]struct {
			country string
			asn     uint32
		}{
			"192.0.2.1": {"CH", 64496}, "192.0.2.200": {"CH", 0}, "::ffff:192.0.2.1": {"CH", 64496}, "2001:db8::1": {"DE", 0},
			"198.51.100.1": {"FR", 64500}, "203.0.113.9": {"AT", 0}, "8.8.8.8": {}, "::1": {}, "10.1.1.1": {},
		} {
			if c, n := p.Find(netip.MustParseAddr(a)); c != want.country || n != want.asn {
				t.Errorf("%s: %q %d, want %+v", a, c, n, want)
			}
		}
	}
	if c, n := p.Find(netip.Addr{}); c != "" || n != 0 {
		t.Errorf("no address: %q %d", c, n)
	}
	a := netip.MustParseAddr("192.0.2.1")
	if n := testing.AllocsPerRun(100, func() { p.Find(a) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestAFileIsReadAgainWhenItChangesAndTheLastGoodOneHolds(t *testing.T) {
	name := filepath.Join(t.TempDir(), "country.mmdb")
	makeFile(t, name, map[string]mmdbtype.Map{"192.0.2.0/24": country("CH")})
	p, err := New(Config{Files: []string{name}}, observe.New())
	if err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		p.Reload()
		if c, _ := p.Find(netip.MustParseAddr("192.0.2.1")); c != want {
			t.Errorf("country is %q, want %q", c, want)
		}
	}
	is("CH")
	stamped := func(at int) {
		t.Helper()
		when := time.Now().Add(time.Duration(at) * time.Hour)
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
	good, _ := os.ReadFile(name)
	for i, bad := range [][]byte{good[:len(good)/2], []byte("not a database"), {}} {
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		stamped(i + 1)
		is("CH")
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	is("CH")
	makeFile(t, name, map[string]mmdbtype.Map{"192.0.2.0/24": country("AT")})
	stamped(10)
	is("AT")
}

func TestWhatIsNoDatabaseIsRefusedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.mmdb")
	if err := os.WriteFile(bad, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bad, dir, filepath.Join(dir, "none")} {
		if _, err := New(Config{Files: []string{name}}, observe.New()); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestRunReadsUntilItsEnd(t *testing.T) {
	name := filepath.Join(t.TempDir(), "country.mmdb")
	makeFile(t, name, map[string]mmdbtype.Map{"192.0.2.0/24": country("CH")})
	read := make(chan struct{}, 1)
	p, err := New(Config{Files: []string{name}, Every: time.Millisecond, Report: func(string, ...any) {
		select {
		case read <- struct{}{}:
		default:
		}
	}}, observe.New())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	makeFile(t, name, map[string]mmdbtype.Map{"192.0.2.0/24": country("AT"), "192.0.3.0/24": country("AT")})
	<-read
	cancel()
	<-done
	if c, _ := p.Find(netip.MustParseAddr("192.0.2.1")); c != "AT" {
		t.Errorf("country is %q", c)
	}
}

func FuzzDatabase(f *testing.F) {
	name := filepath.Join(f.TempDir(), "x.mmdb")
	makeFile(f, name, map[string]mmdbtype.Map{"192.0.2.0/24": country("CH"), "2001:db8::/32": {"asn": mmdbtype.String("AS1")}})
	good, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "x.mmdb")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := New(Config{Files: []string{file}}, observe.New())
		if err != nil {
			return
		}
		for _, a := range []string{"192.0.2.1", "2001:db8::1", "8.8.8.8"} {
			p.Find(netip.MustParseAddr(a))
		}
	})
}
