package listen

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/keypair"
)

// responder is an OCSP responder of a test.
type responder struct {
	*issuer
	url    string
	status atomic.Int64
	broken atomic.Bool
	asked  atomic.Int64
	life   time.Duration
}

func newResponder(t *testing.T) *responder {
	r := &responder{issuer: newIssuer(t, "ocsp"), life: time.Hour}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.asked.Add(1)
		b, err := io.ReadAll(q.Body)
		req, perr := ocsp.ParseRequest(b)
		if r.broken.Load() || err != nil || perr != nil {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		now := time.Now()
		a, err := ocsp.CreateResponse(r.cert, r.cert, ocsp.Response{
			Status: int(r.status.Load()), SerialNumber: req.SerialNumber, ThisUpdate: now.Add(-time.Second), NextUpdate: now.Add(r.life), RevokedAt: now,
		}, r.key)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(a)
	}))
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

func (r *responder) certificate(must bool) *v1.CertificateInline {
	c := r.leaf(func(c *x509.Certificate) {
		c.DNSNames, c.OCSPServer = []string{"stapled.example"}, []string{r.url}
		if must {
			feature, _ := asn1.Marshal([]int{5})
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: feature}}
		}
	})
	return inlineOf(r.t, c)
}

// stapled gives the OCSP answer of a handshake.
func stapled(t *testing.T, addr string) []byte {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: "stapled.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	return nc.ConnectionState().OCSPResponse
}

func (r *rig) showing(in *v1.CertificateInline, policy string) {
	r.t.Helper()
	l := listener("a", withTLS)
	l.Certificates = []bundle.Key{"demo/c"}
	if err := r.m.Apply([]bundle.Listener{l}, []bundle.Certificate{{Key: "demo/c", Spec: v1.CertificateSpec{Inline: in, OCSP: policy}}}); err != nil {
		r.t.Fatal(err)
	}
}

func TestRFC6066AnOCSPAnswerIsStapled(t *testing.T) {
	o, r := newResponder(t), newRig(t)
	r.showing(o.certificate(false), "staple")
	wait(t, func() bool { return len(stapled(t, r.addr("a"))) > 0 })
	a, err := ocsp.ParseResponse(stapled(t, r.addr("a")), o.cert)
	if err != nil || a.Status != ocsp.Good {
		t.Errorf("%+v %v", a, err)
	}
	if got := o.asked.Load(); got != 1 {
		t.Errorf("the responder was asked %d times", got)
	}
	if got := r.metric(`relais_ocsp_answers_total{result="ok"}`); got != "1" {
		t.Errorf("counted %s", got)
	}
}

func TestOCSPOffAsksNobody(t *testing.T) {
	o, r := newResponder(t), newRig(t)
	r.showing(o.certificate(false), "off")
	for range 3 {
		if b := stapled(t, r.addr("a")); b != nil {
			t.Fatal("an answer is stapled")
		}
	}
	if o.asked.Load() != 0 {
		t.Error("the responder was asked")
	}
}

func TestRFC7633AHandshakeWaitsForAStapleThatMustBeThere(t *testing.T) {
	o, r := newResponder(t), newRig(t)
	r.showing(o.certificate(true), "staple")
	if stapled(t, r.addr("a")) == nil {
		t.Error("the first handshake has no staple")
	}
}

func TestARevokedCertificateIsNotStapledAndCounted(t *testing.T) {
	o, r := newResponder(t), newRig(t)
	o.status.Store(ocsp.Revoked)
	r.showing(o.certificate(true), "staple")
	if stapled(t, r.addr("a")) != nil {
		t.Error("the word that it is revoked is stapled")
	}
	wait(t, func() bool { return r.metric(`relais_ocsp_answers_total{result="revoked"}`) == "1" })
}

func TestStaplesOutliveTheProcessAndARespondersAbsence(t *testing.T) {
	o := newResponder(t)
	in := o.certificate(true)
	dir := t.TempDir()
	start := func() *stapler { return newStapler(New(Config{Staples: dir}).cfg) }
	c, err := keypair.Parse([]byte(in.Certificate), []byte(in.Key))
	if err != nil {
		t.Fatal(err)
	}
	work := func(s *stapler) *staple {
		e := s.begin(c).(*staple)
		s.work(t.Context(), e)
		return e
	}
	if work(start()).with.Load() == nil {
		t.Fatal("no answer")
	}
	o.broken.Store(true)
	s := start()
	e := work(s)
	if e.with.Load() == nil || o.asked.Load() != 1 {
		t.Fatal("the answer that was kept is not used")
	}
	if half := time.Until(e.next); half < 20*time.Minute || half > 50*time.Minute {
		t.Errorf("the next question is in %v, not at half of the answer's hour", half)
	}
	s.work(t.Context(), e) // the responder is away
	if e.with.Load() == nil || e.failures != 1 {
		t.Error("a good answer is thrown away because there is no newer one")
	}
	e.until = time.Now().Add(-time.Second)
	s.work(t.Context(), e)
	if e.with.Load() != nil {
		t.Error("an answer is stapled beyond its end")
	}
}

func TestForeignAnswersAreNotStapled(t *testing.T) {
	o, other := newResponder(t), newResponder(t)
	in := o.certificate(false)
	c, err := keypair.Parse([]byte(in.Certificate), []byte(in.Key))
	if err != nil {
		t.Fatal(err)
	}
	c.Leaf.OCSPServer = []string{other.url}
	s := newStapler(New(Config{}).cfg)
	e := s.begin(c).(*staple)
	s.work(t.Context(), e)
	if e.with.Load() != nil {
		t.Error("an answer that another authority signed is stapled")
	}
}
