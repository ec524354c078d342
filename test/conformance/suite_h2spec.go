package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// h2specSuite is github.com/summerwind/h2spec on the first lane of the
// subject. It is built from its own module in test/conformance/h2spec.
type h2specSuite struct {
	name string
	root string // of the repository
	tls  bool
}

func (h h2specSuite) Name() string { return h.name }

func (h h2specSuite) Run(ctx context.Context, s *Subject, only []string) ([]Outcome, error) {
	program, err := buildH2spec(ctx, h.root)
	if err != nil {
		return nil, err
	}
	addr := s.Lanes[0].H2C
	args := []string{"-only", strings.Join(only, ",")}
	if h.tls {
		addr = s.Lanes[0].TLS
		args = append(args, "-tls")
	}
	cmd := exec.CommandContext(ctx, program, append(args, "-addr", addr)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("h2spec did not finish: %w\n%s", err, tail(stderr.String(), 1000))
	}
	return fromH2spec(stdout.Bytes())
}

// fromH2spec reads what the h2spec command prints.
func fromH2spec(b []byte) ([]Outcome, error) {
	var cases []struct{ Name, About, Verdict, Detail string }
	if err := json.Unmarshal(b, &cases); err != nil {
		return nil, fmt.Errorf("outcome of h2spec: %w", err)
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("h2spec ran no case")
	}
	all := make([]Outcome, 0, len(cases))
	for _, c := range cases {
		o := Outcome{Case: c.Name, Verdict: Verdict(c.Verdict)}
		if o.Verdict != Pass {
			o.Detail = strings.TrimSpace(c.About + ": " + c.Detail)
		}
		all = append(all, o)
	}
	return all, nil
}

func buildH2spec(ctx context.Context, root string) (string, error) {
	program := filepath.Join(root, ".work", "conformance", "h2spec")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(root, "test", "conformance", "h2spec")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build h2spec: %w\n%s", err, tail(string(out), 1000))
	}
	return program, nil
}

// tail is the end of s, at most n bytes.
func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		s = "..." + s[len(s)-n:]
	}
	return s
}
