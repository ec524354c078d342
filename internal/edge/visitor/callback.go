package visitor

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// bodyMemory bounds what is kept of all callbacks' bodies together.
const bodyMemory = 64 << 20

// callback is a compiled Callback. It does not change.
type callback struct {
	scope     stage.Scope
	name      string
	key       uint64
	networks  []netip.Prefix
	prints    [][sha256.Size]byte
	header    string
	scheme    string
	secrets   [][]byte
	tolerance time.Duration
	maxBody   int64
}

func newCallback(spec *v1.Callback) (callback, error) {
	methods := spec.Methods
	if len(methods) == 0 {
		methods = []string{"POST"}
	}
	c := callback{scope: stage.NewScope(spec.Path, methods), name: spec.Name, key: budget.Fold([]byte("callback " + spec.Name))}
	for _, text := range spec.Addresses {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return c, err
			}
			n = netip.PrefixFrom(a, a.BitLen())
		}
		c.networks = append(c.networks, n)
	}
	for _, text := range spec.Certificates {
		b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
		if err != nil || len(b) != sha256.Size {
			return c, fmt.Errorf("%q is no SHA-256 fingerprint", text)
		}
		c.prints = append(c.prints, [sha256.Size]byte(b))
	}
	if g := spec.Signature; g != nil {
		c.scheme, c.header, c.tolerance, c.maxBody = g.Scheme, g.Header, g.Tolerance.Std(), int64(g.MaxBody)
		switch {
		case c.header != "":
		case c.scheme == "github":
			c.header = "X-Hub-Signature-256"
		case c.scheme == "stripe":
			c.header = "Stripe-Signature"
		default:
			return c, errors.New("signature.header is missing")
		}
		for _, t := range g.Secrets {
			c.secrets = append(c.secrets, []byte(t))
		}
	}
	if len(c.networks) == 0 && len(c.prints) == 0 && len(c.secrets) == 0 {
		return c, errors.New("neither addresses, certificates nor a signature are given")
	}
	return c, nil
}

// callback says whether x is the callback c, and makes it a protected visitor then. What cannot prove to be one
// is an ordinary request: it is served as any other, and the origin judges it.
func (s *Stage) callback(ctx context.Context, x *stage.Exchange, pt *part, c *callback) (bool, error) {
	why := ""
	switch {
	case len(c.networks) > 0 && !contains(c.networks, x.Client.Unmap()):
		why = "it does not come from the addresses of the callback"
	case len(c.prints) > 0 && !c.shows(x):
		why = "it shows no client certificate of the callback"
	case len(c.secrets) > 0:
		var err error
		if why, err = s.signed(ctx, x, c); err != nil {
			return false, err
		}
	}
	if why != "" {
		pt.metrics[callbackBad].Inc()
		x.MarkDetail("visitor", "callback-bad", why)
		return false, nil
	}
	pt.metrics[callbackSeen].Inc()
	x.Visitor = stage.Visitor{
		Class: stage.Protected, Key: c.key, Step: stage.StepOrder, Reached: stage.StepOrder, Confirmed: true, Callback: true,
	}
	x.MarkDetail("visitor", "callback", c.name)
	return true, nil
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for i := range list {
		if list[i].Contains(a) {
			return true
		}
	}
	return false
}

// shows says whether the connection has a verified client certificate of the callback. Only the connection's
// own counts, not the Client-Cert field, which a proxy in front may have written.
func (c *callback) shows(x *stage.Exchange) bool {
	if x.In.Conn == nil || x.In.Conn.TLS == nil {
		return false
	}
	text := strings.Trim(x.In.Conn.TLS.ClientCert, ":")
	if text == "" {
		return false
	}
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return false
	}
	print := sha256.Sum256(der)
	for i := range c.prints {
		if c.prints[i] == print {
			return true
		}
	}
	return false
}

// maxSignatures bounds how many signatures of one field are compared.
const maxSignatures = 8

// signed reads the body and says what is wrong with its signature; empty when nothing is.
func (s *Stage) signed(ctx context.Context, x *stage.Exchange, c *callback) (why string, err error) {
	field := x.In.Lookup(c.header)
	if len(field) == 0 {
		return "it has no signature", nil
	}
	stamp, sums := c.parse(field)
	if len(sums) == 0 {
		return "its signature is not in the form of its scheme", nil
	}
	if c.scheme == "stripe" {
		at, err := strconv.ParseInt(string(stamp), 10, 64)
		if d := x.Start.Sub(time.Unix(at, 0)); err != nil || d > c.tolerance || -d > c.tolerance {
			return "its signature is of another time", nil
		}
	}
	if x.In.ContentLength > c.maxBody {
		return "its body is longer than maxBody", nil
	}
	var body []byte
	if x.In.Body != nil {
		r := &replay{src: x.In.Body, from: &s.bodies}
		whole, err := r.fill(ctx, c.maxBody)
		if err != nil {
			r.release()
			return "", err
		}
		x.In.Body = r
		x.OnEnd(r)
		if !whole {
			return "its body is longer than what is kept of it", nil
		}
		body = r.kept
	}
	for _, secret := range c.secrets {
		m := hmac.New(sha256.New, secret)
		c.feed(m, stamp, body)
		want := m.Sum(nil)
		for _, got := range sums {
			if hmac.Equal(got, want) {
				return "", nil
			}
		}
	}
	return "its signature is of no secret of the callback", nil
}

func (c *callback) feed(m hash.Hash, stamp, body []byte) {
	if c.scheme == "stripe" {
		m.Write(stamp)
		m.Write([]byte{'.'})
	}
	m.Write(body)
}

// parse reads a signature field: the time of a stripe signature, and what was signed to.
func (c *callback) parse(field []byte) (stamp []byte, sums [][]byte) {
	switch c.scheme {
	case "github":
		v, ok := bytes.CutPrefix(field, []byte("sha256="))
		if !ok {
			return nil, nil
		}
		return nil, appendHex(nil, v)
	case "stripe":
		for part := range bytes.SplitSeq(field, []byte{','}) {
			k, v, _ := bytes.Cut(bytes.TrimSpace(part), []byte{'='})
			switch string(k) {
			case "t":
				stamp = v
			case "v1":
				if len(sums) < maxSignatures {
					sums = appendHex(sums, v)
				}
			}
		}
		return stamp, sums
	case "base64":
		b, err := base64.StdEncoding.DecodeString(string(field))
		if err != nil {
			return nil, nil
		}
		return nil, [][]byte{b}
	}
	return nil, appendHex(nil, field)
}

func appendHex(list [][]byte, text []byte) [][]byte {
	b := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(b, text); err != nil || len(b) != sha256.Size {
		return list
	}
	return append(list, b)
}

// bodies bounds what is kept of callbacks' bodies.
type bodies struct {
	limit int64
	used  atomic.Int64
}

// replay is a body that gives what was read of it before, then the rest.
type replay struct {
	src   message.Body
	from  *bodies
	kept  []byte
	count atomic.Int64 // bytes that are taken from the memory
	ended bool         // src has ended
	lent  bool
}

// fill reads until the end of the body or until most is passed; whole says that it was the end.
func (r *replay) fill(ctx context.Context, most int64) (whole bool, err error) {
	for int64(len(r.kept)) <= most {
		chunk, err := r.src.Next(ctx)
		r.kept = append(r.kept, chunk...)
		r.count.Add(int64(len(chunk)))
		full := r.from.used.Add(int64(len(chunk))) > r.from.limit
		if err == io.EOF {
			r.ended = true
			return int64(len(r.kept)) <= most, nil
		}
		if err != nil {
			return false, err
		}
		if full {
			return false, nil
		}
	}
	return false, nil
}

// Next implements message.Body.
func (r *replay) Next(ctx context.Context) ([]byte, error) {
	if !r.lent {
		r.lent = true
		if r.ended {
			return r.kept, io.EOF
		}
		return r.kept, nil
	}
	if r.ended {
		return nil, io.EOF
	}
	r.kept = nil
	r.release()
	return r.src.Next(ctx)
}

// Close implements message.Body.
func (r *replay) Close(cause error) {
	r.release()
	r.src.Close(cause)
}

// End implements message.Ender, for a body that nobody read.
func (r *replay) End(message.Outcome) { r.release() }

func (r *replay) release() { r.from.used.Add(-r.count.Swap(0)) }
