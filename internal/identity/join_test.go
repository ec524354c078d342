package identity_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/identity"
)

func TestAMachineJoins(t *testing.T) {
	p := newPlatform(t)
	d := newDoor(t, p)
	dir := filepath.Join(t.TempDir(), "pop")
	tok := d.token("paris")
	s, err := identity.Join(t.Context(), " "+tok.String()+"\n", dir, p.now)
	p.must(err)
	if s.Addresses[0] != "bus.example:4222" || string(s.Keys["k1"]) != "public" {
		t.Errorf("%+v", s.Welcome)
	}
	again, err := identity.Load(dir)
	p.must(err)
	creds, err := again.Open(p.now)
	p.must(err)
	if id, err := creds.Identity(); err != nil || id != p.id(identity.Pop, "paris") {
		t.Errorf("%v, %v", id, err)
	}
	control, _ := p.credentials(identity.Control, "c1")
	if c, s := meet(t, creds.TLS(identity.Any(identity.Control)), control.TLS(identity.Is(identity.Pop, "paris"))); c != nil || s != nil {
		t.Errorf("%v, %v", c, s)
	}
	files, err := os.ReadDir(dir)
	p.must(err)
	for _, f := range files {
		info, err := f.Info()
		p.must(err)
		if f.Name() != "identity.json" || info.Mode().Perm() != 0o600 {
			t.Errorf("%s is left, with mode %o", f.Name(), info.Mode().Perm())
		}
	}
	if same, err := identity.Join(t.Context(), tok.String(), dir, p.now); err != nil || same.Chain != s.Chain {
		t.Errorf("the same again: %v", err)
	}
	if _, err := identity.Join(t.Context(), d.token("rome").String(), dir, p.now); !errors.Is(err, identity.ErrJoined) {
		t.Errorf("another token: %v", err)
	}
	if _, err := identity.Join(t.Context(), tok.String(), t.TempDir(), p.now); !errors.Is(err, identity.ErrToken) {
		t.Errorf("another machine: %v", err)
	}
	events := d.audit()
	if len(events) != 2 || events[0].Pop != "paris" || events[0].Err != nil || events[1].Err == nil || events[1].Token != tok.ID {
		t.Errorf("%+v", events)
	}
}

func TestALostAnswerIsGivenAgain(t *testing.T) {
	p := newPlatform(t)
	d := newDoor(t, p)
	dir := t.TempDir()
	tok := d.token("paris")
	d.setDrop(true)
	if _, err := identity.Join(t.Context(), tok.String(), dir, p.now); err == nil || errors.Is(err, identity.ErrToken) {
		t.Fatalf("%v", err)
	}
	if _, err := identity.Load(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	d.setDrop(false)
	p.jump(4 * time.Minute)
	s, err := identity.Join(t.Context(), tok.String(), dir, p.now)
	p.must(err)
	serial := leafOf(t, s.Chain).SerialNumber
	// Killed between the state and the end: the same again, and nothing new.
	p.must(os.WriteFile(filepath.Join(dir, "join.json"), []byte(`{"token":"`+tok.ID+`","key":"x"}`), 0o600))
	again, err := identity.Join(t.Context(), tok.String(), dir, p.now)
	p.must(err)
	if leafOf(t, again.Chain).SerialNumber.Cmp(serial) != 0 {
		t.Error("another certificate")
	}
	if _, err := os.Stat(filepath.Join(dir, "join.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the former key is left: %v", err)
	}
	// Too late, it is one that was used.
	late := d.token("rome")
	other := t.TempDir()
	d.setDrop(true)
	_, _ = identity.Join(t.Context(), late.String(), other, p.now)
	d.setDrop(false)
	p.jump(6 * time.Minute)
	if _, err := identity.Join(t.Context(), late.String(), other, p.now); !errors.Is(err, identity.ErrToken) {
		t.Errorf("%v", err)
	}
	// A new token makes a new key there.
	if _, err := identity.Join(t.Context(), d.token("rome").String(), other, p.now); err != nil {
		t.Error(err)
	}
}

func TestExpiredAndUnknownTokensAreOneError(t *testing.T) {
	p := newPlatform(t)
	d := newDoor(t, p)
	tok := d.token("paris")
	p.jump(time.Hour)
	unknown, err := identity.NewToken([]string{d.url}, p.pin())
	p.must(err)
	wrong := d.token("rome")
	wrong.Secret = unknown.Secret
	var texts []string
	for _, bad := range []identity.Token{tok, unknown, wrong} {
		_, err := identity.Join(t.Context(), bad.String(), t.TempDir(), p.now)
		if !errors.Is(err, identity.ErrToken) {
			t.Errorf("%v", err)
			continue
		}
		texts = append(texts, err.Error())
	}
	if len(texts) != 3 || texts[0] != texts[1] || texts[1] != texts[2] {
		t.Errorf("they differ: %q", texts)
	}
}

// TestAManInTheMiddleHearsNothing has an authority of its own at the token's address.
func TestAManInTheMiddleHearsNothing(t *testing.T) {
	p, mallory := newPlatform(t), newPlatform(t)
	d := newDoor(t, p)
	var heard atomic.Int32
	listen := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard.Add(1) })
	creds, _ := mallory.credentials(identity.Control, "c1")
	false1 := serve(t, creds.EnrolTLS(), listen)
	// A PoP of the platform itself is no control plane either.
	pop, _ := p.credentials(identity.Pop, "rome")
	false2 := serve(t, pop.EnrolTLS(), listen)
	// Who shows the real root beside a chain of his own has no certificate of it.
	mixed := creds.EnrolTLS()
	inner := mixed.GetCertificate
	real, err := identity.ParseCertificates(p.root.Certificate)
	p.must(err)
	mixed.GetCertificate = nil
	cert, err := inner(nil)
	p.must(err)
	cert.Certificate = append(cert.Certificate, real[0].Raw)
	mixed.Certificates = append(mixed.Certificates, *cert)
	false3 := serve(t, mixed, listen)
	for name, c := range map[string]struct {
		url  string
		want error
	}{"another authority": {false1, identity.ErrPin}, "a PoP": {false2, identity.ErrIdentity}, "the real root beside": {false3, identity.ErrUntrusted}} {
		tok := d.token("paris", c.url)
		if _, err := identity.Join(t.Context(), tok.String(), t.TempDir(), p.now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		d.tokens.mu.Lock()
		if !d.tokens.kept[tok.ID].used.IsZero() {
			t.Errorf("%s: the token was used", name)
		}
		d.tokens.mu.Unlock()
	}
	if n := heard.Load(); n != 0 {
		t.Errorf("it heard %d requests", n)
	}
}

func TestTheNextControlPlaneIsAsked(t *testing.T) {
	p := newPlatform(t)
	d := newDoor(t, p)
	gone := httptest.NewServer(nil)
	gone.Close()
	tok := d.token("paris", strings.Replace(gone.URL, "http:", "https:", 1), d.url+"/")
	if _, err := identity.Join(t.Context(), tok.String(), t.TempDir(), p.now); err != nil {
		t.Error(err)
	}
}

func TestAWrongClockBurnsNoToken(t *testing.T) {
	p := newPlatform(t)
	d := newDoor(t, p)
	dir := t.TempDir()
	tok := d.token("paris")
	for _, off := range []time.Duration{-5 * time.Hour, 2 * time.Hour, 90 * 24 * time.Hour} {
		_, err := identity.Join(t.Context(), tok.String(), dir, func() time.Time { return p.now().Add(off) })
		if err == nil || !strings.Contains(err.Error(), "clock") || !strings.Contains(err.Error(), "NTP") {
			t.Errorf("off by %s: %v", off, err)
		}
	}
	if _, err := identity.Join(t.Context(), tok.String(), dir, p.now); err != nil {
		t.Errorf("with the clock set: %v", err)
	}
}

func TestTheDoorIsNarrow(t *testing.T) {
	p := newPlatform(t)
	e := &identity.Enrolment{Now: p.now, Tokens: &tokens{now: p.now}, Trust: p.trust, CA: p.issuer}
	send := func(method, path, from, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/enrol", "", 405},
		{"POST", "/else", "", 404},
		{"POST", "/enrol", "nonsense", 400},
		{"POST", "/enrol", `{"id":"a","more":1}`, 400},
		{"POST", "/enrol", `{"id":"` + strings.Repeat("a", 20<<10) + `"}`, 400},
		{"POST", "/enrol", `{} {}`, 400},
	} {
		if got := send(c.method, c.path, "192.0.2.1:1", c.body); got.Code != c.want {
			t.Errorf("%s %s %.30s: %d %s", c.method, c.path, c.body, got.Code, got.Body)
		}
	}
	var last *httptest.ResponseRecorder
	for range 30 {
		last = send("POST", "/enrol", "[2001:db8::1]:1", "x")
	}
	if last.Code != 429 || last.Header().Get("Retry-After") == "" {
		t.Errorf("%d", last.Code)
	}
	if got := send("POST", "/enrol", "[2001:db8::2]:1", "x"); got.Code != 429 {
		t.Errorf("another address of the same network: %d", got.Code)
	}
	if got := send("POST", "/enrol", "192.0.2.9:1", "x"); got.Code != 400 {
		t.Errorf("somebody else: %d", got.Code)
	}
	p.jump(time.Minute)
	if got := send("POST", "/enrol", "[2001:db8::1]:1", "x"); got.Code != 400 {
		t.Errorf("a minute later: %d", got.Code)
	}
}

func TestTokensAreReadWhole(t *testing.T) {
	tok, err := identity.NewToken([]string{"https://a.example:8443", "https://b.example"}, [32]byte{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	got, err := identity.ParseToken(tok.String())
	if err != nil || got.String() != tok.String() || got.Pin != tok.Pin || got.Hash() != tok.Hash() {
		t.Errorf("%+v, %v", got, err)
	}
	text := tok.String()
	for _, bad := range []string{"", "relais_x", text[:len(text)-5], text + "!", identity.TokenPrefix + "e30", strings.Repeat(text, 20)} {
		if _, err := identity.ParseToken(bad); err == nil || strings.Contains(err.Error(), text[20:40]) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	for _, u := range []string{"http://a", "https://", "https://u:p@a", "https://a?x=1", "a"} {
		if _, err := identity.NewToken([]string{u}, [32]byte{}); err == nil {
			t.Errorf("%s: taken", u)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	tok, err := identity.NewToken([]string{"https://a.example"}, [32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tok.String())
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := identity.ParseToken(s); err == nil {
			if again, err := identity.ParseToken(tok.String()); err != nil || again.Hash() != tok.Hash() {
				t.Errorf("%q is not read again: %v", s, err)
			}
		}
	})
}

// renewals is a control plane that renews, on a bus in memory.
func renewals(t *testing.T, p *platform, r *identity.Renewal) *bus.Memory {
	t.Helper()
	m := &bus.Memory{}
	end := m.Join()
	if r.Record == nil {
		r.Record = func(context.Context, identity.Issued) error { return nil }
	}
	r.CA, r.Trust = p.issuer, p.trust
	r.Welcome = func(context.Context, string) (identity.Welcome, error) {
		return identity.Welcome{Addresses: []string{"new.example:4222"}}, nil
	}
	_, err := end.Subscribe(bus.Up("*", bus.Renew), bus.Control, 10, r.Handle)
	p.must(err)
	t.Cleanup(func() { _ = end.Close() })
	return m
}

func (p *platform) state(name string) (identity.State, *identity.Credentials) {
	p.t.Helper()
	issued, key := p.issue(p.ca, p.id(identity.Pop, name), 0)
	text, err := identity.MarshalKey(key)
	p.must(err)
	s := identity.State{Token: "t", Key: string(text), Chain: string(issued.Chain), Bundle: string(p.trust.Bundle())}
	c, err := s.Open(p.now)
	p.must(err)
	return s, c
}

func TestCertificatesAreRenewedAtHalfOfTheirLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform(t)
		var refuse atomic.Bool
		var asked, renewed atomic.Int32
		m := renewals(t, p, &identity.Renewal{Record: func(context.Context, identity.Issued) error {
			if asked.Add(1); refuse.Load() {
				return errors.New("the store is away")
			}
			return nil
		}})
		s, creds := p.state("paris")
		dir := t.TempDir()
		p.must(identity.Save(dir, s))
		e := m.JoinAs(bus.PopRights("paris"))
		defer func() { _ = e.Close() }()
		k := &identity.Keeper{Dir: dir, Credentials: creds, Over: e, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Renewed: func(identity.State) { renewed.Add(1) }}
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { k.Run(ctx); close(done) }()
		serial := func() string {
			now, err := identity.Load(dir)
			p.must(err)
			return leafOf(t, now.Chain).SerialNumber.Text(16)
		}
		first := serial()
		time.Sleep(12*time.Hour - time.Minute)
		synctest.Wait()
		if renewed.Load() != 0 || serial() != first {
			t.Error("renewed too early")
		}
		// The roots change with a renewal.
		root, ca := p.authority()
		p.must(p.trust.SetBundle(append(p.trust.Bundle(), root.Certificate...)))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if renewed.Load() != 1 || serial() == first {
			t.Fatalf("renewed %d times", renewed.Load())
		}
		if !bytes.Equal(creds.Trust().Bundle(), p.trust.Bundle()) {
			t.Error("the new roots are not trusted")
		}
		p.succeed(ca)
		// While it cannot be, the old one stays, and it is tried again.
		second := serial()
		refuse.Store(true)
		asked.Store(0)
		time.Sleep(20 * time.Hour)
		synctest.Wait()
		if n := asked.Load(); renewed.Load() != 1 || serial() != second || n < 50 || n > 500 {
			t.Errorf("renewed %d, asked %d times in 8 h", renewed.Load(), asked.Load())
		}
		refuse.Store(false)
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if renewed.Load() != 2 || serial() == second {
			t.Errorf("renewed %d times after it could be", renewed.Load())
		}
		now, err := identity.Load(dir)
		p.must(err)
		if now.Addresses[0] != "new.example:4222" || now.Token != "t" {
			t.Errorf("%+v", now)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("%v, %v", files, err)
		}
		end()
		<-done
	})
}

func TestNobodyRenewsForAnother(t *testing.T) {
	p := newPlatform(t)
	told := make(chan identity.Event, 20)
	m := renewals(t, p, &identity.Renewal{Audit: func(e identity.Event) { told <- e }})
	rome, _ := p.state("rome")
	paris, _ := p.state("paris")
	stolen := rome
	stolen.Key = paris.Key // the certificate is no secret, the key is
	control := m.Join()
	defer func() { _ = control.Close() }()
	if _, err := identity.Renew(t.Context(), inbox{m, "rome"}, stolen, p.now()); err == nil {
		t.Error("without its key: renewed")
	}
	if _, err := identity.Renew(t.Context(), detour{m}, rome, p.now()); err == nil {
		t.Error("with the certificate of another PoP: renewed")
	}
	if _, err := identity.Renew(t.Context(), inbox{m, "rome"}, rome, p.now()); err != nil {
		t.Errorf("for itself: %v", err)
	}
	list, err := p.ca.RevokedList(1, []identity.Revoked{{Serial: leafOf(t, rome.Chain).SerialNumber.Text(16), Until: p.now().Add(time.Hour)}})
	p.must(err)
	p.must(p.trust.SetRevoked(list))
	if _, err := identity.Renew(t.Context(), inbox{m, "rome"}, rome, p.now()); err == nil {
		t.Error("a revoked certificate is renewed")
	}
	for name, data := range map[string]string{"nonsense": "x", "empty": "{}", "long": strings.Repeat("x", 20<<10)} {
		text, err := inbox{m, "rome"}.Request(t.Context(), "up.rome.renew", []byte(data))
		var a struct{ Error string }
		if err != nil || json.Unmarshal(text, &a) != nil || a.Error == "" {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
	close(told)
	var events []identity.Event
	for e := range told {
		events = append(events, e)
	}
	if len(events) != 7 || events[2].Err != nil || events[3].Err == nil {
		t.Errorf("%+v", events)
	}
}

// inbox asks as a PoP; detour as paris, whatever the subject.
type inbox struct {
	bus *bus.Memory
	pop string
}

func (i inbox) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	e := i.bus.JoinAs(bus.PopRights(i.pop))
	defer func() { _ = e.Close() }()
	return e.Request(ctx, subject, data)
}

type detour struct{ bus *bus.Memory }

func (d detour) Request(ctx context.Context, _ string, data []byte) ([]byte, error) {
	return inbox{d.bus, "paris"}.Request(ctx, "up.paris.renew", data)
}
