package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxAnswer bounds what a client reads.
const maxAnswer = 64 << 20

// Client asks a Server.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the socket at path.
func NewClient(path string) *Client {
	return &Client{path, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Get asks for a target such as /status and reads the JSON answer into v.
func (c *Client) Get(ctx context.Context, target string, v any) error {
	return c.ask(ctx, http.MethodGet, target, nil, v)
}

// Copy asks for a target such as /record and writes the answer, of any length, to w.
func (c *Client) Copy(ctx context.Context, target string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://relais"+target, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: c.http.Transport}).Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refused(resp)
	}
	_, err = io.Copy(w, resp.Body)
	return err
}

// Post sends a question as JSON and reads the JSON answer into v.
func (c *Client) Post(ctx context.Context, target string, question, v any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	return c.ask(ctx, http.MethodPost, target, body, v)
}

// Send posts what is no JSON question, such as lines of events, and reads the JSON answer into v.
func (c *Client) Send(ctx context.Context, target, contentType string, body []byte, v any) error {
	return c.askAs(ctx, http.MethodPost, target, contentType, body, v)
}

// Upgrade has the edge hand over to the program that is on disk now, and returns the id of the
// new process. It takes as long as that needs to start; ctx bounds it.
func (c *Client) Upgrade(ctx context.Context) (pid int, err error) {
	var u Upgraded
	patient := &Client{c.path, &http.Client{Transport: c.http.Transport}}
	err = patient.ask(ctx, http.MethodPost, "/upgrade", nil, &u)
	return u.Pid, err
}

func (c *Client) ask(ctx context.Context, method, target string, question []byte, v any) error {
	return c.askAs(ctx, method, target, "application/json", question, v)
}

func (c *Client) askAs(ctx context.Context, method, target, contentType string, question []byte, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://relais"+target, bytes.NewReader(question))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refused(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}

// unreachable says why nobody answers.
func (c *Client) unreachable(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("no relais answers at %s (%w); is it running, and with this --data folder?", c.path, op.Err)
	}
	return err
}

// refused says what the server has against a question.
func refused(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	var e struct{ Error string }
	if json.Unmarshal(body, &e) == nil && e.Error != "" {
		return errors.New(e.Error)
	}
	return fmt.Errorf("relais answers %s", resp.Status)
}
