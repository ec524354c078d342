package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds of watching.
const (
	maxEventBytes = 4 << 20
	silence       = time.Minute // without a line: the server says each 15 s that it is there
	maxPause      = 30 * time.Second
)

// Event is a revision, or a reset: the history since the last event is not kept any more, so read everything anew.
type Event struct {
	Reset        bool          `json:"reset,omitempty"`
	Organization string        `json:"organization"`
	Revision     int64         `json:"revision"`
	Time         time.Time     `json:"time"`
	Author       string        `json:"author"`
	Reason       string        `json:"reason,omitempty"`
	Changes      []EventChange `json:"changes"`
}

// EventChange is a document that changed.
type EventChange struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Project string `json:"project,omitempty"`
	Action  string `json:"action"`
}

// Watch calls fn for each revision of an organization after one (0: from now on), in order and each once, until ctx ends or
// fn gives an error, which it returns. When the connection breaks it asks again, from where it was; a refusal is a *Problem.
func (c *Client) Watch(ctx context.Context, org string, after int64, fn func(Event) error) error {
	h := http.Client{}
	if c.HTTP != nil {
		h = *c.HTTP
	}
	h.Timeout = 0 // a stream has no end; its silence has
	w := &watcher{client: c, http: &h, org: org, after: after, fn: fn}
	pause := time.Duration(0)
	for {
		heard, err := w.once(ctx)
		var p *Problem
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case w.failed != nil:
			return w.failed
		case errors.As(err, &p) && p.Status < 500 && p.Status != http.StatusTooManyRequests:
			return err
		case heard:
			pause = 0
		}
		pause = min(max(2*pause, 250*time.Millisecond), maxPause)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

type watcher struct {
	client *Client
	http   *http.Client
	org    string
	after  int64
	fn     func(Event) error
	failed error // what fn said
}

// once reads one connection to its end.
func (w *watcher) once(ctx context.Context) (heard bool, err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	quiet := time.AfterFunc(silence, end)
	defer quiet.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.client.Base+Path("organizations", w.org, "watch"), nil)
	if err != nil {
		return false, fmt.Errorf("client: %w", err)
	}
	if w.client.Token != "" {
		req.Header.Set("Authorization", "Bearer "+w.client.Token)
	}
	if w.after > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(w.after, 10))
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return false, fmt.Errorf("the control plane does not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, problem(resp)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEventBytes)
	name, data, id := "", "", w.after
	for lines.Scan() {
		quiet.Reset(silence)
		heard = true
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "":
			if value != "" {
				continue // a comment
			}
			w.after = id // the event is whole
			if data != "" {
				w.failed = w.tell(name, data)
			}
			if w.failed != nil {
				return heard, w.failed
			}
			name, data = "", ""
		case "id":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return heard, fmt.Errorf("client: the id of an event is no number: %w", err)
			}
			id = n
		case "event":
			name = value
		case "data":
			data = value
		}
	}
	return heard, lines.Err()
}

func (w *watcher) tell(name, data string) error {
	e := Event{Organization: w.org, Revision: w.after, Reset: name == "reset"}
	if name == "revision" {
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("client: the event is not as the API says: %w", err)
		}
	} else if !e.Reset {
		return nil // of a later version
	}
	return w.fn(e)
}
