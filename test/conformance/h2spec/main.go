// Command h2spec runs the cases of github.com/summerwind/h2spec against one
// address and prints their outcomes as JSON on stdout. It is a module of its
// own, so that the product does not depend on the suite.
//
//	h2spec -addr 127.0.0.1:8080            HTTP/2 with prior knowledge
//	h2spec -addr 127.0.0.1:8443 -tls       HTTP/2 over TLS, any certificate
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// Outcome is the result of one case.
type Outcome struct {
	Name    string `json:"name"`    // suite/section/number, as h2spec counts them
	About   string `json:"about"`   // what the case does
	Verdict string `json:"verdict"` // pass, FAIL or skip
	Detail  string `json:"detail,omitempty"`
}

func main() {
	addr := flag.String("addr", "", "host:port to test")
	useTLS := flag.Bool("tls", false, "use TLS; the certificate is not checked")
	timeout := flag.Duration("timeout", 2*time.Second, "wait this long for an answer")
	strict := flag.Bool("strict", false, "run the cases of the strict mode too")
	only := flag.String("only", "", "comma separated cases or sections; empty runs all")
	flag.Parse()
	if err := run(*addr, *only, config.Config{TLS: *useTLS, Insecure: true, Strict: *strict, Timeout: *timeout}); err != nil {
		fmt.Fprintln(os.Stderr, "h2spec:", err)
		os.Exit(1)
	}
}

func run(addr, only string, c config.Config) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	if c.Port, err = strconv.Atoi(port); err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	c.Host, c.Path, c.MaxHeaderLen = host, "/", 4000
	if only != "" {
		c.Sections = strings.Split(only, ",")
	}
	// The suite prints its progress to os.Stdout, which is kept for the result.
	out := os.Stdout
	os.Stdout = os.Stderr
	outcomes := []Outcome{}
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(&c)
		outcomes = collect(outcomes, group)
	}
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(outcomes)
}

func collect(all []Outcome, group *spec.TestGroup) []Outcome {
	for i, tc := range append(append([]*spec.TestCase{}, group.Tests...), group.StrictTests...) {
		if tc.Result == nil {
			continue
		}
		o := Outcome{Name: group.ID() + "/" + strconv.Itoa(i+1), About: tc.Desc, Verdict: "pass"}
		switch {
		case tc.Result.Skipped:
			o.Verdict = "skip"
		case tc.Result.Failed:
			o.Verdict = "FAIL"
			o.Detail = detail(tc.Result.Error)
		}
		all = append(all, o)
	}
	for _, g := range group.Groups {
		all = collect(all, g)
	}
	return all
}

func detail(err error) string {
	if e, ok := err.(*spec.TestError); ok {
		return "want " + strings.Join(e.Expected, " or ") + "; got " + e.Actual
	}
	return err.Error()
}
