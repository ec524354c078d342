package acme

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	v1 "github.com/relais-edge/relais/api/v1"
)

// dnsSolver has the operator's hook set and remove the record of DNS-01 (RFC 8555 section 8.4).
type dnsSolver struct {
	hook *v1.ACMEHook
	web  *http.Client
}

// What a hook is asked to do.
const (
	hookPresent = "present"
	hookCleanup = "cleanup"
)

// Present implements acmez.Solver.
func (d *dnsSolver) Present(ctx context.Context, ch acme.Challenge) error {
	return d.call(ctx, hookPresent, ch)
}

// CleanUp implements acmez.Solver.
func (d *dnsSolver) CleanUp(ctx context.Context, ch acme.Challenge) error {
	return d.call(context.WithoutCancel(ctx), hookCleanup, ch)
}

// Wait implements acmez.Waiter.
func (d *dnsSolver) Wait(ctx context.Context, _ acme.Challenge) error {
	t := time.NewTimer(v1.Value(d.hook.Wait).Std())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// hookRequest is what a webhook gets.
type hookRequest struct {
	Action string `json:"action"`
	Name   string `json:"name"`
	Value  string `json:"value"`
}

func (d *dnsSolver) call(ctx context.Context, action string, ch acme.Challenge) error {
	ctx, cancel := context.WithTimeout(ctx, d.hook.Timeout.Std())
	defer cancel()
	r := hookRequest{action, "_acme-challenge." + strings.TrimPrefix(ch.Identifier.Value, "*.") + ".", ch.DNS01KeyAuthorization()}
	if len(d.hook.Exec) > 0 {
		return d.run(ctx, r)
	}
	return d.post(ctx, r)
}

// maxOutput bounds what is kept of what a hook says.
const maxOutput = 4096

// tail keeps the last bytes that are written.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - maxOutput; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (d *dnsSolver) run(ctx context.Context, r hookRequest) error {
	args := append(append([]string{}, d.hook.Exec[1:]...), r.Action, r.Name, r.Value)
	cmd := exec.CommandContext(ctx, d.hook.Exec[0], args...)
	cmd.WaitDelay = time.Second
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("dns.exec %s %s %s: %w: %s", d.hook.Exec[0], r.Action, r.Name, err, bytes.TrimSpace(out.b))
	}
	return nil
}

func (d *dnsSolver) post(ctx context.Context, r hookRequest) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.hook.Webhook, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.web.Do(req)
	if err != nil {
		return fmt.Errorf("dns.webhook: %w", err)
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, maxOutput))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("dns.webhook answers %s to %s of %s: %s", resp.Status, r.Action, r.Name, bytes.TrimSpace(said))
	}
	return nil
}
