// Package client asks a control plane over its HTTP API.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Bounds.
const (
	maxAnswer = 64 << 20
	tries     = 3 // of a request whose answer did not come; the key makes it happen once
)

// Client asks one control plane. The zero values of HTTP and Token are of use for a login.
type Client struct {
	// Base is the address, such as https://control.example.com.
	Base string
	// Token is sent as Authorization: Bearer.
	Token string
	// HTTP makes the requests; nil: one with a time limit of two minutes.
	HTTP *http.Client
}

// New makes a client. CA is PEM of the certificates to trust in place of the system's; empty: the system's.
func New(base, token string, ca []byte) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("client: %q is no address of a control plane; give one such as https://control.example.com", base)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("client: the CA holds no certificate in PEM")
		}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: c, ForceAttemptHTTP2: true}
	return &Client{Base: strings.TrimSuffix(base, "/"), Token: token, HTTP: &http.Client{Timeout: 2 * time.Minute, Transport: transport}}, nil
}

// Problem is what the control plane says when it refuses (RFC 9457).
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	RequestID string `json:"requestId"`
	Problems  []struct {
		File     string `json:"file"`
		Line     int    `json:"line"`
		Column   int    `json:"column"`
		Document string `json:"document"`
		Field    string `json:"field"`
		What     string `json:"what"`
		Fix      string `json:"fix"`
	} `json:"problems"`
}

// Error is what is wrong, with the id under which the control plane's log has it.
func (p *Problem) Error() string {
	s := p.Title
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	if p.RequestID != "" {
		s += " (request " + p.RequestID + ")"
	}
	return s
}

// Request is one question. Path elements are put together with Path.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	Header http.Header
	// Body and its type; a body without a type is JSON.
	Body []byte
	Type string
}

// Path joins elements to a path, each escaped.
func Path(elements ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, e := range elements {
		b.WriteString("/" + url.PathEscape(e))
	}
	return b.String()
}

// Do asks, and decodes the answer's JSON into what is given; a *[]byte gets it as it is, nil forgets it. A request that
// changes something carries an Idempotency-Key, so that it is asked again when the answer got lost, and happens once. An
// answer that is no success is a *Problem.
func (c *Client) Do(ctx context.Context, q Request, into any) (header http.Header, err error) {
	key := rand.Text()
	for n := range tries {
		var again bool
		if header, again, err = c.once(ctx, q, key, into); err == nil || !again || ctx.Err() != nil {
			return header, err
		}
		wait := time.NewTimer(time.Duration(n+1) * 300 * time.Millisecond)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, err
		}
	}
	return nil, err
}

func (c *Client) once(ctx context.Context, q Request, key string, into any) (header http.Header, again bool, err error) {
	u := c.Base + q.Path
	if len(q.Query) > 0 {
		u += "?" + q.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.Method, u, bytes.NewReader(q.Body))
	if err != nil {
		return nil, false, fmt.Errorf("client: %w", err)
	}
	for k, v := range q.Header {
		req.Header[k] = v
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if q.Method != http.MethodGet && c.Token != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	if len(q.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
		if q.Type != "" {
			req.Header.Set("Content-Type", q.Type)
		}
	}
	h := c.HTTP
	if h == nil {
		h = &http.Client{Timeout: 2 * time.Minute}
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, c.Token != "", fmt.Errorf("the control plane does not answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.Token != "", fmt.Errorf("the control plane's answer broke off: %w", err)
	}
	if resp.StatusCode >= 300 {
		return resp.Header, resp.StatusCode == http.StatusServiceUnavailable, problemIn(resp, body)
	}
	return resp.Header, false, decode(body, into)
}

func problem(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the control plane's answer broke off: %w", err)
	}
	return problemIn(resp, body)
}

func problemIn(resp *http.Response, body []byte) error {
	p := &Problem{Status: resp.StatusCode}
	if json.Unmarshal(body, p) != nil || p.Title == "" {
		p.Title = "the control plane answered " + resp.Status
	}
	return p
}

func decode(body []byte, into any) error {
	switch v := into.(type) {
	case nil:
		return nil
	case *[]byte:
		*v = body
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("client: the answer is not as the API says: %w", err)
	}
	return nil
}
