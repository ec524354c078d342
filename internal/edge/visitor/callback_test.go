package visitor

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// chunks is a body that comes in pieces.
type chunks struct{ left []string }

func (c *chunks) Next(context.Context) ([]byte, error) {
	if len(c.left) == 0 {
		return nil, io.EOF
	}
	b := []byte(c.left[0])
	c.left = c.left[1:]
	return b, nil
}
func (c *chunks) Close(error) {}

func sum(secret, text string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

// reader is an origin that reads the whole body.
type reader struct {
	origin
	body string
}

func (o *reader) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	for x.In.Body != nil {
		b, err := x.In.Body.Next(ctx)
		o.body += string(b)
		if err != nil {
			break
		}
	}
	return o.origin.Serve(ctx, x)
}

func TestCallbacks(t *testing.T) {
	const body = `{"order":17}`
	now := strconv.FormatInt(time.Now().Unix(), 10)
	der := []byte("a certificate")
	print := sha256.Sum256(der)
	signed := func(scheme, header string) *v1.CallbackSignature {
		return &v1.CallbackSignature{Scheme: scheme, Header: header, Secrets: []string{"other-secret", "the-secret"}, Tolerance: v1.Duration(5 * time.Minute), MaxBody: 64}
	}
	raw, _ := hex.DecodeString(sum("the-secret", body))
	for _, c := range []struct {
		name        string
		spec        v1.Callback
		addr        string
		field, sign string
		cert        bool
		body        string
		want        bool
	}{
		{"an address of the list", v1.Callback{Addresses: []string{"198.51.100.0/24"}}, "198.51.100.9", "", "", false, body, true},
		{"another address", v1.Callback{Addresses: []string{"198.51.100.0/24"}}, "192.0.2.1", "", "", false, body, false},
		{"a certificate", v1.Callback{Certificates: []string{hex.EncodeToString(print[:])}}, "192.0.2.1", "", "", true, body, true},
		{"no certificate", v1.Callback{Certificates: []string{hex.EncodeToString(print[:])}}, "192.0.2.1", "", "", false, body, false},
		{"github", v1.Callback{Signature: signed("github", "")}, "192.0.2.1", "X-Hub-Signature-256", "sha256=" + sum("the-secret", body), false, body, true},
		{"github, another body", v1.Callback{Signature: signed("github", "")}, "192.0.2.1", "X-Hub-Signature-256", "sha256=" + sum("the-secret", body), false, body + " ", false},
		{"github, another secret", v1.Callback{Signature: signed("github", "")}, "192.0.2.1", "X-Hub-Signature-256", "sha256=" + sum("a-secret", body), false, body, false},
		{"github, cut", v1.Callback{Signature: signed("github", "")}, "192.0.2.1", "X-Hub-Signature-256", "sha256=" + sum("the-secret", body)[:62], false, body, false},
		{"github, none", v1.Callback{Signature: signed("github", "")}, "192.0.2.1", "X-Other", "x", false, body, false},
		{"stripe", v1.Callback{Signature: signed("stripe", "")}, "192.0.2.1", "Stripe-Signature", "t=" + now + ",v0=x,v1=" + sum("x", "x") + ",v1=" + sum("the-secret", now+"."+body), false, body, true},
		{"stripe, replayed an hour later", v1.Callback{Signature: signed("stripe", "")}, "192.0.2.1", "Stripe-Signature", "t=1000,v1=" + sum("the-secret", "1000."+body), false, body, false},
		{"stripe, another time", v1.Callback{Signature: signed("stripe", "")}, "192.0.2.1", "Stripe-Signature", "t=" + now + ",v1=" + sum("the-secret", "1."+body), false, body, false},
		{"hex", v1.Callback{Signature: signed("hex", "X-Sign")}, "192.0.2.1", "X-Sign", sum("other-secret", body), false, body, true},
		{"base64", v1.Callback{Signature: signed("base64", "X-Sign")}, "192.0.2.1", "X-Sign", base64.StdEncoding.EncodeToString(raw), false, body, true},
		{"too long a body", v1.Callback{Signature: signed("hex", "X-Sign")}, "192.0.2.1", "X-Sign", sum("the-secret", strings.Repeat("x", 65)), false, strings.Repeat("x", 65), false},
		{"address and signature, only one right", v1.Callback{Addresses: []string{"198.51.100.0/24"}, Signature: signed("hex", "X-Sign")}, "192.0.2.1", "X-Sign", sum("the-secret", body), false, body, false},
	} {
		spec := policySpec()
		c.spec.Name, c.spec.Path = "payments", "/hooks/pay"
		spec.Callbacks = []v1.Callback{c.spec}
		g := newRig(t, spec)
		r := &message.Request{Conn: &message.Conn{TLS: &message.TLS{}}, ContentLength: -1, Body: &chunks{[]string{c.body[:3], c.body[3:]}}}
		if c.cert {
			r.Conn.TLS.ClientCert = ":" + base64.StdEncoding.EncodeToString(der) + ":"
		}
		r.SetMethod([]byte("POST"))
		if c.field != "" {
			r.SetLine(c.field, []byte(c.sign))
		}
		x := &stage.Exchange{In: r, Path: []byte("/hooks/pay/1"), Site: g.site, Route: &g.site.Routes[0], Start: time.Now(), Client: netip.MustParseAddr(c.addr)}
		o := &reader{}
		if _, err := g.st.Serve(context.Background(), x, o); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := o.seen.Class == stage.Protected; got != c.want {
			t.Errorf("%s: protected is %v; %v", c.name, got, x.Trail.Marks())
		}
		if o.body != c.body {
			t.Errorf("%s: the origin got the body %q", c.name, o.body)
		}
		if x.End(message.Outcome{}); g.st.bodies.used.Load() != 0 {
			t.Errorf("%s: %d bytes stay taken", c.name, g.st.bodies.used.Load())
		}
	}
}
