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

// Post sends a question as JSON and reads the JSON answer into v.
func (c *Client) Post(ctx context.Context, target string, question, v any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	return c.ask(ctx, http.MethodPost, target, body, v)
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
	req, err := http.NewRequestWithContext(ctx, method, "http://relais"+target, bytes.NewReader(question))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return fmt.Errorf("no relais answers at %s (%w); is it running, and with this --data folder?", c.path, op.Err)
		}
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Error string }
		if json.Unmarshal(body, &e) == nil && e.Error != "" {
			return errors.New(e.Error)
		}
		return fmt.Errorf("relais answers %s", resp.Status)
	}
	return json.Unmarshal(body, v)
}
