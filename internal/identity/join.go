package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// joinTime bounds one try at one address.
const joinTime = 20 * time.Second

var (
	// ErrPin says that the server at a token's address is not the control plane that made it.
	ErrPin = errors.New("the server is not the control plane that made the token: its root has another key; nothing was sent to it")
	// ErrJoined says that a machine has joined already.
	ErrJoined = errors.New("this machine has joined already; remove identity.json from its folder to join anew")
)

// Join makes a machine a PoP: it keeps a new key in dir, shows it and the token to the control plane, which it knows by the
// token's pin, and keeps what it is given. It may be killed at any moment: called again with the same token it goes on.
// Now is the clock; nil: time.Now.
func Join(ctx context.Context, token, dir string, now func() time.Time) (State, error) {
	if now == nil {
		now = time.Now
	}
	t, err := ParseToken(token)
	if err != nil {
		return State{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return State{}, err
	}
	switch s, err := Load(dir); {
	case err == nil && s.Token == t.ID:
		return s, remove(dir, joinFile)
	case err == nil:
		return State{}, ErrJoined
	case !errors.Is(err, fs.ErrNotExist):
		return State{}, err
	}
	key, err := joinKey(dir, t.ID)
	if err != nil {
		return State{}, err
	}
	csr, err := requestFor(key)
	if err != nil {
		return State{}, err
	}
	a, err := askAll(ctx, t, csr, now)
	if err != nil {
		return State{}, err
	}
	s, err := accept(a, key, now(), Any(Pop))
	if err != nil {
		return State{}, err
	}
	s.Token = t.ID
	if err := Save(dir, s); err != nil {
		return State{}, err
	}
	return s, remove(dir, joinFile)
}

// joinKey is the key of this token: the one that was kept, or a new one. It is on the disk before anybody hears of it.
func joinKey(dir, token string) (*ecdsa.PrivateKey, error) {
	var j joining
	switch err := load(filepath.Join(dir, joinFile), &j); {
	case err == nil && j.Token == token:
		return ParseKey([]byte(j.Key))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	key, _, err := NewRequest()
	if err != nil {
		return nil, err
	}
	text, err := MarshalKey(key)
	if err != nil {
		return nil, err
	}
	return key, save(dir, joinFile, joining{token, string(text)})
}

// askAll asks the control planes of a token, one after the other. What one of them says of the token is said for all.
func askAll(ctx context.Context, t Token, csr []byte, now func() time.Time) (answer, error) {
	var all error
	for _, u := range t.URLs {
		a, err := askOne(ctx, t, u, csr, now)
		var skew *ClockError
		switch {
		case err == nil:
			return a, nil
		case errors.Is(err, ErrToken), errors.Is(err, ErrRequest), errors.Is(err, ErrPin), errors.Is(err, errClock), errors.As(err, &skew):
			return answer{}, err
		case ctx.Err() != nil:
			return answer{}, context.Cause(ctx)
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", u, err))
	}
	return answer{}, all
}

var errClock = errors.New("the clock is wrong")

func askOne(ctx context.Context, t Token, address string, csr []byte, now func() time.Time) (answer, error) {
	ctx, end := context.WithTimeout(ctx, joinTime)
	defer end()
	body, err := json.Marshal(enrolAsk{ID: t.ID, Secret: t.Secret, CSR: csr, Time: now()})
	if err != nil {
		return answer{}, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(address, "/")+"/enrol", bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	q.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{TLSClientConfig: t.tls(now), ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the secret goes nowhere else
	}}
	r, err := client.Do(q)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = r.Body.Close() }()
	var a answer
	b, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	if err != nil {
		return answer{}, err
	}
	if len(b) > maxAnswer || json.Unmarshal(b, &a) != nil {
		return answer{}, fmt.Errorf("it answers %s, and nothing that is understood here", r.Status)
	}
	if r.StatusCode != http.StatusOK {
		return answer{}, a.failure()
	}
	return a, nil
}

// failure is the error that an answer tells of.
func (a answer) failure() error {
	switch a.Code {
	case "token":
		return ErrToken
	case "clock":
		return fmt.Errorf("%w: %.400s", errClock, a.Error)
	case "request":
		return fmt.Errorf("%w: %.400s", ErrRequest, a.Error)
	}
	return fmt.Errorf("the control plane refuses: %.400q", a.Error)
}

// tls takes a server whose chain ends at the root that the token names, and which is a control plane.
func (t Token) tls(now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// No public authority has anything to say here: the token names the root.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > maxChain {
				return ErrPin
			}
			for _, c := range s.PeerCertificates {
				if pin, err := Pin(c.PublicKey); err != nil || pin != t.Pin || !c.IsCA {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(c)
				id, err := verify(s.PeerCertificates, roots, now())
				if err != nil {
					return err
				}
				return Any(Control)(id)
			}
			return ErrPin
		},
	}
}
